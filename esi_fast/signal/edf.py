"""ECGs in EDF, EDF+ and BDF files, through the ``edfio`` package.

Format: Kemp et al. 1992, "A simple format for exchange of digitized polygraphic recordings";
the labels ``ECG I`` ... after the standard texts of EDF+ (Kemp & Olivan 2003).
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.leads import canonical_lead, millivolts_per_unit


def read_edf(path: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...], float]:
    """The ECG of a file: ``(leads, samples)`` mV, the labels and the rate in Hz.

    Signals whose labels are none of the twelve leads are left out, unless none is: then all are
    handed on, so that their names can be given.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: ``edfio`` is not installed.
        ValueError: the file is damaged, cut short or interrupted, its leads differ in rate or have
            a unit that is no voltage.
    """
    try:
        import edfio
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} needs edfio, which is not installed: pip install 'esi-fast[io]'", name="edfio"
        ) from None
    kind = path.suffix[1:].upper()
    try:
        with warnings.catch_warnings():
            # Of a length that is not the header's: that is refused below.
            warnings.simplefilter("ignore")
            file = (edfio.read_bdf if kind == "BDF" else edfio.read_edf)(path)
        return _recording(file, _stated_records(path))
    except FileNotFoundError:
        raise
    except Exception as error:  # edfio answers a malformed file with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as {kind}: {text}") from None


def _stated_records(path: Path) -> int:
    """How many data records the header says there are; -1 of a recording that was not closed."""
    with path.open("rb") as file:
        return int(file.read(244)[236:])  # eight bytes of text


def _recording(
    file: Any, stated_records: int
) -> tuple[npt.NDArray[np.float64], tuple[str, ...], float]:
    if not file.is_continuous:
        raise ValueError("it has interruptions (EDF+D): split it at them first")
    named = [(_lead_name(signal.label), signal) for signal in file.signals]
    chosen = [(name, signal) for name, signal in named if canonical_lead(name)] or named
    if not chosen:
        raise ValueError("it holds no signal")
    if stated_records not in (-1, file.num_data_records):
        a_record = chosen[0][1].samples_per_data_record
        raise ValueError(
            f"its header says {stated_records * a_record} samples a lead, it holds "
            f"{file.num_data_records * a_record}"
        )
    rates = sorted({float(signal.sampling_frequency) for _, signal in chosen})
    if len(rates) > 1:
        raise ValueError(f"its leads have different rates, {rates[0]:g} to {rates[-1]:g} Hz")
    rows = []
    for name, signal in chosen:
        try:
            per_unit = millivolts_per_unit(signal.physical_dimension)
        except ValueError as error:
            raise ValueError(f"lead {name}: {error}") from None
        rows.append(signal.data * per_unit)
    return np.stack(rows), tuple(name for name, _ in chosen), rates[0]


def _lead_name(label: str) -> str:
    """The label without ``EKG`` (``ECG`` is understood everywhere)."""
    return re.sub(r"(?i)^ekg[ _-]*", "", label.strip())
