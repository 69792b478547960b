"""Signals of an evaluation: of any rate, length and order of leads, as a model reads them.

Every model of this project reads the twelve leads in the standard order and does its own
normalising, so that leads are put there by name and voltages stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.protocols import as_protocol
from esi_fast.leads import NUM_LEADS, STANDARD_LEADS

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet

Signals = npt.NDArray[np.float32]
ReadRows = Callable[[Sequence[int]], tuple[Signals, tuple[str, ...]]]


def record_reader(
    dataset: str,
    paths: Sequence[str | Path],
    fs: float,
    num_samples: int,
    protocol: str,
    adc_units_per_mv: float | None = None,
) -> ReadRows:
    """What reads WFDB records by row: the first ``num_samples / fs`` seconds of each, in mV.

    Args:
        dataset, protocol: as of `esi_fast.evaluation.datasets.open_dataset`.
        paths: the records.
        fs: wanted rate in Hz.
        num_samples: wanted samples per lead.
        adc_units_per_mv: gain where the headers hold no calibration; None: theirs.

    Returns:
        Rows to (len(rows), 12, num_samples) float32, NaN where missing, and per record "" or why it
        could not be read.
    """

    def read(rows: Sequence[int]) -> tuple[Signals, tuple[str, ...]]:
        from esi_fast.signal.record_batch import read_records

        batch = read_records(
            [paths[row] for row in rows],
            fs=fs,
            duration=num_samples / fs,
            adc_units_per_mv=adc_units_per_mv,
        )
        signals = fit_signals(np.asarray(batch.signal, dtype=np.float32), fs, fs, num_samples)
        return as_protocol(dataset, protocol, signals, fs), batch.errors

    return read


def shard_reader(shard_set: ShardSet, fs: float, num_samples: int, protocol: str) -> ReadRows:
    """What reads samples of shards by row, as `record_reader`; leads they do not store are NaN."""
    own = [STANDARD_LEADS.index(lead) for lead in shard_set.leads]

    def read(rows: Sequence[int]) -> tuple[Signals, tuple[str, ...]]:
        stored = np.empty((len(rows), len(own), shard_set.num_samples), np.float32)
        damage = shard_set.read_batch(rows, stored)
        signals = np.full((len(rows), NUM_LEADS, shard_set.num_samples), np.nan, np.float32)
        signals[:, own] = stored
        signals[list(damage)] = np.nan
        signals = fit_signals(signals, shard_set.fs, fs, num_samples)
        errors = tuple(damage.get(position, "") for position in range(len(rows)))
        return as_protocol("shards", protocol, signals, fs), errors

    return read


def fit_signals(signals: Signals, fs: float, model_fs: float, num_samples: int) -> Signals:
    """Signals (n, 12, T) at ``fs`` in a model's format: resampled, then cut or padded with NaN."""
    if fs != model_fs:
        from esi_fast.signal.resample import resample

        signals = resample(signals, fs, model_fs)
    missing = num_samples - signals.shape[-1]
    if missing > 0:
        return np.pad(signals, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
    return signals[..., :num_samples]
