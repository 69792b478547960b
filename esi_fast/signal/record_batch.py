"""Many WFDB records at once, in threads: one array, one rate, one length."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from esi_fast.leads import (
    NUM_LEADS,
    STANDARD_LEADS,
    canonical_lead,
    lead_indices,
    millivolts_per_unit,
)
from esi_fast.signal.record_error import encode_path, header_name, record_error
from esi_fast.signal.records import ECGRecord, RecordPath, load_record, record_stem
from esi_fast.signal.resample import NanPolicy, Quality, _core, check_choice, resample

MISSING_INT16 = -32768
_MAX_MICROVOLT = 32767
_PART = 1024  # records a call of the core
# Rates that a header may choose for a whole batch, Hz.
LOWEST_RATE, HIGHEST_RATE = 10.0, 100_000.0
# A header that states an absurdly low rate must not make the whole batch long.
_MOST_STRETCH = 32


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Many recordings at one rate and of one length.

    Attributes:
        signal: ``(n, 12, T)``, leads in the standard order; float32 millivolt with NaN where
            missing, or int16 microvolt with -32768 where missing.
        status: per record ``"ok"``, ``"joined: several segments"``,
            ``"read through wfdb: <reason>"``, ``"lacks leads: V1, V2"``, or why it could not be
            read: missing, truncated, checksum (or first sample), format, leads, units, non-finite
            (a gain that gives no finite voltages), unsupported, io, or rate (its sampling rate
            differs from the batch's and no ``fs`` was asked for).
        errors: per record one line that says what is wrong; ``""`` for a record that was read.
        fs: sampling rate, Hz; NaN if none was asked for and no record could be read.
        clipped: ``(n,)`` bool, the record holds voltages beyond the int16 range.
        source_leads: per record the lead names as the header spells them; empty where that is not
            known.
        source_fs: ``(n,)`` float64, the record's own rate, Hz; NaN where it was not read.
        source_duration: ``(n,)`` float64, the record's own length, s; NaN where it was not read.
    """

    signal: npt.NDArray[np.float32] | npt.NDArray[np.int16]
    status: tuple[str, ...]
    errors: tuple[str, ...]
    fs: float
    clipped: npt.NDArray[np.bool_]
    source_leads: tuple[tuple[str, ...], ...]
    source_fs: npt.NDArray[np.float64]
    source_duration: npt.NDArray[np.float64]


def read_records(
    paths: Sequence[RecordPath],
    fs: float | None = None,
    duration: float | None = None,
    dtype: Literal["float32", "int16"] = "float32",
    threads: int = 0,
    *,
    quality: Quality = "hq",
    nan_policy: NanPolicy = "nan",
    required_leads: Sequence[str] = STANDARD_LEADS,
    adc_units_per_mv: float | None = None,
    verify: bool = True,
    strict: bool = False,
) -> RecordBatch:
    """Read many WFDB records on threads into one array; a bad file harms no other.

    Each record is read, brought to the standard twelve leads in millivolts, resampled as a whole
    (see :func:`~esi_fast.signal.resample.resample`) and then cropped, or padded with missing
    samples at its end. The result does not depend on ``threads``. Where files come from a disk and
    not from the page cache, 16 to 32 reads are kept in flight; beyond the result, memory is a few
    records a thread. What the core hands on to ``wfdb``, and records that lack leads, are read one
    after another; without ``fs`` and ``duration`` they are held until all headers are read.

    Args:
        paths: records, with or without ``.hea``.
        fs: wanted rate, Hz. Default: the most frequent one among the records whose headers and
            file sizes are sound; records at other rates get the status ``"rate"``.
        duration: wanted length, s. Default: that of the longest of those records.
        dtype: ``"float32"`` (mV, NaN = missing) or ``"int16"`` (1 uV a step, -32768 = missing,
            saturated at +-32767 and then flagged as ``clipped``).
        threads: 0 takes as many as there are usable CPUs.
        quality: resampling filter, ``"hq"`` or ``"scipy"``.
        nan_policy: what missing samples become, as in ``resample``; ``"zero"`` also pads with 0.
        required_leads: a record without one of these is refused; of the others, one that is absent
            is all missing.
        adc_units_per_mv: the gain of every lead, in place of the headers' gains, units and
            baselines (the zero is then the header's ADC zero): for archives whose headers hold
            no calibration, such as LUDB.
        verify: check the samples against the headers' checksums and initial values.
        strict: as in ``read_record``.

    Raises:
        ValueError: an argument makes no sense; the message names it.
    """
    _check_arguments(fs, duration, adc_units_per_mv, threads)
    check_choice("dtype", dtype, ("float32", "int16"))
    check_choice("quality", quality, get_args(Quality))
    check_choice("nan_policy", nan_policy, get_args(NanPolicy))
    num_threads = threads or len(os.sched_getaffinity(0))
    required = tuple(canonical_lead(lead) or lead for lead in required_leads)
    options = _Options(quality, nan_policy, required, adc_units_per_mv, verify, strict)
    if isinstance(paths, (str, bytes)):
        raise ValueError(f"paths is the text {paths!r}: give a sequence of paths")
    batch = _Batch([record_stem(path) for path in paths], options)
    num_samples = 0
    if fs is None or duration is None:
        sizes = batch.probe(num_threads)
        if fs is None:
            fs = batch.common_rate(sizes)
        for index, (length, own_fs) in sizes.items():
            num_samples = max(num_samples, batch.length_at(index, length, own_fs, fs))
    if duration is not None and not math.isnan(fs):
        num_samples = _num_samples(duration, fs)

    # Not filled: the core writes every sample of the rows it is given.
    out = np.empty((len(batch.stems), NUM_LEADS, num_samples), dtype=dtype)
    batch.read(out, fs, num_threads)
    return RecordBatch(
        signal=out,
        status=tuple(batch.status),
        errors=tuple(batch.errors),
        fs=float(fs),
        clipped=batch.clipped,
        source_leads=tuple(batch.source_leads),
        source_fs=batch.source_fs,
        source_duration=batch.source_duration,
    )


def _check_arguments(
    fs: float | None, duration: float | None, adc_units_per_mv: float | None, threads: int
) -> None:
    positive = (
        ("fs", fs, "a positive number of Hz"),
        ("duration", duration, "a positive number of s"),
        ("adc_units_per_mv", adc_units_per_mv, "a positive number"),
    )
    for name, value, what in positive:
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be {what}, got {value}")
    if threads < 0:
        raise ValueError(f"threads must be 0 (all CPUs) or more, got {threads}")


def _num_samples(duration: float, fs: float) -> int:
    num_samples = round(duration * fs)
    if num_samples < 1:
        raise ValueError(f"duration {duration} s is less than one sample at {fs} Hz")
    return num_samples


@dataclass(frozen=True, slots=True)
class _Options:
    quality: Quality
    nan_policy: NanPolicy
    required_leads: tuple[str, ...]
    adc_units_per_mv: float | None
    verify: bool
    strict: bool


class _Batch:
    """What is known of each record of a batch while it is being read."""

    def __init__(self, stems: list[str], options: _Options) -> None:
        n = len(stems)
        self.stems = stems
        self.options = options
        self.status = ["ok"] * n
        self.errors = [""] * n
        self.source_leads: list[tuple[str, ...]] = [()] * n
        self.clipped = np.zeros(n, dtype=np.bool_)
        self.source_fs = np.full(n, np.nan)
        self.source_duration = np.full(n, np.nan)
        self.through_wfdb: dict[int, ECGRecord] = {}
        self.lead_of = {lead: index for index, lead in enumerate(STANDARD_LEADS)}
        self.millivolts = {"mV": millivolts_per_unit("mV")}

    def fail(self, index: int, status: str, error: str) -> None:
        """Give up a record for what its header says."""
        status, line = record_error(status, f"{header_name(self.stems[index])}: {error}").args
        self.status[index], self.errors[index] = status, line
        self.through_wfdb.pop(index, None)

    def native(self) -> list[int]:
        """The records that the core is to read."""
        return [index for index, status in enumerate(self.status) if status == "ok"]

    def fall_back(self, index: int, leads: tuple[str, ...] = STANDARD_LEADS) -> None:
        """Read a record that the core does not, or of which some leads only are there."""
        try:
            record = load_record(
                self.stems[index], leads, self.options.verify, self.options.strict,
                self.options.adc_units_per_mv,
            )  # fmt: skip
        except _core.RecordError as error:
            status, message = error.args
            present = self._present_leads(self.source_leads[index])
            if status == "leads" and leads == STANDARD_LEADS and present:
                self.fall_back(index, present)
            else:
                self.status[index], self.errors[index] = status, message
            return
        self.status[index], self.errors[index] = record.status, ""
        self.source_leads[index] = record.source_leads
        self.source_fs[index] = record.fs
        self.source_duration[index] = record.signal.shape[1] / record.fs
        if leads != STANDARD_LEADS:
            signal = np.full((NUM_LEADS, record.signal.shape[1]), np.nan, np.float32)
            signal[lead_indices(STANDARD_LEADS, leads)] = record.signal
            record = replace(record, signal=signal, leads=STANDARD_LEADS)
            absent = [lead for lead in STANDARD_LEADS if lead not in leads]
            self.status[index] = f"lacks leads: {', '.join(absent)}"
        self.through_wfdb[index] = record

    def _present_leads(self, source_leads: tuple[str, ...]) -> tuple[str, ...]:
        """The standard leads of a record that has all required ones; none of any other record."""
        named = [canonical_lead(name) for name in source_leads]
        present = tuple(lead for lead in STANDARD_LEADS if lead in named)
        is_sound = all(named.count(lead) == 1 for lead in present)
        return present if is_sound and set(self.options.required_leads) <= set(present) else ()

    def _resolved(
        self, indices: list[int], call: Callable[[list[int]], list[_core.RecordResult]]
    ) -> Iterator[tuple[int, _core.RecordResult]]:
        """What the core makes of each record, once it knows all names in its header.

        The core knows no lead names and no units. It returns a record unread whose names are not
        in its tables; they are looked up once, and the record gets another turn.
        """
        # In parts: Python notices Ctrl-C between them.
        parts = [indices[i : i + _PART] for i in range(0, len(indices), _PART)]
        for part in parts:
            unresolved = []
            for index, result in zip(part, call(part), strict=True):
                if result.status != "unresolved":
                    yield index, result
                    continue
                unresolved.append(index)
                for entry in result.unresolved:
                    _resolve(entry, self.lead_of, self.millivolts)
            if unresolved:
                parts.append(unresolved)

    def _stems(self, indices: list[int]) -> list[bytes]:
        return [encode_path(self.stems[index]) for index in indices]

    def probe(self, num_threads: int) -> dict[int, tuple[int, float]]:
        """Number of samples and rate of every record whose header and files are sound."""

        def call(indices: list[int]) -> list[_core.RecordResult]:
            return _core.probe_records(
                self._stems(indices), adc_units_per_mv=self.options.adc_units_per_mv or 0.0,
                strict=self.options.strict, threads=num_threads, lead_of=self.lead_of,
                millivolts=self.millivolts,
            )  # fmt: skip

        sizes: dict[int, tuple[int, float]] = {}
        for index, result in self._resolved(self.native(), call):
            self._take(index, result)
            if result.status == "ok":
                sizes[index] = result.num_samples, result.fs
            elif record := self.through_wfdb.get(index):
                sizes[index] = record.signal.shape[1], record.fs
        return dict(sorted(sizes.items()))

    def common_rate(self, sizes: dict[int, tuple[int, float]]) -> float:
        """The most frequent rate; NaN if there is none. Records at others fail and are dropped."""
        for index, (_, own_fs) in list(sizes.items()):
            if not LOWEST_RATE <= own_fs <= HIGHEST_RATE:
                del sizes[index]
                self.fail(index, "rate", f"{own_fs:g} Hz is no rate of an ECG: pass fs=")
        if not sizes:
            return float("nan")
        ((fs, _),) = Counter(own_fs for _, own_fs in sizes.values()).most_common(1)
        for index, (_, own_fs) in list(sizes.items()):
            if own_fs != fs:
                del sizes[index]
                self.fail(index, "rate", f"sampled at {own_fs:g} Hz, not {fs:g}: pass fs=")
        return fs

    def length_at(self, index: int, num_samples: int, own_fs: float, fs: float) -> int:
        """The record's number of samples at another rate; 0, and it fails, where that is absurd."""
        try:
            length = _core.output_length(num_samples, own_fs, fs)
        except ValueError as error:
            self.fail(index, "format", str(error))
            return 0
        if length > _MOST_STRETCH * num_samples:
            self.fail(index, "format", f"{own_fs:g} Hz is too far from {fs:g} Hz: pass duration=")
            return 0
        return length

    def read(self, out: npt.NDArray[np.generic], fs: float, num_threads: int) -> None:
        """Fill the rows of ``out``."""
        options = self.options

        def call(indices: list[int]) -> list[_core.RecordResult]:
            return _core.read_batch(
                self._stems(indices), indices, out,
                fs=fs, quality=options.quality, nan_policy=options.nan_policy,
                adc_units_per_mv=options.adc_units_per_mv or 0.0, verify=options.verify,
                strict=options.strict, threads=num_threads, lead_of=self.lead_of,
                millivolts=self.millivolts,
            )  # fmt: skip

        blank = 0 if options.nan_policy == "zero" else _missing(out.dtype)
        out[[status != "ok" for status in self.status]] = blank
        for index in list(self.through_wfdb):  # read while probing
            self._place(index, out[index], fs)
        for index, result in self._resolved(self.native(), call):
            self._take(index, result)
            if index in self.through_wfdb:
                self._place(index, out[index], fs)

    def _place(self, index: int, row: npt.NDArray[np.generic], fs: float) -> None:
        """Write a record read through wfdb into its row, and let go of it."""
        try:
            record = self.through_wfdb.pop(index)
            self.clipped[index] = _write(record, fs, self.options, row)
        except ValueError as error:  # a rate that cannot be had
            self.fail(index, "format", str(error))

    def _take(self, index: int, result: _core.RecordResult) -> None:
        status = result.status
        self.status[index], self.errors[index] = status, result.error
        self.clipped[index] = result.clipped
        self.source_leads[index] = _lead_names(result.source_leads)
        if result.num_samples and result.fs:
            self.source_fs[index] = result.fs
            self.source_duration[index] = result.num_samples / result.fs
        if status == "unsupported":
            self.fall_back(index)
        elif status == "leads":
            if present := self._present_leads(self.source_leads[index]):
                self.fall_back(index, present)
                return
            try:
                required = self.options.required_leads or STANDARD_LEADS
                lead_indices(self.source_leads[index], required)
            except ValueError as error:
                self.fail(index, "leads", str(error))


@lru_cache(maxsize=256)  # an archive spells and orders its leads in a few ways
def _lead_names(lines: str) -> tuple[str, ...]:
    return tuple(lines.split("\n")) if lines else ()


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


def _missing(dtype: np.dtype[np.generic]) -> float:
    return MISSING_INT16 if dtype == np.int16 else float("nan")


def _write(record: ECGRecord, fs: float, options: _Options, row: npt.NDArray[np.generic]) -> bool:
    """Write a record read through wfdb into its row of a batch; True if it was clipped."""
    signal = resample(record.signal, record.fs, fs, options.quality, options.nan_policy)
    signal = signal[:, : row.shape[1]]
    clipped = False
    if row.dtype == np.int16:
        microvolt = signal * np.float32(1000)
        clipped = bool((np.abs(microvolt) > _MAX_MICROVOLT + 0.5).any())
        missing = np.isnan(microvolt)
        microvolt = np.rint(microvolt.clip(-_MAX_MICROVOLT, _MAX_MICROVOLT))
        signal = np.where(missing, MISSING_INT16, microvolt)
    row[:, : signal.shape[1]] = signal
    return clipped
