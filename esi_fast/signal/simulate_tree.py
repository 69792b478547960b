"""Write simulated studies as a tree with MIMIC-IV-ECG 1.0's own layout, headers and csv files."""

from __future__ import annotations

import csv
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.measurements import NOT_MEASURED
from esi_fast.signal.simulate import ADC_UNITS_PER_MV, SimulatedRecord, simulate

# MIMIC-IV-ECG stores aVF before aVL.
_FILE_ORDER = (0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11)
_FIRST_SUBJECT, _FIRST_STUDY, _FIRST_CART = 10_000_000, 40_000_000, 6_000_000
_NUM_REPORTS = 18
_P_ONSET_MS = 40  # where the P wave begins in the machine's median beat
_MACHINE_COLUMNS = (
    "rr_interval",
    "p_onset",
    "p_end",
    "qrs_onset",
    "qrs_end",
    "t_end",
    "p_axis",
    "qrs_axis",
    "t_axis",
)


def write_tree(
    out: Path,
    num_records: int,
    *,
    seed: int = 0,
    fs: float = 500.0,
    duration: float = 10.0,
    progress: Callable[[], object] = lambda: None,
) -> int:
    """Write ``num_records`` simulated studies below ``out`` as MIMIC-IV-ECG lays them out.

    ``files/pNNNN/pSUBJECT/sSTUDY/STUDY.{hea,dat}`` (format 16, 200 ADC units a millivolt),
    ``record_list.csv``, ``machine_measurements.csv`` (29999 where nothing can be measured, a blank
    report column before the summary line), ``patients.csv``. The tree appears under its name only
    when it is whole; what ends the run early leaves nothing.

    Args:
        out: the folder to make; it must not exist.
        num_records, seed, fs, duration: as for :func:`simulate`.
        progress: called after every record.

    Returns:
        The number of patients.

    Raises:
        FileExistsError: ``out`` exists.
        ValueError: a number is out of its range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if out.exists():
        raise FileExistsError(f"{out} exists: choose another --out or remove it")
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}")  # two runs may choose one name
    try:
        partial.mkdir(parents=True)
        records = simulate(num_records, seed=seed, fs=fs, duration=duration)
        patients = _write_studies(partial, records, progress)
        _write_patients(partial, patients)
        partial.rename(out)
    except BaseException:  # Ctrl-C too: nobody looks for a hidden folder
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return len(patients)


def _write_studies(
    root: Path, studies: Iterable[SimulatedRecord], progress: Callable[[], object]
) -> dict[int, tuple[str, int]]:
    """Write the recordings, record_list.csv, machine_measurements.csv.

    Returns:
        Sex and age at the first study of each patient, by subject_id.
    """
    patients: dict[int, tuple[str, int]] = {}
    with (
        (root / "record_list.csv").open("w", newline="") as record_file,
        (root / "machine_measurements.csv").open("w", newline="") as machine_file,
    ):
        records, machine = csv.writer(record_file), csv.writer(machine_file)
        records.writerow(["subject_id", "study_id", "file_name", "ecg_time", "path"])
        reports = [f"report_{i}" for i in range(_NUM_REPORTS)]
        columns = ["subject_id", "study_id", "cart_id", "ecg_time", *reports]
        machine.writerow([*columns, "bandwidth", "filtering", *_MACHINE_COLUMNS])
        for record in studies:
            subject = _FIRST_SUBJECT + 7 * record.subject_id
            study = _FIRST_STUDY + record.study_id
            # A study a year after the one before, so that the age follows from anchor_year.
            _, anchor_age = patients.setdefault(subject, (record.sex, record.age))
            year = 2150 + record.subject_id % 40 + record.age - anchor_age
            when = datetime(year, 1, 1) + timedelta(minutes=(record.study_id * 7919) % 525_000)
            folder = Path("files", f"p{subject // 10_000}", f"p{subject}", f"s{study}")
            (root / folder).mkdir(parents=True)
            _write_record(root / folder / str(study), record, subject, when)
            records.writerow([subject, study, study, when, folder / str(study)])
            ids = [subject, study, _FIRST_CART + record.study_id, when]
            filters = ["0.005-150 Hz", "60 Hz notch Baseline filter"]
            machine.writerow([*ids, *_report_columns(record), *filters, *_machine_columns(record)])
            progress()
    return patients


def _write_patients(root: Path, patients: dict[int, tuple[str, int]]) -> None:
    with (root / "patients.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"]
        )
        for subject, (sex, anchor_age) in patients.items():
            year = 2150 + (subject - _FIRST_SUBJECT) // 7 % 40
            rows.writerow([subject, sex[0].upper(), anchor_age, year, "2017 - 2019", ""])


def _write_record(base: Path, record: SimulatedRecord, subject: int, when: datetime) -> None:
    digital = record.digital[list(_FILE_ORDER)]
    name = base.name
    lines = [f"{name} 12 {record.fs:g} {digital.shape[1]} {when:%H:%M:%S} {when:%d/%m/%Y}"]
    checksums = digital.sum(axis=1, dtype=np.int64).astype(np.int16)
    for row, checksum, lead in zip(digital, checksums, _FILE_ORDER, strict=True):
        lines.append(
            f"{name}.dat 16 {ADC_UNITS_PER_MV}.0(0)/mV 16 0 {row[0]} {checksum} 0 "
            f"{STANDARD_LEADS[lead]}"
        )
    lines.append(f"# <subject_id>: {subject}")
    base.with_suffix(".dat").write_bytes(np.ascontiguousarray(digital.T).astype("<i2").tobytes())
    base.with_suffix(".hea").write_text(os.linesep.join(lines) + os.linesep)


def _report_columns(record: SimulatedRecord) -> list[str]:
    *findings, summary = record.statements
    columns = [*findings, "", summary]
    return columns + [""] * (_NUM_REPORTS - len(columns))


def _machine_columns(record: SimulatedRecord) -> list[int]:
    found = record.measurements
    columns: dict[str, float] = {}
    qrs_onset = float(_P_ONSET_MS)
    if "pr" in found:
        columns["p_onset"] = _P_ONSET_MS
        columns["p_end"] = _P_ONSET_MS + found["p_duration"]
        qrs_onset += found["pr"]
    columns |= {
        "qrs_onset": qrs_onset,
        "qrs_end": qrs_onset + found["qrs"],
        "t_end": qrs_onset + found["qt"],
    }
    columns |= {
        name: found[name]
        for name in ("rr_interval", "p_axis", "qrs_axis", "t_axis")
        if name in found
    }
    return [round(columns.get(name, NOT_MEASURED)) for name in _MACHINE_COLUMNS]
