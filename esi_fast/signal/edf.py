"""ECGs in EDF, EDF+ and BDF files, through the ``edfio`` package.

Format: Kemp et al. 1992, "A simple format for exchange of digitized polygraphic recordings";
the labels ``ECG I`` ... after the standard texts of EDF+ (Kemp & Olivan 2003).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esi_fast.leads import canonical_lead, millivolts_per_unit


def read_edf(path: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...], float]:
    """The ECG of a file: ``(leads, samples)`` mV, the labels and the rate in Hz.

    Signals whose labels are none of the twelve leads are left out, unless none is: then all are
    handed on, so that their names can be given.

    Raises:
        ModuleNotFoundError: ``edfio`` is not installed.
        ValueError: the file is damaged or interrupted, its leads differ in rate or have a unit
            that is no voltage.
    """
    try:
        import edfio
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} needs edfio, which is not installed: pip install 'esi-fast[io]'", name="edfio"
        ) from None
    read = edfio.read_bdf if path.suffix.lower() == ".bdf" else edfio.read_edf
    try:
        file = read(path)
        is_continuous = file.is_continuous
    except FileNotFoundError:
        raise
    except Exception as error:  # edfio answers a malformed file with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as {path.suffix[1:].upper()}: {text}") from None
    if not is_continuous:
        raise ValueError(f"{path} has interruptions (EDF+D): split it at them first")
    named = [(_lead_name(signal.label), signal) for signal in file.signals]
    chosen = [(name, signal) for name, signal in named if canonical_lead(name)] or named
    if not chosen:
        raise ValueError(f"{path} holds no signal")
    rates = sorted({signal.sampling_frequency for _, signal in chosen})
    if len(rates) > 1:
        raise ValueError(
            f"{path}: its leads have different rates, {rates[0]:g} to {rates[-1]:g} Hz"
        )
    rows = []
    for name, signal in chosen:
        try:
            per_unit = millivolts_per_unit(signal.physical_dimension)
        except ValueError as error:
            raise ValueError(f"{path}: lead {name}: {error}") from None
        rows.append(signal.data * per_unit)
    return np.stack(rows), tuple(name for name, _ in chosen), float(rates[0])


def _lead_name(label: str) -> str:
    """The label without ``EKG`` (``ECG`` is understood everywhere)."""
    return re.sub(r"(?i)^ekg[ _-]*", "", label.strip())
