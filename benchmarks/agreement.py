"""When two readers or resamplers count as having given the same result.

Every check takes ours and the rival's, raises ValueError that says how they differ, and returns
False where the two cannot be compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.resample_figures import PASSBAND

Array = npt.NDArray[np.floating]
# Of the highest line of the spectrum, up to 0.7 of the output's Nyquist frequency: both filters'
# ripple is smaller, and what one window lets through of the ends' errors is, too.
SPECTRUM_TOLERANCE = 1e-4


def same_header(found: Any, expected: Any) -> bool:
    """All that both know: a core Header and what ``wfdb.rdheader`` gives."""
    signals = found.signals
    ours = {
        "record_name": found.name,
        "n_sig": found.num_signals,
        "fs": found.fs,
        "sig_len": found.num_samples,
        "comments": list(found.comments),
        "file_name": [signal.file for signal in signals],
        "fmt": [str(signal.format) for signal in signals],
        "adc_gain": [signal.gain for signal in signals],
        "baseline": [signal.baseline for signal in signals],
        "units": [signal.unit for signal in signals],
        "adc_res": [signal.adc_resolution for signal in signals],
        "adc_zero": [signal.adc_zero for signal in signals],
        "init_value": [signal.initial_value for signal in signals],
        "checksum": [signal.checksum for signal in signals],
        "sig_name": [signal.description for signal in signals],
    }
    for name, value in ours.items():
        theirs = getattr(expected, name)
        if value != theirs:
            raise ValueError(f"{name} is {value} and {theirs}")
    return True


def within_one_ulp(found: Array, expected: Array) -> bool:
    """Equal float32 values up to the last bit, missing samples in the same places."""
    _same_shape(found, expected)
    rounded = expected.astype(np.float32)
    missing = np.isnan(rounded)
    if not np.array_equal(np.isnan(found), missing):
        raise ValueError("their missing samples differ")
    error = np.abs(found.astype(np.float64) - rounded)[~missing]
    allowed = np.spacing(np.abs(rounded[~missing])).astype(np.float64)
    if (error > allowed).any():
        raise ValueError(f"by up to {error.max():.3g} mV, more than one unit in the last place")
    return True


def within_a_millionth(found: Array, expected: Array) -> bool:
    """Equal within 1e-6 of full scale; not comparable where samples are missing."""
    _same_shape(found, expected)
    if not np.isfinite(expected).all():
        return False
    scale = float(np.abs(expected).max())
    error = np.abs(found - expected).max()
    if not error <= 1e-6 * scale:
        raise ValueError(f"by up to {error:.3g} at a full scale of {scale:.3g}")
    return True


def same_passband(found: Array, expected: Array) -> bool:
    """Equal spectra to 0.7 of Nyquist, apart from the ends; not where samples are missing.

    Resamplers part in what they do near the Nyquist frequency and beyond the ends of the signal;
    what lies between belongs to the signal.
    """
    _same_shape(found, expected)
    if not np.isfinite(expected).all():
        return False
    num_lines = int(PASSBAND * (found.shape[-1] // 2))
    ours, theirs = (_spectrum(x)[:, :num_lines] for x in (found, expected))
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    if not error <= SPECTRUM_TOLERANCE:
        raise ValueError(f"their spectra do, by {error:.3g} of the highest line")
    return True


def _spectrum(x: Array) -> npt.NDArray[np.complex128]:
    # The window is so small at the ends that their errors do not matter.
    return np.fft.rfft(x * np.blackman(x.shape[-1]) ** 2, axis=-1)


def _same_shape(found: Array, expected: Array) -> None:
    if found.shape != expected.shape:
        raise ValueError(f"shapes {found.shape} and {expected.shape}")
