"""Records that the compiled core does not read, by way of the ``wfdb`` package."""

from __future__ import annotations

import os
import stat
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from esi_fast.signal.record_error import encode_path, header_name, record_error
from esi_fast.signal.resample import _core

# The sample value that means "no sample" in the formats that the core does not know: FLAC's.
_MISSING_FLAC = {508: -(1 << 7), 516: -(1 << 15), 524: -(1 << 23)}
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
        missing = _MISSING_FLAC.get(spec.format, spec.missing)
        return cls(spec.description, spec.gain, spec.baseline, spec.unit, missing, spec.adc_zero)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as read.

    Attributes:
        header: its header.
        fs: sampling rate, Hz.
        digital: ``(num_signals, T)`` ADC units.
        signals: the calibration of each row.
        physical: ``(num_signals, T)`` in the signals' units, where segments have calibrations of
            their own. Else None: ``digital`` and ``signals`` determine it.
        status: ``"ok"``, or ``"read through wfdb: <reason>"``.
    """

    header: _core.Header
    fs: float
    digital: npt.NDArray[np.int16] | npt.NDArray[np.int32]
    signals: list[StoredSignal]
    physical: npt.NDArray[np.float64] | None = None
    status: str = "ok"


def read_through_wfdb(stem: str, reason: str, verify: bool, strict: bool) -> StoredRecord:
    """Read a record that the core called unsupported.

    Args:
        stem: the record's path without suffix.
        reason: what the core does not read, for messages.
        verify: check the samples against the headers' checksums and initial values.
        strict: refuse a header that strays from the published syntax.

    Raises:
        RecordError: ``(status, message)``; wfdb is not installed or cannot read the record either.
    """
    header = _core.read_header(encode_path(stem), strict=strict)
    try:
        check_sizes(stem, header)
    except OSError as error:
        raise record_error("io", f"{header_name(stem)}: {error.strerror}") from None
    read = _segments if header.num_segments != 1 else _one_segment
    return read(stem, header, reason, verify, strict)


def _one_segment(
    stem: str, header: _core.Header, reason: str, verify: bool, strict: bool
) -> StoredRecord:
    with tempfile.TemporaryDirectory() as folder:
        plain = stem if strict else _plain_copy(stem, header, folder)
        stored = _rdrecord(plain, stem, reason, smooth_frames=False, ignore_skew=True).e_d_signal
        if verify:
            _verify(header, stored)
        if any(spec.skew for spec in header.signals):
            stored = _rdrecord(plain, stem, reason, smooth_frames=False).e_d_signal
    signals = [StoredSignal.from_header(spec) for spec in header.signals]
    if all(spec.samples_per_frame == 1 for spec in header.signals):
        return StoredRecord(header, header.fs, np.stack(stored).astype(np.int32), signals)
    digital = np.stack(
        [
            _average_frames(samples.reshape(-1, spec.samples_per_frame), signal.missing)
            for samples, spec, signal in zip(stored, header.signals, signals, strict=True)
        ]
    )
    return StoredRecord(header, header.fs, digital, signals)


def _plain_copy(stem: str, header: _core.Header, folder: str) -> str:
    """A record with the same samples whose header holds nothing that wfdb refuses or misreads."""
    copy = Path(folder)
    lines = [f"r {header.num_signals} {header.fs:.17g} {header.num_samples or ''}"]
    names: dict[str, str] = {}
    for spec in header.signals:
        if spec.file not in names:
            names[spec.file] = f"d{len(names)}"
            target = os.path.abspath(os.path.join(os.path.dirname(stem), spec.file))  # noqa: PTH100, PTH118, PTH120
            (copy / names[spec.file]).symlink_to(target)
        kind = f"{spec.format}x{spec.samples_per_frame}:{spec.skew}+{spec.byte_offset}"
        first = spec.adc_zero if spec.initial_value is None else spec.initial_value
        lines.append(f"{names[spec.file]} {kind} 200 0 {spec.adc_zero} {first}")
    (copy / "r.hea").write_text("\n".join(lines) + "\n")
    return str(copy / "r")


def _average_frames(
    frames: npt.NDArray[np.integer[Any]], missing: int | None
) -> npt.NDArray[np.int32]:
    """The mean of each frame, rounded towards zero as wfdb does.

    A frame that lacks a sample is missing: wfdb would average the mark of a missing sample.
    """
    mean = frames.mean(axis=1, dtype=np.float64).astype(np.int32)
    return mean if missing is None else np.where((frames == missing).any(axis=1), missing, mean)


def _segments(
    stem: str, header: _core.Header, reason: str, verify: bool, strict: bool
) -> StoredRecord:
    record = _rdrecord(stem, stem, reason)
    parts = [os.path.join(os.path.dirname(stem), name) for name in header.segments if name != "~"]  # noqa: PTH118, PTH120
    headers = [_core.read_header(encode_path(part), strict=strict) for part in parts]
    has_layout = headers and any(spec.file == "~" for spec in headers[0].signals)
    specs: dict[str, list[_core.SignalSpec]] = {name: [] for name in record.sig_name}
    for part, segment in zip(parts, headers, strict=True):
        names = [spec.description for spec in segment.signals]
        if segment.fs != header.fs:
            message = f"segment {Path(part).name} is sampled at {segment.fs:g} Hz"
            raise record_error("format", f"{header_name(stem)}: {message}, not {header.fs:g}")
        if not has_layout and names != record.sig_name:
            message = f"segment {Path(part).name} has other leads, or in another order"
            raise record_error("format", f"{header_name(stem)}: {message}")
        if has_layout and segment is headers[0]:
            continue  # it holds no data
        if verify:
            read_stored(part, verify, strict)
        for spec in segment.signals:
            specs[spec.description].append(spec)
    signals, alike = [], True
    for name, ones in specs.items():
        units = sorted({spec.unit for spec in ones})
        if len(units) != 1:
            message = f"lead {name} has the units {', '.join(units) or 'of no segment'}"
            raise record_error("units", f"{header_name(stem)}: {message}")
        signals.append(StoredSignal.from_header(ones[0]))
        alike &= len({(spec.gain, spec.baseline, spec.format) for spec in ones}) == 1
    digital = np.ascontiguousarray(record.d_signal.T, dtype=np.int32)
    physical = None
    if not alike:
        physical = np.ascontiguousarray(_rdrecord(stem, stem, reason, physical=True).p_signal.T)
    return StoredRecord(header, header.fs, digital, signals, physical)


def read_stored(stem: str, verify: bool, strict: bool) -> StoredRecord:
    """Read a record by the core, or else through wfdb.

    Raises:
        RecordError: ``(status, message)``.
    """
    try:
        header, fs, digital = _core.read_record(encode_path(stem), verify=verify, strict=strict)
    except _core.RecordError as error:
        status, reason = error.args
        if status != "unsupported":
            raise
        stored = read_through_wfdb(stem, reason, verify, strict)
        return replace(stored, status=f"read through wfdb: {reason}")
    return StoredRecord(
        header, fs, digital, [StoredSignal.from_header(spec) for spec in header.signals]
    )


def _rdrecord(path: str, stem: str, reason: str, *, physical: bool = False, **options: bool) -> Any:
    name = header_name(stem)
    try:
        import wfdb
    except ModuleNotFoundError:
        fix = "needs the wfdb package: pip install 'esi-fast[data]'"
        raise record_error("unsupported", f"{name}: {reason} {fix}") from None
    try:
        return wfdb.rdrecord(path, physical=physical, **options)
    except FileNotFoundError as error:
        missing = Path(error.filename or stem).name
        raise record_error("missing", f"{missing}: no such file") from None
    except Exception as error:  # wfdb answers a malformed file with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        raise record_error("format", f"{name}: {reason}, and wfdb cannot read it: {text}") from None


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
        headers = [_core.read_header(encode_path(part), strict=False) for part in parts]
        held = sum(check_sizes(*part) for part in zip(parts, headers, strict=True))
        if header.num_samples > _MOST_GAP * held:
            message = f"states {header.num_samples} frames, its segments hold {held}"
            raise record_error("format", f"{header_name(stem)}: {message}")
        return header.num_samples
    samples_per_frame: Counter[tuple[str, int, int]] = Counter()
    for spec in header.signals:
        samples_per_frame[spec.file, spec.format, spec.byte_offset] += spec.samples_per_frame
    frames = header.num_samples
    for (file, code, offset), per_frame in samples_per_frame.items():
        if file == "~":
            continue  # a layout without data
        try:
            info = (folder / file).stat()
        except FileNotFoundError:
            raise record_error("missing", f"{file}: no such file") from None
        if not stat.S_ISREG(info.st_mode):
            raise record_error("io", f"{file}: not a regular file")
        size = info.st_size
        most = _core.samples_in(code, max(0, size - offset))
        if code in _MISSING_FLAC:
            if not header.num_samples:
                message = "the length of a FLAC record must be stated"
                raise record_error("format", f"{header_name(stem)}: {message}")
            most = size // _SMALLEST_FLAC_FRAME * _MOST_FLAC_SAMPLES
        assert most is not None, "the core refuses unknown formats"
        if header.num_samples * per_frame > most:
            message = f"{size} bytes cannot hold {header.num_samples} frames of {per_frame} samples"
            raise record_error("truncated", f"{file}: {message}")
        frames = frames or most // per_frame
    for spec in header.signals:
        if spec.skew > frames:
            message = f"a skew of {spec.skew} exceeds the {frames} frames of the record"
            raise record_error("format", f"{header_name(stem)}: {message}")
    return frames


def _verify(header: _core.Header, stored: list[npt.NDArray[np.integer[Any]]]) -> None:
    """Compare samples as stored, neither skewed nor averaged, with what the header says of them."""
    for spec, samples in zip(header.signals, stored, strict=True):
        if spec.checksum is not None:
            found = int(samples.sum(dtype=np.int64)) & 0xFFFF
            if found != spec.checksum & 0xFFFF:
                found -= 0x10000 if found > 0x7FFF and spec.checksum <= 0x7FFF else 0
                raise _mismatch(spec, "checksum", found, spec.checksum)
        # Of format 8 it says where the differences begin.
        first = spec.initial_value
        if spec.format != 8 and first is not None and samples.size and samples[0] != first:
            raise _mismatch(spec, "first sample", samples[0], first)


def _mismatch(spec: _core.SignalSpec, what: str, found: int, stated: int) -> _core.RecordError:
    message = f"{what} of lead {spec.description} is {found}, header says {stated}"
    return record_error("checksum", f"{spec.file}: {message}")
