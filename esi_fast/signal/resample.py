"""Changing the sampling rate by a rational ratio, with missing samples kept in their place."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

try:
    from esi_fast import _core as _core
except ImportError as error:
    raise ImportError("esi_fast._core is not built: pip install -e .") from error

Quality = Literal["hq", "scipy"]
NanPolicy = Literal["nan", "interpolate", "zero"]


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise ValueError(f"{name} must be {listed}, got {value!r}")


def resample(
    x: npt.ArrayLike,
    fs_in: float,
    fs_out: float,
    quality: Quality = "hq",
    nan_policy: NanPolicy = "nan",
) -> npt.NDArray[np.float32]:
    """Resample along the last axis with a linear-phase polyphase filter.

    Output ``j`` lies at the time ``j / fs_out``; there are ``ceil(T * fs_out / fs_in)`` of them.
    Arithmetic is float32. Equal rates return a copy.

    - ``"hq"``: flat within 0.001 dB to 0.7 of the lower of the two Nyquist frequencies, -50 dB at
      1.05 and -100 dB from 1.2 on (Kaiser window of beta 10.5 over 17 zero crossings to each side,
      cut-off at 0.895); signal to noise at least 105 dB. Every phase of the filter sums to one and
      the signal is continued by odd reflection (``2 x[0] - x[k]``), so that a constant stays that
      constant up to both ends.
    - ``"scipy"``: what ``scipy.signal.resample_poly`` does by default, zeros beyond the ends
      included: the first and last samples are then wrong by up to half of the signal's offset.

    Missing samples (anything not finite) are bridged by a straight line before the filter, so that
    none spreads; an output belongs to a gap if the input nearest to its own time (of two as
    near, the later one) was missing, or it is the output nearest to a missing input.

    Args:
        x: ``(..., T)``, real numbers in any unit.
        fs_in: rate of ``x``, Hz.
        fs_out: wanted rate, Hz; at most 256 times more or less than ``fs_in``.
        quality: ``"hq"`` or ``"scipy"``.
        nan_policy: the outputs of a gap are NaN again (``"nan"``), the filtered straight line
            (``"interpolate"``; a row without any sample stays NaN), or 0 (``"zero"``).

    Returns:
        ``(..., ceil(T * fs_out / fs_in))`` float32.

    Raises:
        ValueError: ``x`` is a scalar or complex, a rate is not a positive finite number, the rates
            have no ratio of whole numbers up to 65536, or quality or policy is unknown.

    Source: A. Oppenheim and R. Schafer, Discrete-Time Signal Processing, 3rd edition, sections 4.6
    (rational rates), 4.7 (polyphase) and 7.5.3 (Kaiser's window).
    """
    check_choice("quality", quality, get_args(Quality))
    check_choice("nan_policy", nan_policy, get_args(NanPolicy))
    signal = np.asarray(x)
    if signal.ndim == 0:
        raise ValueError("x is a scalar: resample needs an array of shape (..., T)")
    if signal.dtype.kind not in "biuf":
        raise ValueError(f"x has dtype {signal.dtype}: resample needs real numbers")
    rows = signal.reshape(-1, signal.shape[-1]) if signal.size else signal.reshape(0, 0)
    length = _core.output_length(signal.shape[-1], fs_in, fs_out)
    if not signal.size:
        blank = 0.0 if nan_policy == "zero" else np.nan
        return np.full((*signal.shape[:-1], length), blank, dtype=np.float32)
    # Values beyond float32 become infinite there, which already means "missing".
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(rows, dtype=np.float32)
    resampled = _core.resample(rows, fs_in, fs_out, quality, nan_policy)
    return resampled.reshape(*signal.shape[:-1], length)
