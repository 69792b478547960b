"""Signal quality of one record: which leads are flat, incomplete or clipped."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS

# A lead that stays within 10 uV over the whole record carries no heartbeat.
FLAT_RANGE_MV = 0.01
# A resting ECG never reaches 20 mV; and 10 equal samples at a lead's extreme are a saturated ADC.
OUT_OF_RANGE_MV = 20.0
CLIPPED_RUN = 10
SATURATION_MV = 0.5  # from the baseline; closer to it, equal samples are a quiet stretch


class Quality(TypedDict, total=False):
    """Only what is wrong is present; an empty mapping is a clean record."""

    flat: list[str]
    missing: dict[str, float]
    clipped: list[str]


def assess(signal: NDArray[np.float32]) -> Quality:
    """Flags of a 12-lead record.

    Args:
        signal: (12, T) in mV, standard lead order, NaN where samples are missing.

    Returns:
        ``flat``: leads whose range is below 10 uV (or that have no sample at all); ``missing``: the
        share of missing samples (0..1] of each lead that has any; ``clipped``: leads that stay 10
        samples or longer at their own extreme value, away from the baseline, or that exceed 20 mV.

    Raises:
        ValueError: the signal is not (12, T) with T >= 1.
    """
    if signal.ndim != 2 or signal.shape[0] != len(STANDARD_LEADS) or signal.shape[1] == 0:
        raise ValueError(f"signal must be (12, T) with T >= 1, not {signal.shape}")
    is_missing = np.isnan(signal)
    missing_share = is_missing.mean(axis=1)
    has_samples = missing_share < 1
    low = np.where(has_samples, np.where(is_missing, np.inf, signal).min(axis=1), 0.0)
    high = np.where(has_samples, np.where(is_missing, -np.inf, signal).max(axis=1), 0.0)
    flat = high - low < FLAT_RANGE_MV
    clipped = np.maximum(np.abs(high), np.abs(low)) > OUT_OF_RANGE_MV
    for lead in np.flatnonzero(~flat & ~clipped):
        baseline = np.nanmedian(signal[lead])
        for extreme in (low[lead], high[lead]):
            if abs(extreme - baseline) > SATURATION_MV:
                clipped[lead] |= _has_run(signal[lead] == extreme)
    quality: Quality = {}
    if flat.any():
        quality["flat"] = [STANDARD_LEADS[i] for i in np.flatnonzero(flat)]
    if missing_share.any():
        quality["missing"] = {
            STANDARD_LEADS[i]: round(float(missing_share[i]), 4)
            for i in np.flatnonzero(missing_share)
        }
    if (clipped & ~flat).any():
        quality["clipped"] = [STANDARD_LEADS[i] for i in np.flatnonzero(clipped & ~flat)]
    return quality


def _has_run(mask: NDArray[np.bool_]) -> bool:
    if np.count_nonzero(mask) < CLIPPED_RUN:
        return False
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return bool(np.diff(edges)[::2].max() >= CLIPPED_RUN)
