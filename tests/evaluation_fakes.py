"""A model whose embeddings are planted in the signals, so that every score is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import torch

from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit

NUM_SAMPLES = 8


class PlantedModel:
    """Embeds a record as the first sample of its twelve leads, and a text by looking it up."""

    def __init__(self, texts: Mapping[str, Sequence[float]] | None = None) -> None:
        self.config = SimpleNamespace(fs=100.0, num_samples=NUM_SAMPLES)
        self.texts = texts or {}
        self.normalize_seen: list[bool] = []
        self.batches: list[int] = []

    def encode_ecg(self, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        self.normalize_seen.append(normalize)
        self.batches.append(len(ecg_BLT))
        return ecg_BLT[:, :, 0]

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(np.array([self.texts[text] for text in texts], dtype=np.float32))


class NoiseModel(PlantedModel):
    """The untrained twin: embeddings that know nothing of the record."""

    def encode_ecg(self, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(self.batches))
        self.batches.append(len(ecg_BLT))
        return torch.randn((len(ecg_BLT), 12), generator=generator)


def planted_split(
    name: str,
    embeddings: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | None = None,
    unreadable: Mapping[int, str] | None = None,
) -> EvaluationSplit:
    """A split whose signals hold ``embeddings`` (n, 12); ``unreadable`` maps rows to reasons."""
    bad = unreadable or {}

    def read(rows: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
        signals = np.full((len(rows), 12, NUM_SAMPLES), np.nan, np.float32)
        signals[:, :, 0] = embeddings[list(rows)]
        for i, row in enumerate(rows):
            if row in bad:
                signals[i] = np.nan
        return signals, tuple(bad.get(row, "") for row in rows)

    n = len(embeddings)
    return EvaluationSplit(
        name,
        tuple(f"{name}-{i:04d}" for i in range(n)),
        np.array(groups if groups is not None else [f"{name}-p{i}" for i in range(n)]),
        labels.astype(bool),
        read,
    )


def planted_dataset(
    splits: Sequence[EvaluationSplit], prompts: Mapping[str, Sequence[str]]
) -> EvaluationDataset:
    return EvaluationDataset(
        name="planted",
        source="planted",
        label_names=tuple(prompts),
        titles=tuple(name.replace("_", " ") for name in prompts),
        prompts=tuple(tuple(texts) for texts in prompts.values()),
        splits={split.name: split for split in splits},
    )
