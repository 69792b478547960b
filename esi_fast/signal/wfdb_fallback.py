"""Records that the compiled core does not read, by way of the ``wfdb`` package."""

from __future__ import annotations

import stat
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esi_fast.signal.record_error import encode_path, header_name, record_error
from esi_fast.signal.resample import _core
from esi_fast.signal.segments import read_segments
from esi_fast.signal.stored import MISSING_FLAC, StoredRecord, StoredSignal

_BIG_ENDIAN = 61
# A FLAC frame of constant samples: header 6, subframe 2 and footer 2 bytes at the least.
_SMALLEST_FLAC_FRAME = 10
_MOST_FLAC_SAMPLES = 65535 * 8  # block size times channels


def read_stored(stem: str, verify: bool, strict: bool) -> StoredRecord:
    """Read a record by the core, or else through wfdb.

    Args:
        stem: the record's path without suffix.
        verify: check the samples against the headers' checksums and initial values.
        strict: refuse headers that stray from the published syntax.

    Raises:
        RecordError: ``(status, message)``.
    """
    try:
        header, fs, digital = _core.read_record(encode_path(stem), verify=verify, strict=strict)
    except _core.RecordError as error:
        status, reason = error.args
        if status != "unsupported":
            raise
        header = _core.read_header(encode_path(stem), strict=strict)
        if header.num_segments != 1:
            return read_segments(
                stem, header, strict, lambda part: read_stored(part, verify, strict)
            )
        stored = read_through_wfdb(stem, header, reason, verify, strict)
        return replace(stored, status=f"read through wfdb: {reason}")
    return StoredRecord.of_one(stem, header, fs, digital)


def read_through_wfdb(
    stem: str, header: _core.Header, reason: str, verify: bool, strict: bool
) -> StoredRecord:
    """Read a record of one segment that the core called unsupported.

    Args:
        stem: the record's path without suffix.
        header: its header.
        reason: what the core does not read, for messages.
        verify: check the samples against the header's checksums and initial values.
        strict: refuse what wfdb refuses.

    Raises:
        RecordError: ``(status, message)``; wfdb is not installed or cannot read the record either.
    """
    check_sizes(stem, header)
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain = stem if strict else _plain_copy(stem, header, Path(folder))
            stored = _rdrecord(plain, stem, reason)
    except OSError as error:
        message = f"a temporary folder for wfdb: {error.strerror or error}"
        raise record_error("io", f"{header_name(stem)}: {message}") from None
    if verify:
        _verify(header, stored)
    rows = [
        _average_frames(_unskewed(stem, samples, spec), spec)
        for samples, spec in zip(stored, header.signals, strict=True)
    ]
    return StoredRecord.of_one(stem, header, header.fs, np.stack(rows))


def _unskewed(
    stem: str, samples: npt.NDArray[np.int32], spec: _core.SignalSpec
) -> npt.NDArray[np.int32]:
    """The samples moved to where they belong in time; those beyond the end are missing."""
    if not spec.skew:
        return samples
    missing = StoredSignal.from_header(spec).missing
    if missing is None:
        message = f"format {spec.format} has no mark for the samples that the skew takes away"
        raise record_error("format", f"{header_name(stem)}: {message}")
    moved = np.full_like(samples, missing)
    count = spec.skew * spec.samples_per_frame
    moved[: samples.size - count] = samples[count:]
    return moved


def _plain_copy(stem: str, header: _core.Header, folder: Path) -> str:
    """A record with the same samples whose header holds nothing that wfdb refuses or misreads."""
    lines = [f"r {header.num_signals} {header.fs:.17g} {header.num_samples or ''}"]
    names: dict[str, str] = {}
    for spec in header.signals:
        # Not normalised: "link/.." is not where the link lies.
        source = Path(stem).parent.absolute() / spec.file
        code, offset = spec.format, spec.byte_offset
        if spec.file not in names:
            names[spec.file] = f"d{len(names)}"
            copy = folder / names[spec.file]
            if code == _BIG_ENDIAN:
                stored = source.read_bytes()[offset:]
                copy.write_bytes(
                    np.frombuffer(stored[: len(stored) & ~1], "u2").byteswap().tobytes()
                )
            else:
                copy.symlink_to(source)
        if code == _BIG_ENDIAN:  # wfdb fails to convert it where frames are to be kept
            code, offset = 16, 0
        kind = f"{code}x{spec.samples_per_frame}+{offset}"
        first = spec.adc_zero if spec.initial_value is None else spec.initial_value
        lines.append(f"{names[spec.file]} {kind} 200 0 {spec.adc_zero} {first}")
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    return str(folder / "r")


def _average_frames(
    samples: npt.NDArray[np.int32], spec: _core.SignalSpec
) -> npt.NDArray[np.int32]:
    """The mean of each frame, rounded towards zero as wfdb does.

    A frame that lacks a sample is missing: wfdb would average the mark of a missing sample.
    """
    if spec.samples_per_frame == 1:
        return samples
    frames = samples.reshape(-1, spec.samples_per_frame)
    mean: npt.NDArray[np.int32] = frames.mean(axis=1, dtype=np.float64).astype(np.int32)
    missing = StoredSignal.from_header(spec).missing
    if missing is not None:
        mean[(frames == missing).any(axis=1)] = missing
    return mean


def _rdrecord(path: str, stem: str, reason: str) -> list[npt.NDArray[np.int32]]:
    """The samples of each signal as stored: every one of a frame, none moved by its skew."""
    name = header_name(stem)
    try:
        import wfdb
    except ModuleNotFoundError:
        fix = "needs the wfdb package: pip install 'esi-fast[data]'"
        raise record_error("unsupported", f"{name}: {reason} {fix}") from None
    try:
        record = wfdb.rdrecord(path, physical=False, smooth_frames=False, ignore_skew=True)
        return [samples.astype(np.int32) for samples in record.e_d_signal]
    except Exception as error:  # wfdb answers a malformed file with whatever happens to break
        text = " ".join(str(error).split()) or type(error).__name__
        raise record_error("format", f"{name}: {reason}, and wfdb cannot read it: {text}") from None


def check_sizes(stem: str, header: _core.Header) -> None:
    """Prove the number of frames a header states against the sizes of its files.

    wfdb allocates what a header announces, before it looks at the data.

    Raises:
        RecordError: ``truncated``, ``missing``, ``io`` or ``format``.
    """
    folder = Path(stem).parent
    samples_per_frame: Counter[tuple[str, int, int]] = Counter()
    for spec in header.signals:
        samples_per_frame[spec.file, spec.format, spec.byte_offset] += spec.samples_per_frame
    frames = header.num_samples
    for (file, code, offset), per_frame in samples_per_frame.items():
        try:
            info = (folder / file).stat()
        except (FileNotFoundError, NotADirectoryError):
            raise record_error("missing", f"{file}: no such file") from None
        except OSError as error:
            raise record_error("io", f"{file}: {error.strerror}") from None
        if not stat.S_ISREG(info.st_mode):
            raise record_error("io", f"{file}: not a regular file")
        size = info.st_size
        most = _core.samples_in(code, max(0, size - offset))
        if code in MISSING_FLAC:
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


def _verify(header: _core.Header, stored: list[npt.NDArray[np.int32]]) -> None:
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
