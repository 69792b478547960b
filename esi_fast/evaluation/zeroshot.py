"""Zero-shot: a record's score for a label is its cosine to the label's prompts; nothing is fitted.

The score is the plain cosine. Subtracting the cosine to a "normal" prompt is common, but moves
every label's score of a record alike, and so mixes the normal finding into all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.contenders import label_result, val_thresholds
from esi_fast.evaluation.embed import Embedder, Embeddings, embed_prompts
from esi_fast.evaluation.label_summary import THRESHOLDS
from esi_fast.evaluation.prompts import Prompts, label_prompts
from esi_fast.evaluation.results import FloatArray, LabelResult
from esi_fast.evaluation.shared_records import shared_rows, unit_embeddings


def zero_shot(
    embedders: Mapping[str, Embedder],
    *,
    split: str = "test",
    prompts: Path | None = None,
    kind: str = "name",
) -> LabelResult:
    """Score every label of a split by text prompts.

    Args:
        embedders: the contenders, over the same dataset.
        split: which records to score.
        prompts: a file of the user's own prompts, see `esi_fast.evaluation.prompts`.
        kind: prompts by "name", by "description" or "both". A label's prompts weigh the same.

    Returns:
        The cosines. Labels without a prompt of that kind are not scored. Details list the prompts,
        and per contender the thresholds of the highest F1 on the validation patients, where they
        are not what is scored.

    Raises:
        ValueError: the split is empty or unreadable, the prompts cannot be made (see
            :func:`esi_fast.evaluation.prompts.label_prompts`), or an embedding has no direction.
    """
    embeddings = {name: one.ecg(split) for name, one in embedders.items()}
    rows, errors = shared_rows(embeddings)
    dataset = next(iter(embedders.values())).dataset
    chosen = label_prompts(dataset, kind=kind, path=prompts)
    if not any(chosen.values()):
        raise ValueError(
            f"no label of dataset {dataset.name} has a prompt by {kind}: write them in a file of "
            "prompts, or ask by name"
        )
    label_KD = {name: embed_label_prompts(one, chosen) for name, one in embedders.items()}
    scores = {name: _cosines(one, rows, label_KD[name]) for name, one in embeddings.items()}
    details: dict[str, Any] = {
        "score": "cosine of the record's embedding and the mean of its label's prompts'",
        "prompts_by": kind,
        "prompts": {label: list(texts) for label, texts in chosen.items()},
    }
    if split != "val" and "val" in dataset.splits:
        details[THRESHOLDS] = {
            name: _thresholds(one, label_KD[name]) for name, one in embedders.items()
        }
    return label_result(
        "zeroshot",
        dataset,
        split,
        rows,
        scores,
        probabilities=frozenset(),
        not_scored={
            label: f"no prompt by {kind}: write one in a file of prompts"
            for label, texts in chosen.items()
            if not texts
        },
        details=details,
        errors=errors,
    )


def embed_label_prompts(
    embedder: Embedder, prompts: Mapping[str, Prompts]
) -> npt.NDArray[np.float32]:
    """One unit embedding (K, D) a label: the mean of its prompts'; NaN where it has none."""
    has = np.array([bool(texts) for texts in prompts.values()], dtype=np.bool_)
    found = embed_prompts(embedder.model, [texts for texts in prompts.values() if texts])
    vectors = np.full((len(has), found.shape[1]), np.nan, dtype=np.float32)
    vectors[has] = found
    return vectors


def _cosines(
    embeddings: Embeddings, rows: npt.NDArray[np.int64], label_KD: npt.NDArray[np.float32]
) -> FloatArray:
    cosine: FloatArray = (unit_embeddings(embeddings, rows) @ label_KD.T).astype(np.float64)
    return cosine


def _thresholds(embedder: Embedder, label_KD: npt.NDArray[np.float32]) -> dict[str, float]:
    embeddings = embedder.ecg("val")
    scores = _cosines(embeddings, embeddings.rows, label_KD)
    labels = embedder.dataset.split("val").labels[embeddings.rows]
    return val_thresholds(embedder.dataset.label_names, scores, labels)
