"""What tools/bench measures, and the committed results."""
