"""Zero-shot: a record's score for a label is its cosine to the label's prompts; nothing is fitted.

The score is the plain cosine. Subtracting the cosine to a "normal" prompt is common, but moves
every label's score of a record alike, and so mixes the normal finding into all others.
"""

from __future__ import annotations

import numpy as np

from esi_fast.evaluation.embed import Embedder, unit_rows
from esi_fast.evaluation.metrics import FloatArray, Resampling, TaskResult, compare


def zero_shot(
    trained: Embedder,
    untrained: Embedder,
    *,
    split: str = "test",
    resampling: Resampling | None = None,
) -> TaskResult:
    """Score every label of a split by text prompts, for a model and for its untrained twin.

    Args:
        trained: the model over the dataset.
        untrained: the same architecture and tokenizer with random weights, over the same dataset.
        split: which records to score.
        resampling: of the intervals.

    Raises:
        ValueError: the split is empty or unreadable, a label has no prompt, or an embedding is not
            finite.
    """
    resampling = resampling or Resampling()
    dataset = trained.dataset
    target = dataset.split(split)
    rows = trained.ecg(split).rows
    labels, groups = target.labels[rows], target.groups[rows]
    scores, baseline = cosine_scores(trained, split), cosine_scores(untrained, split)
    return TaskResult(
        task="zeroshot",
        split=split,
        label_names=dataset.label_names,
        keys=tuple(target.keys[row] for row in rows),
        groups=groups,
        labels=labels,
        trained=scores,
        untrained=baseline,
        comparison=compare(scores, baseline, labels, groups, dataset.label_names, resampling),
        resampling=resampling,
        details={
            "score": "cosine of the record's embedding and the mean of its label's prompts'",
            "prompts": dict(zip(dataset.label_names, map(list, dataset.prompts), strict=True)),
        },
        errors=trained.ecg(split).errors,
    )


def cosine_scores(embedder: Embedder, split: str) -> FloatArray:
    """Cosine (n, K) of each readable record's embedding and each label's prompt embedding."""
    cosine: FloatArray = (unit_rows(embedder.ecg(split).values) @ embedder.prompts().T).astype(
        np.float64
    )
    return cosine
