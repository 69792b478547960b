"""How signals are given to a model: as they are, or as a published protocol has it.

"fixed" gives mV. "merl" (Liu et al. 2024, MERL) scales each record to 0..1 by its own least and
largest value, and of CPSC's records keeps 5 s and puts the rest to 0: to compare with published
numbers only, since voltage is a finding. Its files' labels were read by column although the columns
differ between them; that is not repeated here: labels are read by name.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PROTOCOLS = ("fixed", "merl")
_MERL_CPSC_SECONDS = 5.0


def as_protocol(
    dataset: str, protocol: str, signals: npt.NDArray[np.float32], fs: float
) -> npt.NDArray[np.float32]:
    """Signals (n, L, T) in mV at ``fs`` Hz as a protocol gives those of a dataset to a model."""
    if protocol == "fixed":
        return signals
    return merl_signals(signals, round(_MERL_CPSC_SECONDS * fs) if dataset == "cpsc" else None)


def merl_signals(
    signals: npt.NDArray[np.float32], num_kept: int | None = None
) -> npt.NDArray[np.float32]:
    """Records (n, L, T) scaled to 0..1 each; what was not recorded is 0 as there.

    Args:
        signals: mV, NaN where missing; a record without any range becomes 0.
        num_kept: samples before the rest of the record is put to 0.
    """
    signals = signals.copy()
    if num_kept is not None:
        signals[..., num_kept:] = np.nan
    missing = np.isnan(signals)
    low = np.where(missing, np.inf, signals).min(axis=(1, 2), keepdims=True)
    high = np.where(missing, -np.inf, signals).max(axis=(1, 2), keepdims=True)
    has_range = high > low
    span = np.where(has_range, high - low, 1.0)
    scaled = np.where(missing | ~has_range, 0.0, (signals - low) / span)
    return scaled.astype(np.float32)
