"""What people have, as twelve leads in millivolts: records, files of several formats, arrays.

Limb leads that were not recorded are computed where two others were: the six are linear in I and
II, III = II - I (Einthoven), aVR = -(I + II)/2, aVL = I - II/2, aVF = II - I/2 (Goldberger).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from esi_fast.leads import STANDARD_LEADS, canonical_lead, millivolts_per_unit, unit_in_name
from esi_fast.signal.dicom import read_dicom
from esi_fast.signal.edf import read_edf
from esi_fast.signal.record_batch import HIGHEST_RATE, LOWEST_RATE
from esi_fast.signal.records import ECGRecord
from esi_fast.signal.resample import _core
from esi_fast.signal.tables import Table, read_numpy_file, read_text_table
from esi_fast.signal.wfdb_fallback import read_stored

# What :func:`read_ecg` reads.
FORMATS = ("WFDB", ".csv", ".tsv", ".npy", ".npz", ".edf", ".bdf", ".dcm")
_TABLES: dict[str, Callable[[Path], Table]] = {
    ".csv": read_text_table, ".tsv": read_text_table,
    ".npy": read_numpy_file, ".npz": read_numpy_file,
}  # fmt: skip
_RECORDINGS = {".edf": read_edf, ".bdf": read_edf, ".dcm": read_dicom, ".dicom": read_dicom}
# Single files of one recording each, beside WFDB's pairs.
FILE_SUFFIXES = (*_TABLES, *_RECORDINGS)
# Of a WFDB record: beside its header under one name.
_WFDB_SUFFIXES = (".hea", ".dat", ".mat")

# Each limb lead as multiples of I and of II. Any two of them are independent.
_LIMB = {
    "I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0),
}  # fmt: skip
# Nothing in an ECG spans as much, artefacts aside; what does is in microvolts or ADC units.
_IMPLAUSIBLE_MV = 50.0  # between the 10th and the 90th percentile
_MISSING_INT16, _MISSING_INT32 = -(1 << 15), -(1 << 31)


@runtime_checkable
class RecordLike(Protocol):
    """A recording in memory; :class:`ECGRecord` is one. ``leads`` may be absent: the standard."""

    @property
    def signal(self) -> Any:
        """(leads, samples), mV, NaN where missing."""

    @property
    def fs(self) -> float:
        """Hz."""


ECGSource: TypeAlias = "RecordLike | str | os.PathLike[str] | npt.ArrayLike"


def read_ecg(
    source: ECGSource,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
) -> ECGRecord:
    """Any ECG as the twelve standard leads in millivolts, at its own rate.

    Leads are matched by name, in any order and usual spelling. One that was not recorded is NaN
    throughout; but where two of the six limb leads were recorded, the others are computed from
    them (exact identities; NaN where one of the two is). A recorded lead is never replaced. What
    the source calls by no lead's name is left out. The record's ``status`` says what was computed,
    left out and not recorded.

    Args:
        source: a record (``.signal``, ``.fs``, ``.leads``); an array or a tensor, ``(leads,
            samples)`` or ``(samples, leads)``; or a path: a WFDB record (with or without
            ``.hea`` or ``.dat``), ``.csv``, ``.tsv``, ``.npy``, ``.npz``, ``.edf``, ``.bdf`` or
            ``.dcm`` (the last three need ``esi-fast[io]``). A table has a column a lead.
        fs: rate in Hz, 10 to 100,000: of an array, and of a file that does not say it.
        leads: names of the signals in their order, where they have none or some that are no leads;
            a signal that is named as a lead stays that lead. By default the names they have; of an
            array, and of a table without names, the standard twelve in standard order.
        unit: ``"mV"`` or ``"uV"`` (or V, nV) of an array or a table; by default that in the names
            of a table's leads, as ``I (uV)``, or mV. Integers need it: they are hardly millivolts.
            -32768 of int16 is a missing sample.

    Returns:
        ``signal`` is ``(12, T)`` float32; ``digital`` are the signals that were read (WFDB: as
        stored; others: in whole microvolts, int32, missing -2147483648).

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: the package that reads the format is not installed.
        ValueError: the format is not known or damaged; rate or unit are missing, or contradict the
            file; the rate is none of an ECG; a name given is no lead or contradicts the signal's
            own, or no signal is a lead; the axes cannot be told apart; the voltages are implausible
            for a unit that was not stated.
    """
    if isinstance(leads, str):
        raise ValueError(f"leads is the text {leads!r}: give a sequence of names, [{leads!r}]")
    if fs is not None and not LOWEST_RATE <= fs <= HIGHEST_RATE:
        raise ValueError(f"fs must be in {LOWEST_RATE:g}..{HIGHEST_RATE:g} Hz, got {fs}")
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source), fs, leads, unit)
    if isinstance(source, RecordLike):
        _refuse_unit(unit, "the record")
        own = getattr(source, "leads", None)
        names = _given_names(leads, own, "the record") if leads else own or STANDARD_LEADS
        _stated_unit("mV", names, None, "the record")
        rate = _rate(source.fs, fs, "the record")
        record = _as_record(_as_array(source.signal), names, rate, "the record")
        comments = tuple(getattr(source, "comments", ()))
        return replace(record, path=str(getattr(source, "path", "")), comments=comments)
    return _from_table(Table(_as_array(source)), "the array", fs, leads, unit)


def _as_array(signal: Any) -> npt.NDArray[Any]:
    if hasattr(signal, "detach"):  # a tensor, on whatever device
        signal = signal.detach().cpu()
        if signal.is_floating_point() and signal.element_size() < 4:
            signal = signal.float()  # NumPy has no bfloat16
    return np.asarray(signal)


def _read_path(
    path: Path, fs: float | None, leads: Sequence[str] | None, unit: str | None
) -> ECGRecord:
    suffix = path.suffix.lower()
    if suffix in _TABLES or suffix in _RECORDINGS:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        if suffix in _TABLES:
            record = _from_table(_TABLES[suffix](path), str(path), fs, leads, unit)
        else:
            _refuse_unit(unit, str(path))
            signal, names, stated = _RECORDINGS[suffix](path)
            if leads:
                names = _given_names(leads, names, str(path))
            record = _as_record(signal, names, _rate(stated, fs, str(path)), str(path))
        return replace(record, path=str(path))
    stem = str(path.with_suffix("") if suffix in _WFDB_SUFFIXES else path)
    if suffix not in _WFDB_SUFFIXES and not Path(f"{stem}.hea").is_file():
        if path.is_file():
            raise ValueError(f"{path} is in no known format: {', '.join(FORMATS)}")
        raise FileNotFoundError(f"{path}: no such file, nor a WFDB record {stem}.hea")
    _refuse_unit(unit, str(path))
    return _from_wfdb(stem, fs, leads)


def _from_wfdb(stem: str, fs: float | None, leads: Sequence[str] | None) -> ECGRecord:
    try:
        stored = read_stored(stem, verify=True, strict=False)
        names = _given_names(leads, stored.names, stem) if leads else stored.names
        known = [row for row, name in enumerate(names) if canonical_lead(name)]
        signal = stored.millivolts(known, None)
    except _core.RecordError as error:
        status, message = error.args
        kind = {"missing": FileNotFoundError, "io": OSError}.get(status, ValueError)
        raise kind(f"{Path(stem).parent / message}") from None
    record = _as_record(
        signal, [names[row] for row in known], _rate(stored.fs, fs, stem), stem, names
    )
    return replace(
        record,
        digital=stored.digital,
        source_leads=stored.names,
        status="; ".join(part for part in (stored.status, record.status) if part != "ok") or "ok",
        comments=tuple(stored.header.comments),
        path=stem,
    )


def _from_table(
    table: Table, where: str, fs: float | None, leads: Sequence[str] | None, unit: str | None
) -> ECGRecord:
    array = table.array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{where} holds {array.dtype}, not numbers")
    own = table.names or leads or STANDARD_LEADS
    names = _given_names(leads, table.names, where) if leads else own
    known = [row for row, name in enumerate(names) if canonical_lead(name)]
    stated = _stated_unit(table.unit, [own[row] for row in known], unit, where)
    if stated is None and array.dtype.kind != "f":
        raise ValueError(
            f"{where} holds {array.dtype}, hardly millivolts: say unit='uV', or scale it to mV"
        )
    hint = ": its times must be in seconds" if table.has_columns else ""
    rate = _rate(table.fs, fs, where, hint)
    signal = _leads_first(array, names, where, has_columns=table.has_columns)[known]
    is_missing = signal == _MISSING_INT16 if array.dtype == np.int16 else None
    signal = signal * millivolts_per_unit(stated or "mV")
    if is_missing is not None:
        signal[is_missing] = np.nan
    if stated is None:
        _refuse_implausible(signal, where)
    all_names = [name or "a nameless column" for name in (*names, *table.left_out)]
    return _as_record(signal, [names[row] for row in known], rate, where, all_names)


def _stated_unit(
    own: str | None, names: Sequence[str], given: str | None, where: str
) -> str | None:
    """The one unit that the file, the names of its leads and who reads it state; None if none."""
    in_names = [unit_in_name(name) for name in names]
    units = [unit for unit in (own, *in_names, given) if unit]
    for other in units[1:]:
        if millivolts_per_unit(other) != millivolts_per_unit(units[0]):
            raise ValueError(f"{where} is in {units[0]}, not in {other}")
    if units and None in in_names and not (own or given):
        raise ValueError(f"{where} has a unit for some of its leads only: give unit={units[0]!r}")
    return units[0] if units else None


def _leads_first(
    array: npt.NDArray[Any], names: Sequence[str], where: str, *, has_columns: bool
) -> npt.NDArray[np.float64]:
    """``(leads, samples)``, whichever of its axes has as many entries as there are names."""
    count = len(names)
    if array.ndim == 1 and count == 1:
        array = array[None]
    if array.ndim != 2:
        raise ValueError(f"{where} is {array.shape}: give (leads, samples) or (samples, leads)")
    first, last = (size == count for size in array.shape)
    first = first and not has_columns
    if first and last:
        raise ValueError(
            f"{where} is {array.shape} for {count} leads, and either axis fits: give an ECGRecord, "
            "whose signal is (leads, samples)"
        )
    if not (first or last):
        raise ValueError(
            f"{where} is {array.shape}, and neither axis has the {count} leads "
            f"{', '.join(names)}: name the leads it has by leads="
        )
    wide = array.astype(np.float64)
    return wide if first else np.ascontiguousarray(wide.T)


def _given_names(names: Sequence[str], own: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Names that somebody gave to signals: each is a lead, and no signal is another by its own."""
    unknown = [name for name in names if canonical_lead(name) is None]
    if unknown:
        raise ValueError(
            f"{where}: {', '.join(map(repr, unknown))} is no lead; known are "
            f"{', '.join(STANDARD_LEADS)}"
        )
    if own is None:
        return tuple(names)
    if len(names) != len(own):
        raise ValueError(
            f"{len(names)} leads are named, {where} has {len(own)} signals ({', '.join(own)})"
        )
    own_leads, leads = map(canonical_lead, own), map(canonical_lead, names)
    if any(lead and lead != given for lead, given in zip(own_leads, leads, strict=True)):
        raise ValueError(
            f"{where} names its signals {', '.join(own)}, not {', '.join(names)}; leads= is for "
            "signals that have no names, or names that are no leads"
        )
    return tuple(names)


def _as_record(
    signal: npt.NDArray[Any],
    names: Sequence[str],
    fs: float,
    where: str,
    all_names: Sequence[str] | None = None,
) -> ECGRecord:
    """Signals ``(n, T)`` in mV under their names as the twelve leads."""
    signal = np.asarray(signal, dtype=np.float32)
    if signal.ndim != 2 or len(signal) != len(names):
        raise ValueError(f"{where}: signal {signal.shape} is not (leads, samples) of {len(names)}")
    if not signal.shape[1]:
        raise ValueError(f"{where} has no sample")
    rows: dict[str, npt.NDArray[np.float32]] = {}
    for name, row in zip(names, signal, strict=True):
        if (lead := canonical_lead(name)) is None:
            continue
        if lead in rows:
            raise ValueError(f"{where}: lead {lead} occurs twice among {', '.join(names)}")
        rows[lead] = row
    if not rows:
        found = ", ".join(all_names or names) or "nothing"
        raise ValueError(
            f"{where}: none of its signals ({found}) is a lead; name them by leads=, as "
            f"{', '.join(STANDARD_LEADS)}"
        )
    left_out = [name for name in (all_names or names) if canonical_lead(name) is None]
    computed = limb_leads(rows)
    absent = [lead for lead in STANDARD_LEADS if lead not in rows and lead not in computed]
    empty = np.full(signal.shape[1], np.nan, dtype=np.float32)
    rows |= computed
    notes = (("computed", computed), ("not recorded", absent), ("left out", left_out))
    status = "; ".join(f"{what}: {', '.join(which)}" for what, which in notes if which)
    with np.errstate(invalid="ignore"):
        microvolts = np.clip(np.rint(signal * 1e3), 1 - (1 << 31), (1 << 31) - 128)
    return ECGRecord(
        signal=np.stack([rows.get(lead, empty) for lead in STANDARD_LEADS]),
        digital=np.where(np.isnan(signal), _MISSING_INT32, microvolts).astype(np.int32),
        fs=fs,
        leads=STANDARD_LEADS,
        source_leads=tuple(names),
        status=status or "ok",
        comments=(),
        path="",
    )


def limb_leads(
    recorded: Mapping[str, npt.NDArray[np.floating[Any]]],
) -> dict[str, npt.NDArray[np.float32]]:
    """The limb leads that are not among those recorded, computed from two that are.

    Args:
        recorded: ``(T)`` of each lead, by its standard name, in any unit. A lead without a single
            sample counts as not recorded.

    Returns:
        ``(T)`` of each limb lead that is absent; nothing where fewer than two limb leads are there.
        NaN where one of the two is. The two are the first present of I, II, III, aVR, aVL, aVF.
    """
    present = [lead for lead in _LIMB if lead in recorded and np.isfinite(recorded[lead]).any()]
    if len(present) < 2:
        return {}
    # From these two to I and II, and on to the absent one.
    to_first_two = np.linalg.inv(np.array([_LIMB[lead] for lead in present[:2]]))
    first, second = (np.asarray(recorded[lead], np.float64) for lead in present[:2])
    found = {}
    for lead, weights in _LIMB.items():
        if lead not in present:
            one, other = np.array(weights) @ to_first_two
            found[lead] = (one * first + other * second).astype(np.float32)
    return found


def _rate(stated: float | None, given: float | None, where: str, hint: str = "") -> float:
    if stated is None and given is None:
        raise ValueError(f"{where} does not say its rate: give fs= in Hz")
    if stated is not None and not LOWEST_RATE <= stated <= HIGHEST_RATE:
        raise ValueError(f"{where} says {stated:g} Hz, which is no rate of an ECG{hint}")
    if stated is not None and given is not None and abs(stated - given) > 1e-3 * stated:
        raise ValueError(f"{where} is at {stated:g} Hz, not at {given:g} Hz")
    return float(stated if stated is not None else given or 0.0)


def _refuse_unit(unit: str | None, where: str) -> None:
    if unit is not None:
        raise ValueError(f"{where} says its units itself: leave out unit={unit!r}")


def _refuse_implausible(signal: npt.NDArray[np.float64], where: str) -> None:
    """Raise where the ordinary span of a lead is none of a voltage in mV."""
    recorded = signal[np.isfinite(signal).all(axis=1)]
    if not recorded.size:
        return
    low, high = np.percentile(recorded, (10, 90), axis=1)
    span = float(np.median(high - low))
    if span > _IMPLAUSIBLE_MV:
        raise ValueError(
            f"{where} spans {span:.0f} mV: say unit='uV' if it is in microvolts, or unit='mV' if "
            "the figures are right"
        )
