"""A WFDB record as twelve leads in millivolts.

The compiled core reads formats 8, 16, 24, 32, 61, 80, 160, 212, 310 and 311, in one file or
several, MATLAB files read as WFDB included; segments are joined from its records. FLAC, skew and
unequal samples per frame go through the ``wfdb`` package. The record's status says which it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from esi_fast.leads import (
    STANDARD_LEADS,
    canonical_lead,
    lead_indices,
)
from esi_fast.signal.record_error import header_name, record_error
from esi_fast.signal.resample import _core
from esi_fast.signal.wfdb_fallback import read_stored

RecordPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ECGRecord:
    """One recording.

    Attributes:
        signal: ``(L, T)`` float32, millivolt, NaN where a sample is missing; row ``i`` is
            ``leads[i]``.
        digital: ``(num_signals, T)``, ADC units of every signal in the order of the file: int16, or
            int32 where a format needs it (8, 24, 32, what ``wfdb`` read, several segments), with
            the format's own value for missing samples.
        fs: sampling rate, Hz: the header's, times its samples per frame where every signal has
            as many (where they differ, the samples of a frame are averaged).
        leads: names of the rows of ``signal`` (the standard twelve unless others were asked for).
        source_leads: names of the rows of ``digital``, spelled as in the header.
        status: ``"ok"``, ``"joined: several segments"`` or ``"read through wfdb: <reason>"``.
        comments: the header's comment lines, without ``#``.
        path: the record's path without suffix.
    """

    signal: npt.NDArray[np.float32]
    digital: npt.NDArray[np.int16] | npt.NDArray[np.int32]
    fs: float
    leads: tuple[str, ...]
    source_leads: tuple[str, ...]
    status: str
    comments: tuple[str, ...]
    path: str


def read_record(
    path: RecordPath,
    *,
    leads: Sequence[str] = STANDARD_LEADS,
    verify: bool = True,
    strict: bool = False,
) -> ECGRecord:
    """Read one WFDB record at its own rate.

    Leads are matched by name, whatever their order, case and usual aliases; voltages in V, mV, uV
    or nV become millivolts. Data files outside the record's folder are refused.

    Args:
        path: the record, with or without ``.hea``.
        leads: which of the twelve standard leads to return, in this order; names as tolerant as
            those in the header.
        verify: check the samples against the header's checksums and initial values.
        strict: read what the ``wfdb`` package reads, as it does, and nothing else: headers that
            stray from the published syntax (dates like ``05-May-2020``, names with ``/`` or two
            dots, gains like ``2.0E2``, text beyond ASCII) are errors, and the samples of a frame
            are averaged. By default they are understood, and every sample is kept, unless the
            signals have unequal numbers of samples per frame: then they are averaged, too.

    Raises:
        FileNotFoundError: the header or a data file it names does not exist.
        ValueError: anything else is wrong with the record (the message names it): truncated data,
            a wrong checksum or first sample, a header that cannot be understood, an absent lead, a
            unit that is not a voltage, a format that neither the core nor ``wfdb`` reads.
        OSError: the operating system failed to read a file.

    Source: https://physionet.org/physiotools/wag/header-5.htm and signal-5.htm.
    """
    if isinstance(leads, str):
        raise ValueError(f"leads is the text {leads!r}: give a sequence of names, [{leads!r}]")
    wanted = tuple(canonical_lead(lead) or lead for lead in leads)
    stem = record_stem(path)
    try:
        return load_record(stem, wanted, verify, strict)
    except _core.RecordError as error:
        status, message = error.args
        kind = {"missing": FileNotFoundError, "io": OSError}.get(status, ValueError)
        raise kind(os.path.join(os.path.dirname(stem), message)) from None  # noqa: PTH118, PTH120


def record_stem(path: RecordPath) -> str:
    """The record's path without ``.hea``."""
    return os.fsdecode(path).removesuffix(".hea")


def load_record(
    stem: str,
    leads: tuple[str, ...],
    verify: bool,
    strict: bool,
    adc_units_per_mv: float | None = None,
) -> ECGRecord:
    """As ``read_record``, but what is wrong raises ``RecordError(status, message)``.

    ``adc_units_per_mv``: the gain of every lead in place of the header's, see ``read_records``.
    """
    stored = read_stored(stem, verify, strict)
    try:
        rows = lead_indices(stored.names, leads)
    except ValueError as error:
        raise record_error("leads", f"{header_name(stem)}: {error}") from None
    return ECGRecord(
        stored.millivolts(rows, adc_units_per_mv),
        stored.digital,
        stored.fs,
        leads,
        stored.names,
        stored.status,
        tuple(stored.header.comments),
        stem,
    )
