"""CQA: grounded captions. Statements are normalised, described once each from passages, checked,
and composed per record with its own measurements; no torch, no signals.
"""
