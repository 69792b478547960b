"""Evaluation: datasets with labels by name, tasks on frozen models, scores with intervals, reports.

``datasets`` opens records in a model's format, ``embed`` runs the model over them, ``zeroshot`` and
``probe`` turn embeddings into scores, ``metrics`` gives scores their intervals, ``report`` and
``closing`` write them down (``document`` is how).
"""
