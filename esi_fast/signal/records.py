"""WFDB records as twelve leads in millivolts, one at a time or many at once.

The compiled core reads what most ECG archives consist of: one segment, format 16, one sample a
frame. Anything else goes through the ``wfdb`` package, and the record's status says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from esi_fast.leads import (
    NUM_LEADS,
    STANDARD_LEADS,
    canonical_lead,
    lead_indices,
    millivolts_per_unit,
)
from esi_fast.signal.resample import Quality, _core, resample
from esi_fast.signal.wfdb_fallback import StoredSignal, header_name, read_through_wfdb

MISSING_INT16 = -32768
_MAX_MICROVOLT = 32767

RecordPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ECGRecord:
    """One recording.

    Attributes:
        signal: ``(L, T)`` float32, millivolt, NaN where a sample is missing; row ``i`` is
            ``leads[i]``.
        digital: ``(num_signals, T)`` int32, ADC units of every signal in the order of the file,
            with the format's own value for missing samples.
        fs: sampling rate, Hz.
        leads: names of the rows of ``signal`` (the standard twelve unless others were asked for).
        source_leads: names of the rows of ``digital``, spelled as in the header.
        status: ``"ok"``, or ``"read through wfdb: <reason>"``.
        comments: the header's comment lines, without ``#``.
        path: the record's path without suffix.
    """

    signal: npt.NDArray[np.float32]
    digital: npt.NDArray[np.int32]
    fs: float
    leads: tuple[str, ...]
    source_leads: tuple[str, ...]
    status: str
    comments: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Many recordings at one rate and of one length.

    Attributes:
        signal: ``(n, 12, T)``, leads in the standard order; float32 millivolt with NaN where
            missing, or int16 microvolt with -32768 where missing.
        status: per record ``"ok"``, ``"read through wfdb: <reason>"``, or why it could not be
            read: missing, truncated, checksum, format, leads, units, unsupported, io, or rate (its
            sampling rate differs from the batch's and no ``fs`` was asked for).
        errors: per record one line that says what is wrong; ``""`` for a record that was read.
        fs: sampling rate, Hz; NaN if none was asked for and no record could be read.
        clipped: ``(n,)`` bool, the record holds voltages beyond the int16 range.
        source_leads: per record the lead names as the header spells them; empty where that is not
            known.
    """

    signal: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    status: tuple[str, ...]
    errors: tuple[str, ...]
    fs: float
    clipped: npt.NDArray[np.bool_]
    source_leads: tuple[tuple[str, ...], ...]


def read_record(
    path: RecordPath, *, leads: Sequence[str] = STANDARD_LEADS, verify: bool = True
) -> ECGRecord:
    """Read one WFDB record at its own rate.

    Leads are matched by name, whatever their order, case and usual aliases; voltages in V, mV, uV
    or nV become millivolts.

    Args:
        path: the record, with or without ``.hea``.
        leads: which of the twelve standard leads to return, in this order.
        verify: check the samples against the header's checksums.

    Raises:
        FileNotFoundError: the header or a data file it names does not exist.
        ValueError: anything else is wrong with the record (the message names it): truncated data,
            a wrong checksum, a header that cannot be understood, an absent lead, a unit that is
            not a voltage, a format that neither the core nor ``wfdb`` reads.
        OSError: the operating system failed to read a file.

    Source: https://physionet.org/physiotools/wag/header-5.htm and signal-5.htm.
    """
    stem = _stem(path)
    try:
        return _read(stem, tuple(leads), verify)
    except _core.RecordError as error:
        status, message = error.args
        kind = {"missing": FileNotFoundError, "io": OSError}.get(status, ValueError)
        raise kind(os.path.join(os.path.dirname(stem), message)) from None  # noqa: PTH118, PTH120


def read_records(
    paths: Sequence[RecordPath],
    fs: float | None = None,
    duration: float | None = None,
    dtype: Literal["float32", "int16"] = "float32",
    threads: int = 0,
    *,
    quality: Quality = "hq",
    verify: bool = True,
) -> RecordBatch:
    """Read many WFDB records on threads into one array; a bad file harms no other.

    Each record is read, brought to the standard twelve leads in millivolts, resampled as a whole
    (see :func:`~esi_fast.signal.resample.resample`) and then cropped, or padded with missing
    samples at its end. The result does not depend on ``threads``.

    Args:
        paths: records, with or without ``.hea``.
        fs: wanted rate, Hz. Default: that of the first record whose files are sound; records at
            other rates get the status ``"rate"``.
        duration: wanted length, s. Default: that of the longest record.
        dtype: ``"float32"`` (mV, NaN = missing) or ``"int16"`` (1 uV a step, -32768 = missing,
            saturated at +-32767 and then flagged as ``clipped``).
        threads: 0 takes as many as there are usable CPUs.
        quality: resampling filter, ``"hq"`` or ``"scipy"``.
        verify: check the samples against the headers' checksums.

    Raises:
        ValueError: ``fs``, ``duration``, ``dtype``, ``threads`` or ``quality`` makes no sense.
    """
    _check_arguments(fs, duration, dtype, threads, quality)
    num_threads = threads or len(os.sched_getaffinity(0))
    batch = _Batch([_stem(path) for path in paths], verify)
    num_samples = 0
    if fs is None or duration is None:
        sizes = batch.probe(num_threads)
        if fs is None:
            fs = next(iter(sizes.values()))[1] if sizes else float("nan")
            for index, (_, own_fs) in list(sizes.items()):
                if own_fs != fs:
                    del sizes[index]
                    batch.fail(index, "rate", f"sampled at {own_fs:g} Hz, not {fs:g}: pass fs=")
        for index, (length, own_fs) in sizes.items():
            try:
                num_samples = max(num_samples, _core.output_length(length, own_fs, fs))
            except ValueError as error:
                batch.fail(index, "format", str(error))
    if duration is not None and fs == fs:
        num_samples = _num_samples(duration, fs)

    missing = np.nan if dtype == "float32" else MISSING_INT16
    out = np.full((len(batch.stems), NUM_LEADS, num_samples), missing, dtype=dtype)
    batch.read(out, fs, quality, num_threads)
    return RecordBatch(
        signal=out,
        status=tuple(batch.status),
        errors=tuple(batch.errors),
        fs=float(fs),
        clipped=batch.clipped,
        source_leads=tuple(batch.source_leads),
    )


def _stem(path: RecordPath) -> str:
    return os.fspath(path).removesuffix(".hea")


def _check_arguments(
    fs: float | None, duration: float | None, dtype: str, threads: int, quality: str
) -> None:
    for name, value, unit in (("fs", fs, "Hz"), ("duration", duration, "s")):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a positive number of {unit}, got {value}")
    if dtype not in ("float32", "int16"):
        raise ValueError(f"dtype must be 'float32' or 'int16', got {dtype!r}")
    if threads < 0:
        raise ValueError(f"threads must be 0 (all CPUs) or more, got {threads}")
    if quality not in ("hq", "scipy"):
        raise ValueError(f"quality must be 'hq' or 'scipy', got {quality!r}")


def _num_samples(duration: float, fs: float) -> int:
    num_samples = round(duration * fs)
    if num_samples < 1:
        raise ValueError(f"duration {duration} s is less than one sample at {fs} Hz")
    return num_samples


class _Batch:
    """What is known of each record of a batch while it is being read."""

    def __init__(self, stems: list[str], verify: bool) -> None:
        n = len(stems)
        self.stems = stems
        self.verify = verify
        self.status = ["ok"] * n
        self.errors = [""] * n
        self.source_leads: list[tuple[str, ...]] = [()] * n
        self.clipped = np.zeros(n, dtype=np.bool_)
        self.through_wfdb: dict[int, ECGRecord] = {}

    def fail(self, index: int, status: str, error: str) -> None:
        self.status[index], self.errors[index] = status, error
        self.through_wfdb.pop(index, None)

    def native(self) -> list[int]:
        """The records that the core is to read."""
        return [index for index, status in enumerate(self.status) if status == "ok"]

    def fall_back(self, index: int) -> None:
        try:
            record = _read(self.stems[index], STANDARD_LEADS, self.verify)
        except _core.RecordError as error:
            self.fail(index, *error.args)
        else:
            self.status[index], self.errors[index] = record.status, ""
            self.source_leads[index] = record.source_leads
            self.through_wfdb[index] = record

    def probe(self, num_threads: int) -> dict[int, tuple[int, float]]:
        """Number of samples and rate of every record that can be read."""
        sizes: dict[int, tuple[int, float]] = {}
        encoded = [os.fsencode(stem) for stem in self.stems]
        for index, result in enumerate(_core.probe_records(encoded, num_threads)):
            if result.status == "ok":
                sizes[index] = result.num_samples, result.fs
                continue
            self.fail(index, result.status, result.error)
            if result.status == "unsupported":
                self.fall_back(index)
                if record := self.through_wfdb.get(index):
                    sizes[index] = record.signal.shape[1], record.fs
        return sizes

    def read(
        self, out: npt.NDArray[np.generic], fs: float, quality: Quality, num_threads: int
    ) -> None:
        """Fill the rows of ``out``."""
        # The core knows no lead names and no units. It returns a record unread whose names are
        # not in these tables; they are looked up once, and the record is read in the next turn.
        lead_of = {lead: index for index, lead in enumerate(STANDARD_LEADS)}
        millivolts = {"mV": millivolts_per_unit("mV")}
        pending = self.native()
        while pending:
            results = _core.read_batch(
                [os.fsencode(self.stems[index]) for index in pending], pending, out,
                fs=fs, quality=quality, verify=self.verify, threads=num_threads,
                lead_of=lead_of, millivolts=millivolts,
            )  # fmt: skip
            unresolved = []
            for index, result in zip(pending, results, strict=True):
                if result.status == "unresolved":
                    unresolved.append(index)
                    for entry in result.unresolved:
                        _resolve(entry, lead_of, millivolts)
                else:
                    self._take(index, result)
            pending = unresolved
        for index, record in self.through_wfdb.items():
            self.clipped[index] = _place(record, fs, quality, out[index])

    def _take(self, index: int, result: _core.RecordResult) -> None:
        self.status[index], self.errors[index] = result.status, result.error
        self.clipped[index] = result.clipped
        if result.source_leads:
            self.source_leads[index] = tuple(result.source_leads.split("\n"))
        if result.status == "unsupported":
            self.fall_back(index)
        elif result.status == "leads":
            try:
                lead_indices(self.source_leads[index])
            except ValueError as error:
                self.errors[index] = f"{header_name(self.stems[index])}: {error}"


def _resolve(entry: str, lead_of: dict[str, int], millivolts: dict[str, float]) -> None:
    kind, _, name = entry.partition(" ")
    if kind == "lead":
        lead = canonical_lead(name)
        lead_of[name] = -1 if lead is None else STANDARD_LEADS.index(lead)
        return
    try:
        millivolts[name] = millivolts_per_unit(name)
    except ValueError:
        millivolts[name] = float("nan")


def _place(record: ECGRecord, fs: float, quality: Quality, row: npt.NDArray[np.generic]) -> bool:
    """Write a record read through wfdb into its row of a batch; True if it was clipped."""
    signal = resample(record.signal, record.fs, fs, quality)[:, : row.shape[1]]
    clipped = False
    if row.dtype == np.int16:
        microvolt = signal * np.float32(1000)
        clipped = bool((np.abs(microvolt) > _MAX_MICROVOLT + 0.5).any())
        missing = np.isnan(microvolt)
        microvolt = np.rint(microvolt.clip(-_MAX_MICROVOLT, _MAX_MICROVOLT))
        signal = np.where(missing, MISSING_INT16, microvolt)
    row[:, : signal.shape[1]] = signal
    return clipped


def _read(stem: str, leads: tuple[str, ...], verify: bool) -> ECGRecord:
    """As read_record, raising RecordError(status, message)."""
    status = "ok"
    try:
        header, digital = _core.read_record(os.fsencode(stem), verify)
        signals = [StoredSignal.from_header(spec) for spec in header.signals]
    except _core.RecordError as error:
        code, reason = error.args
        if code != "unsupported":
            raise
        header, digital, signals = read_through_wfdb(stem, reason, verify)
        status = f"read through wfdb: {reason}"
    source_leads = tuple(signal.name for signal in signals)
    try:
        indices = lead_indices(source_leads, leads)
    except ValueError as error:
        raise _core.RecordError("leads", f"{header_name(stem)}: {error}") from None
    rows = np.empty((len(leads), digital.shape[1]), dtype=np.float32)
    for row, index in zip(rows, indices, strict=True):
        row[:] = _to_millivolts(stem, digital[index], signals[index])
    return ECGRecord(
        rows, digital, header.fs, leads, source_leads, status, tuple(header.comments), stem
    )


def _to_millivolts(
    stem: str, digital: npt.NDArray[np.int32], signal: StoredSignal
) -> npt.NDArray[np.float64]:
    try:
        step = millivolts_per_unit(signal.unit) / signal.gain
    except ValueError as error:
        message = f"{header_name(stem)}: lead {signal.name}: {error}"
        raise _core.RecordError("units", message) from None
    if not (abs(step) < 1e9 and abs(signal.baseline) <= 1 << 30):
        message = f"has the absurd gain {signal.gain} or baseline {signal.baseline}"
        raise _core.RecordError("format", f"{header_name(stem)}: lead {signal.name} {message}")
    millivolts = (digital.astype(np.float64) - signal.baseline) * step
    if signal.missing is not None:
        millivolts[digital == signal.missing] = np.nan
    return millivolts
