"""Records that the compiled core does not read, by way of the ``wfdb`` package."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from esi_fast.signal.resample import _core

# The sample value that means "no sample", by WFDB format; format 8 (differences) has none.
_MISSING_ADC = {
    "16": -(1 << 15), "61": -(1 << 15), "160": -(1 << 15), "516": -(1 << 15),
    "80": -(1 << 7), "508": -(1 << 7), "212": -(1 << 11), "310": -(1 << 9), "311": -(1 << 9),
    "24": -(1 << 23), "524": -(1 << 23), "32": -(1 << 31),
}  # fmt: skip

_FLAC = (508, 516, 524)
# A FLAC frame of constant samples: header 6, subframe 2 and footer 2 bytes at the least.
_SMALLEST_FLAC_FRAME = 10
_MOST_FLAC_SAMPLES = 65535 * 8  # block size times channels
_MOST_GAP = 1000  # frames a record of segments may span for one that it holds


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """What is needed to turn one signal's ADC units into millivolts."""

    name: str
    gain: float
    baseline: int
    unit: str
    missing: int | None
    adc_zero: int

    @classmethod
    def from_header(cls, spec: _core.SignalSpec) -> StoredSignal:
        """The calibration of a header's signal line."""
        missing = _MISSING_ADC.get(str(spec.format))
        return cls(spec.description, spec.gain, spec.baseline, spec.unit, missing, spec.adc_zero)


def header_name(stem: str) -> str:
    """The name of a record's header file, for messages."""
    return f"{Path(stem).name}.hea"


def read_through_wfdb(
    stem: str, reason: str, verify: bool, strict: bool
) -> tuple[_core.Header, npt.NDArray[np.int32], list[StoredSignal]]:
    """Read a record that the core called unsupported.

    Args:
        stem: the record's path without suffix.
        reason: what the core does not read, for messages.
        verify: check the samples against the header's checksums and initial values.
        strict: refuse a header that strays from the published syntax.

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
    header = _core.read_header(os.fsencode(stem), strict=strict)
    check_sizes(stem, header)
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
            _verify(header, digital)
    else:
        fields = zip(
            record.sig_name, record.adc_gain, record.baseline, record.units, record.fmt, strict=True
        )
        # Segments may differ in their ADC zero, and the joined record has none.
        signals = [
            StoredSignal(lead, gain, baseline, unit, _MISSING_ADC.get(fmt), adc_zero=0)
            for lead, gain, baseline, unit, fmt in fields
        ]
    return header, digital, signals


def check_sizes(stem: str, header: _core.Header) -> int:
    """Prove the number of frames a header states against the sizes of its files.

    wfdb allocates what a header announces, before it looks at the data.

    Returns:
        How many frames the header states; if it states none, what its files hold.

    Raises:
        RecordError: ``truncated``, or ``format`` for a record of segments that is nearly all gap.
    """
    folder = Path(stem).parent
    if header.num_segments != 1:
        parts = [str(folder / name) for name in header.segments if name != "~"]
        headers = [_core.read_header(os.fsencode(part), strict=False) for part in parts]
        held = sum(check_sizes(*part) for part in zip(parts, headers, strict=True))
        if header.num_samples > _MOST_GAP * held:
            message = f"states {header.num_samples} frames, its segments hold {held}"
            raise _core.RecordError("format", f"{header_name(stem)}: {message}")
        return header.num_samples
    samples_per_frame: Counter[tuple[str, int, int]] = Counter()
    for spec in header.signals:
        samples_per_frame[spec.file, spec.format, spec.byte_offset] += spec.samples_per_frame
    frames = header.num_samples
    for (file, code, offset), per_frame in samples_per_frame.items():
        path = folder / file
        bits = 8 if code == 8 else _MISSING_ADC.get(str(code), 0).bit_length()
        if not bits or file == "~" or not path.is_file():
            continue  # wfdb finds what is missing or unknown; "~" is a layout without data
        size = path.stat().st_size
        held = max(0, size - offset) * 8 // bits
        if code in _FLAC:
            held = size // _SMALLEST_FLAC_FRAME * _MOST_FLAC_SAMPLES
        if header.num_samples * per_frame > held:
            message = f"{size} bytes cannot hold {header.num_samples} frames of {per_frame} samples"
            raise _core.RecordError("truncated", f"{file}: {message}")
        frames = frames or held // per_frame
    return frames


def _verify(header: _core.Header, digital: npt.NDArray[np.int32]) -> None:
    for spec, samples in zip(header.signals, digital, strict=True):
        # Skewed and averaged samples are not the stored ones.
        if spec.skew or spec.samples_per_frame != 1:
            continue
        if spec.checksum is not None:
            found = int(samples.sum(dtype=np.int64)) & 0xFFFF
            if found != spec.checksum & 0xFFFF:
                found -= 0x10000 if found > 0x7FFF and spec.checksum <= 0x7FFF else 0
                _mismatch(spec, "checksum", found, spec.checksum)
        # Of format 8 it says where the differences begin.
        stated = spec.initial_value
        if spec.format != 8 and stated is not None and samples.size and samples[0] != stated:
            _mismatch(spec, "first sample", samples[0], stated)


def _mismatch(spec: _core.SignalSpec, what: str, found: int, stated: int) -> NoReturn:
    message = f"{what} of lead {spec.description} is {found}, header says {stated}"
    raise _core.RecordError("checksum", f"{spec.file}: {message}")
