"""What a pretraining run is put together from: model, data and losses meet here.

``tools/pretrain.py`` is the run itself, from top to bottom.
"""
