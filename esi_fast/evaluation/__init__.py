"""Evaluation: datasets with labels by name, tasks on frozen models, scores with intervals, reports.

``datasets`` opens records in a model's format, ``embed`` runs the model over them, and the tasks
(``zeroshot``, ``probe``, ``identify``, ``retrieval``, ``captioning``, ...) turn that into results:
scores of every contender, which are all that is cached (``results``, ``cache``). ``summary`` gives
them their measures (``ranking``, ``calibration``), intervals (``bootstrap``) and tests
(``significance``), ``report`` and ``closing`` write them down. ``run`` is one evaluation, from the
request to the report.
"""
