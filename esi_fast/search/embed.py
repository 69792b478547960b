"""Embeddings of many ECGs: streamed in batches, kept in parts, one bad record harms no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from esi_fast.data.signals import Signals, no_signal
from esi_fast.search.parts import Parts, digest_of_keys
from esi_fast.search.sources import Row, Source

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI

Dtype = Literal["float32", "float16"]
Progress = Callable[[int, int], object]
# A part ends at so many rows or seconds: what a killed job loses at most.
PART_SIZE, PART_SECONDS = 8192, 60.0
# Half of the length that every embedding has which has a direction.
_MIN_LENGTH = 0.5


def embed_source(
    model: ESI,
    source: Source,
    parts: Parts,
    *,
    batch_size: int = 64,
    dtype: Dtype = "float32",
    progress: Progress = lambda done, total: None,
) -> None:
    """Fill parts with the embeddings of a source, unit length, in its order.

    A record is rejected, with the reason, where it cannot be read, where all its samples are
    missing, and where its embedding is not finite or has no direction.

    Args:
        model: in evaluation mode.
        source: the recordings, at the model's rate and length.
        parts: open for this source and model; parts that are done already are not made again.
        batch_size: records a forward pass; the next batch is read meanwhile.
        dtype: of the embeddings.
        progress: called with the rows done and their number.

    Raises:
        ValueError: ``batch_size`` or ``dtype`` is out of range, the source has changed since the
            parts were begun, or none of its records has an embedding.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype is {dtype!r}; give {' or '.join(get_args(Dtype))}")
    rows = iter(source)
    done = 0
    for part in parts.done:
        taken = list(islice(rows, part.num_rows))
        if digest_of_keys([row.key for row in taken]) != part.keys:
            raise ValueError(
                f"the recordings have changed since {parts.folder} was begun: remove it"
            )
        done += len(taken)
    progress(done, len(source))
    held = _Held(time.monotonic())
    for batch, signals, errors in _read_ahead(source, rows, batch_size):
        reasons = no_signal(signals, errors)
        embeddings = _embed(model, signals, reasons)
        _judge(embeddings, reasons)
        for at, row in enumerate(batch):
            if not reasons[at]:
                try:
                    held.lines.append(source.line(row))
                    held.kept.append(embeddings[at])
                except ValueError as error:
                    reasons[at] = str(error)
            if reasons[at]:
                held.rejected.append((row.key, reasons[at]))
        held.keys += [row.key for row in batch]
        done += len(batch)
        if len(held.keys) >= PART_SIZE or time.monotonic() - held.since >= PART_SECONDS:
            held.add_to(parts, model.config.embed_dim, dtype)
            held = _Held(time.monotonic())
        progress(done, len(source))
    if held.keys:
        held.add_to(parts, model.config.embed_dim, dtype)
    if not parts.num_kept:
        key, reason = parts.rejected[0]
        raise ValueError(f"no record has an embedding; the first, {key}: {reason}")


def job_settings(source: Source, model_sha256: str, dtype: Dtype) -> dict[str, Any]:
    """All that decides what the embeddings of a job are."""
    return {"model": model_sha256, "dtype": dtype, "source": json.dumps(source.identity)}


@dataclass(slots=True)
class _Held:
    """A part in the making."""

    since: float
    keys: list[str] = field(default_factory=list)
    kept: list[npt.NDArray[np.float32]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    def add_to(self, parts: Parts, dimension: int, dtype: Dtype) -> None:
        """Put it on disk."""
        embeddings = np.array(self.kept, dtype=dtype).reshape(len(self.kept), dimension)
        parts.add(self.keys, embeddings, self.lines, self.rejected)


def _read_ahead(
    source: Source, rows: Iterator[Row], batch_size: int
) -> Iterator[tuple[Sequence[Row], Signals, list[str]]]:
    """Batches with their signals; each is read while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        batch = list(islice(rows, batch_size))
        coming = pool.submit(source.read, batch)
        while batch:
            signals, errors = coming.result()
            following = list(islice(rows, batch_size))
            coming = pool.submit(source.read, following)
            yield batch, signals, errors
            batch = following


def _embed(model: ESI, signals: Signals, reasons: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit embeddings (n, D); NaN for those that have a reason."""
    import torch

    embeddings = np.full((len(signals), model.config.embed_dim), np.nan, np.float32)
    good = [at for at, reason in enumerate(reasons) if not reason]
    if good:
        ecg_BLT = torch.from_numpy(np.ascontiguousarray(signals[good]))
        embeddings[good] = model.encode_ecg(ecg_BLT, normalize=True).float().cpu().numpy()
    return embeddings


def _judge(embeddings: npt.NDArray[np.float32], reasons: list[str]) -> None:
    """Add a reason for each embedding that cannot be compared with others."""
    for at, length in enumerate(np.linalg.norm(embeddings, axis=1).tolist()):
        if not reasons[at] and not np.isfinite(length):
            reasons[at] = "the model's embedding is not finite"
        elif not reasons[at] and length < _MIN_LENGTH:
            reasons[at] = "the model's embedding has no direction"
