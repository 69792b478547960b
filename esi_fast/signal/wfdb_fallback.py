"""Records that the compiled core does not read, by way of the ``wfdb`` package."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esi_fast.signal.resample import _core

# The sample value that means "no sample", by WFDB format; format 8 (differences) has none.
_MISSING_ADC = {
    "16": -(1 << 15), "61": -(1 << 15), "160": -(1 << 15), "516": -(1 << 15),
    "80": -(1 << 7), "508": -(1 << 7), "212": -(1 << 11), "310": -(1 << 9), "311": -(1 << 9),
    "24": -(1 << 23), "524": -(1 << 23), "32": -(1 << 31),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """What is needed to turn one signal's ADC units into millivolts."""

    name: str
    gain: float
    baseline: int
    unit: str
    missing: int | None

    @classmethod
    def from_header(cls, spec: _core.SignalSpec) -> StoredSignal:
        """The calibration of a header's signal line."""
        missing = _MISSING_ADC.get(str(spec.format))
        return cls(spec.description, spec.gain, spec.baseline, spec.unit, missing)


def header_name(stem: str) -> str:
    """The name of a record's header file, for messages."""
    return f"{Path(stem).name}.hea"


def read_through_wfdb(
    stem: str, reason: str, verify: bool
) -> tuple[_core.Header, npt.NDArray[np.int32], list[StoredSignal]]:
    """Read a record that the core called unsupported.

    Args:
        stem: the record's path without suffix.
        reason: what the core does not read, for messages.
        verify: check the samples against the header's checksums.

    Returns:
        The header, the samples as stored ``(num_signals, T)`` int32, and the calibration of each.

    Raises:
        RecordError: ``(status, message)``; wfdb is not installed or cannot read the record either.
    """
    name = header_name(stem)
    try:
        import wfdb
    except ModuleNotFoundError:
        fix = "needs the wfdb package: pip install 'esi-fast[data]'"
        raise _core.RecordError("unsupported", f"{name}: {reason} {fix}") from None
    header = _core.read_header(os.fsencode(stem))
    try:
        record = wfdb.rdrecord(stem, physical=False)
        digital = np.ascontiguousarray(record.d_signal.T, dtype=np.int32)
    except FileNotFoundError as error:
        missing = Path(error.filename or stem).name
        raise _core.RecordError("missing", f"{missing}: no such file") from None
    except Exception as error:  # wfdb answers a malformed file with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        message = f"{name}: {reason}, and wfdb cannot read it: {text}"
        raise _core.RecordError("format", message) from None
    if header.num_segments == 1:
        # wfdb misreads gains with exponents and units beyond ASCII: our own header counts.
        signals = [StoredSignal.from_header(spec) for spec in header.signals]
        if verify:
            _verify_checksums(stem, header, digital)
    else:
        fields = zip(
            record.sig_name, record.adc_gain, record.baseline, record.units, record.fmt, strict=True
        )
        signals = [
            StoredSignal(lead, gain, baseline, unit, _MISSING_ADC.get(fmt))
            for lead, gain, baseline, unit, fmt in fields
        ]
    return header, digital, signals


def _verify_checksums(stem: str, header: _core.Header, digital: npt.NDArray[np.int32]) -> None:
    for spec, samples in zip(header.signals, digital, strict=True):
        # Skewed and averaged samples are not the stored ones.
        if spec.checksum is None or spec.skew or spec.samples_per_frame != 1:
            continue
        found = int(samples.sum(dtype=np.int64)) & 0xFFFF
        if found != spec.checksum & 0xFFFF:
            found -= 0x10000 if found > 0x7FFF and spec.checksum <= 0x7FFF else 0
            message = f"checksum of lead {spec.description} is {found}, header says {spec.checksum}"
            raise _core.RecordError("checksum", f"{spec.file}: {message}")
