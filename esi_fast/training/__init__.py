"""The parts of a training loop that know no model: losses, gathering, schedule, log, checkpoints.

``tools/pretrain.py`` is where model, data, losses and engine meet.
"""
