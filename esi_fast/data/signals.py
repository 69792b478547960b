"""Signals of recordings as a model reads them, whichever tool asks: evaluation, embedding, search.

Every model of this project reads the twelve leads in the standard order and does its own
normalising, so that leads are put there by name and voltages stay what they are. Limb leads that
were not recorded are computed from two others, as `esi_fast.signal.inputs.read_ecg` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from esi_fast.leads import NUM_LEADS, STANDARD_LEADS
from esi_fast.signal.inputs import limb_leads

if TYPE_CHECKING:
    from esi_fast.data.shard_set import ShardSet
    from esi_fast.signal.records import RecordPath

Signals = npt.NDArray[np.float32]


def read_wfdb(
    paths: Sequence[RecordPath],
    fs: float,
    num_samples: int,
    adc_units_per_mv: float | None = None,
) -> tuple[Signals, list[str]]:
    """WFDB records in a model's format; one with some of the leads is read, too.

    Args:
        paths: the records.
        fs: wanted rate in Hz.
        num_samples: wanted samples per lead; longer records are cut, shorter ones end in NaN.
        adc_units_per_mv: gain where the headers hold no calibration; None: theirs.

    Returns:
        (len(paths), 12, num_samples) float32 in mV, NaN where missing, and of each "" or why it
        could not be read.
    """
    from esi_fast.signal.record_batch import read_records

    batch = read_records(
        paths,
        fs=fs,
        duration=num_samples / fs,
        required_leads=(),
        adc_units_per_mv=adc_units_per_mv,
    )
    signals = fit_signals(np.asarray(batch.signal, dtype=np.float32), fs, fs, num_samples)
    _compute_limb_leads(signals)
    return signals, list(batch.errors)


def read_shards(
    shard_set: ShardSet, rows: Sequence[int], fs: float, num_samples: int
) -> tuple[Signals, list[str]]:
    """Samples of shards by row in a model's format; as `read_wfdb`."""
    stored = np.empty((len(rows), len(shard_set.leads), shard_set.num_samples), np.float32)
    damage = shard_set.read_batch(rows, stored)
    stored[list(damage)] = np.nan
    signals = twelve_leads(stored, shard_set.leads)
    errors = [damage.get(position, "") for position in range(len(rows))]
    return fit_signals(signals, shard_set.fs, fs, num_samples), errors


def twelve_leads(signals: Signals, leads: Sequence[str]) -> Signals:
    """Signals (n, leads, T) under their standard names as (n, 12, T); NaN where nothing is known.

    Limb leads are computed where two others have samples.
    """
    whole = np.full((len(signals), NUM_LEADS, signals.shape[-1]), np.nan, np.float32)
    whole[:, [STANDARD_LEADS.index(lead) for lead in leads]] = signals
    _compute_limb_leads(whole)
    return whole


def _compute_limb_leads(signals: Signals) -> None:
    """Fill in the limb leads of (n, 12, T) that have no sample, from two that have."""
    for at in np.flatnonzero(np.isnan(signals).all(axis=-1).any(axis=-1)):
        computed = limb_leads(dict(zip(STANDARD_LEADS, signals[at], strict=True)))
        for lead, samples in computed.items():
            signals[at, STANDARD_LEADS.index(lead)] = samples


def no_signal(signals: Signals, errors: Sequence[str]) -> list[str]:
    """The errors, and a reason for each signal (n, 12, T) without a sample."""
    return [
        error or ("every sample is missing" if np.isnan(signal).all() else "")
        for error, signal in zip(errors, signals, strict=True)
    ]


def fit_signals(signals: Signals, fs: float, model_fs: float, num_samples: int) -> Signals:
    """Signals (n, L, T) at ``fs`` in a model's format: resampled, then cut or padded with NaN."""
    if fs != model_fs:
        from esi_fast.signal.resample import resample

        signals = resample(signals, fs, model_fs)
    missing = num_samples - signals.shape[-1]
    if missing > 0:
        return np.pad(signals, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
    return signals[..., :num_samples]
