"""Architecture only: the ECG encoder, the text encoder, the caption decoder; ESI joins them.

Shape suffixes in this folder: B batch, L leads, T samples or time steps, C channels,
N text tokens, D embedding width, H heads, V vocabulary.
"""
