"""Frozen embeddings: what a model makes of an evaluation split, streamed in batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit

_READ_AGAIN = 64  # records at once
_TEXT_BATCH = 256


class SignalFormat(Protocol):
    """What evaluation reads of a model's configuration."""

    @property
    def fs(self) -> float:
        """Sampling rate in Hz that the model was trained at."""

    @property
    def num_samples(self) -> int:
        """Samples per lead that the model was trained on."""


class TextModel(Protocol):
    """What makes vectors of texts."""

    def encode_text(self, texts: list[str]) -> Tensor:
        """Texts to embeddings (len(texts), D)."""


class ECGTextModel(TextModel, Protocol):
    """What evaluation needs of a model; :class:`esi_fast.ESI` has it."""

    @property
    def config(self) -> Any:
        """Holds at least :class:`SignalFormat`."""

    def encode_ecg(self, x: Tensor, normalize: bool = True) -> Tensor:
        """(B, 12, T) float32 mV, NaN missing, to embeddings (B, D)."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of the readable records of a split.

    Attributes:
        values: (m, D) float32, not normalised.
        rows: (m,) the row of each in the split, ascending.
        errors: key to reason, for every record that could not be read.
    """

    values: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    errors: dict[str, str]


def embed_ecg(
    model: ECGTextModel,
    split: EvaluationSplit,
    *,
    batch_size: int = 64,
) -> Embeddings:
    """Embed every readable record of a split, a batch at a time, with a progress bar on a terminal.

    Args:
        model: in evaluation mode; it moves signals to where it is.
        split: whose ``read`` gives signals in the model's own rate and length.
        batch_size: records a forward pass.

    Raises:
        ValueError: no record of the split could be read, or an embedding is not finite.
    """
    from tqdm import tqdm

    values: list[npt.NDArray[np.float32]] = []
    rows: list[int] = []
    errors: dict[str, str] = {}
    starts = range(0, len(split.keys), batch_size)
    for start in tqdm(starts, desc=f"embed {split.name}", unit="batch", disable=None, leave=False):
        batch_rows = list(range(start, min(start + batch_size, len(split.keys))))
        signals, reasons = split.read(batch_rows)
        errors |= {split.keys[r]: e for r, e in zip(batch_rows, reasons, strict=True) if e}
        good = [i for i, reason in enumerate(reasons) if not reason]
        if not good:
            continue
        with torch.inference_mode():
            x_BLT = torch.from_numpy(np.ascontiguousarray(signals[good], dtype=np.float32))
            embedding_BD = model.encode_ecg(x_BLT, normalize=False).float().cpu()
        finite = torch.isfinite(embedding_BD).all(dim=1)
        if not finite.all():
            key = split.keys[batch_rows[good[int((~finite).nonzero()[0, 0])]]]
            raise ValueError(f"the model's embedding of record {key} is not finite")
        values.append(embedding_BD.numpy())
        rows += [batch_rows[i] for i in good]
    if not rows:
        first = next(iter(errors.items()), ("", "the split is empty"))
        raise ValueError(f"no record of split {split.name} could be read ({': '.join(first)})")
    return Embeddings(np.concatenate(values), np.array(rows, dtype=np.int64), errors)


def still_unreadable(split: EvaluationSplit, keys: Collection[str]) -> bool:
    """Whether none of these records, which once could not be read, can be read now.

    Of a few at a time, until one can: a server that was away left out all of them.
    """
    rows = [row for row, key in enumerate(split.keys) if key in keys]
    starts = range(0, len(rows), _READ_AGAIN)
    return all(all(split.read(rows[start : start + _READ_AGAIN])[1]) for start in starts)


class Embedder:
    """A frozen model over a dataset; each split is embedded once, whichever tasks ask for it.

    Attributes:
        model: the one that embeds, for texts and signals that are no split of the dataset.
        dataset: opened in its signal format.
    """

    def __init__(
        self,
        model: ECGTextModel,
        dataset: EvaluationDataset,
        *,
        batch_size: int = 64,
    ) -> None:
        self.dataset = dataset
        self.model = model
        self._batch_size = batch_size
        self._embeddings: dict[str, Embeddings] = {}

    def ecg(self, split: str) -> Embeddings:
        """Embeddings of a split; errors as :func:`embed_ecg`, or the split has no records."""
        if split not in self._embeddings:
            self._embeddings[split] = embed_ecg(
                self.model,
                self.dataset.split(split),
                batch_size=self._batch_size,
            )
        return self._embeddings[split]


def embed_texts(model: TextModel, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit embeddings (len(texts), D); a text that occurs again is embedded once.

    Raises:
        ValueError: an embedding is zero or not finite.
    """
    from tqdm import tqdm

    distinct = list(dict.fromkeys(texts))
    place = {text: i for i, text in enumerate(distinct)}
    starts = range(0, len(distinct), _TEXT_BATCH)
    with torch.inference_mode():
        blocks = [
            model.encode_text(distinct[start : start + _TEXT_BATCH]).float().cpu().numpy()
            for start in tqdm(starts, desc="embed texts", unit="batch", disable=None, leave=False)
        ]
    return unit_rows(np.concatenate(blocks))[[place[text] for text in texts]]


def embed_prompts(model: TextModel, prompts: Sequence[Sequence[str]]) -> npt.NDArray[np.float32]:
    """One unit embedding (K, D) a label: the mean of its prompts' unit embeddings, normalised.

    Raises:
        ValueError: a label has no prompt, or an embedding is not finite.
    """
    for index, texts in enumerate(prompts):
        if not texts:
            raise ValueError(f"label number {index} has no prompt")
    embedding_ND = embed_texts(model, [text for texts in prompts for text in texts])
    ends = np.cumsum([len(texts) for texts in prompts])
    parts = np.split(embedding_ND, ends[:-1])
    return unit_rows(np.stack([part.mean(axis=0) for part in parts]))


def unit_rows(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row divided by its Euclidean length.

    Raises:
        ValueError: a row is zero or not finite, so that it has no direction.
    """
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        raise ValueError("an embedding is zero or not finite, so that it has no direction")
    unit: npt.NDArray[np.float32] = x / length
    return unit
