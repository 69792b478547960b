"""What a folder of recordings holds: who, when, which statements. No signal is read here.

Four layouts are known: MIMIC-IV-ECG, PTB-XL, LUDB, and any tree of WFDB headers. Csv files are
streamed, so that walking MIMIC-IV-ECG's 800,000 rows takes seconds and little memory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from esi_fast.signal.catalogue import (
    Catalogue,
    CatalogueEntry,
    Sex,
    age_in_years,
    damaged_entry,
    record_key,
    sex_of,
)
from esi_fast.signal.csv_table import CsvTable, id_problem, keys_of, number_of, whole_of
from esi_fast.signal.ludb import Ludb
from esi_fast.signal.measure import intervals_from_machine
from esi_fast.signal.resample import _core

Source = Literal["auto", "mimic-iv-ecg", "ptb-xl", "ludb", "wfdb"]
_Person = tuple[Sex | None, int | None]  # sex, year of birth
_Report = tuple[tuple[str, ...], dict[str, float], str]  # statements, measurements, error

_MACHINE_COLUMNS = (
    "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis",
    "t_axis",
)  # fmt: skip


def open_catalogue(root: str | os.PathLike[str], source: Source = "auto") -> Catalogue:
    """Open a folder of recordings.

    Args:
        root: the folder that holds ``record_list.csv`` (MIMIC-IV-ECG), ``ptbxl_database.csv``
            (PTB-XL), ``ludb.csv`` (LUDB), or WFDB headers at any depth.
        source: which of the four; ``"auto"`` looks for those files in that order.

    Raises:
        FileNotFoundError: the folder, or a file that the layout needs, does not exist.
        ValueError: ``source`` is unknown, ``root`` is not a folder, or a csv file is empty or lacks
            a column.

    Source: the data descriptions at https://physionet.org/content/mimic-iv-ecg/1.0/,
    https://physionet.org/content/ptb-xl/1.0.3/ and https://physionet.org/content/ludb/1.0.1/.
    """
    folder = Path(root)
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; give the one that holds the recordings")
    if source == "auto":
        if (folder / "record_list.csv").exists():
            source = "mimic-iv-ecg"
        elif (folder / "ptbxl_database.csv").exists():
            source = "ptb-xl"
        elif (folder / "ludb.csv").exists():
            source = "ludb"
        elif (folder / "machine_measurements.csv").exists():
            raise ValueError(f"{folder}: lacks record_list.csv; complete it, or use source wfdb")
        else:
            source = "wfdb"
    if source == "mimic-iv-ecg":
        return _MimicIvEcg(folder)
    if source == "ptb-xl":
        return _PtbXl(folder)
    if source == "ludb":
        return Ludb(folder)
    if source == "wfdb":
        return _WfdbFolder(folder)
    raise ValueError(f"source {source!r} is not one of {', '.join(get_args(Source))}")


class _MimicIvEcg(Catalogue):
    source = "mimic-iv-ecg"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        fix = "the root of MIMIC-IV-ECG holds it"
        self._records = CsvTable(
            root / "record_list.csv", ("subject_id", "study_id", "ecg_time", "path"), fix
        )
        self._machine = CsvTable(
            root / "machine_measurements.csv", ("study_id", "report_0", *_MACHINE_COLUMNS), fix
        )
        self._patients = None
        if (root / "patients.csv").exists():
            columns = ("subject_id", "gender", "anchor_age", "anchor_year")
            fix = "it is hosp/patients.csv of MIMIC-IV; remove it to go without age and sex"
            self._patients = CsvTable(root / "patients.csv", columns, fix)
        if self._records.is_empty():
            raise ValueError(f"{self._records.path}: lists no records")

    def _count(self) -> int:
        return self._records.count()

    def __iter__(self) -> Iterator[CatalogueEntry]:
        people, damaged = self._people()
        yield from damaged
        machine = _MachineReports(self._machine)
        column = self._records.column
        subject, study, when, path = (
            column[name] for name in ("subject_id", "study_id", "ecg_time", "path")
        )
        for row, line, problem in self._records.rows():
            problem = (
                problem
                or id_problem("study_id", row[study])
                or id_problem("subject_id", row[subject])
                or ("" if row[path] else "path is empty")
            )
            if problem:
                yield damaged_entry(self._records, line, problem)
                continue
            sex, birth_year = people.get(row[subject], (None, None))
            year = re.match(r"\s*(\d{4})", row[when])
            age = None
            if year and birth_year is not None and int(year[1]) >= birth_year:
                age = float(int(year[1]) - birth_year)
            statements, measurements, error = machine.of_study(row[study])
            yield from machine.take_damaged()
            yield CatalogueEntry(
                key=row[study],
                path=self.root / row[path].removesuffix(".hea"),
                subject_id=row[subject],
                study_id=row[study],
                ecg_time=row[when].strip() or None,
                age=age,
                sex=sex,
                statements=statements,
                measurements=measurements,
                error=error,
            )

    def _people(self) -> tuple[dict[str, _Person], list[CatalogueEntry]]:
        """Sex and birth year (anchor_year - anchor_age, shifted) by subject_id; damaged rows."""
        people: dict[str, _Person] = {}
        damaged: list[CatalogueEntry] = []
        if self._patients is None:
            return people, damaged
        column = self._patients.column
        for row, line, problem in self._patients.rows():
            problem = problem or id_problem("subject_id", row[column["subject_id"]])
            if problem:
                damaged.append(damaged_entry(self._patients, line, problem))
                continue
            age, year = row[column["anchor_age"]], row[column["anchor_year"]]
            try:
                birth_year = int(float(year)) - int(float(age))
            except (ValueError, OverflowError):
                birth_year = None
            people[row[column["subject_id"]]] = sex_of(row[column["gender"]]), birth_year
        return people, damaged


class _MachineReports:
    """Statements and measurements by study, from one pass over machine_measurements.csv.

    Both of MIMIC-IV-ECG's files are in the same order, so that the row that is wanted next is
    nearly always the next row; rows that come early are kept until they are asked for.
    """

    def __init__(self, table: CsvTable) -> None:
        column = table.column
        self._study = column["study_id"]
        reports = [name for name in column if re.fullmatch(r"report_\d+", name)]
        reports.sort(key=lambda name: int(name.removeprefix("report_")))
        self._reports = [column[name] for name in reports]
        self._machine = [(name, column[name]) for name in _MACHINE_COLUMNS]
        self._table, self._rows = table, table.rows()
        self._early: dict[str, _Report] = {}
        self._damaged: list[CatalogueEntry] = []

    def of_study(self, study_id: str) -> _Report:
        """What the machine said of a study, or how its row is damaged; nothing if it has no row."""
        if study_id in self._early:
            return self._early.pop(study_id)
        for row, line, problem in self._rows:
            # The last field of a row that was cut short may itself be cut.
            found = row[self._study] if not problem or len(row) > self._study + 1 else ""
            if wrong := id_problem("study_id", found):
                self._damaged.append(damaged_entry(self._table, line, problem or wrong))
                continue
            report = self._parse(row, self._table.reason(line, problem) if problem else "")
            if found == study_id:
                return report
            self._early.setdefault(found, report)
        return (), {}, ""

    def take_damaged(self) -> list[CatalogueEntry]:
        """The rows met since the last call that cannot be told to belong to any study."""
        damaged, self._damaged = self._damaged, []
        return damaged

    def _parse(self, row: list[str], error: str) -> _Report:
        if error:
            return (), {}, error
        # A few thousand distinct sentences serve 800,000 records: interned, they weigh nothing.
        lines = (row[index].strip() for index in self._reports)
        statements = tuple(sys.intern(line) for line in lines if line)
        return statements, intervals_from_machine({name: row[i] for name, i in self._machine}), ""


class _PtbXl(Catalogue):
    source = "ptb-xl"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        columns = ["ecg_id", "patient_id", "age", "sex", "recording_date", "scp_codes"]
        fix = "the root of PTB-XL holds it"
        if (root / "records500").is_dir():
            self._path_column = "filename_hr"
        elif (root / "records100").is_dir():
            self._path_column = "filename_lr"
        else:
            raise FileNotFoundError(f"{root}: no folder records500 or records100; {fix}")
        columns += ["strat_fold", self._path_column]
        self._table = CsvTable(root / "ptbxl_database.csv", columns, fix, multiline=True)
        if self._table.is_empty():
            raise ValueError(f"{self._table.path}: lists no records")

    def _count(self) -> int:
        return self._table.count()

    def __iter__(self) -> Iterator[CatalogueEntry]:
        for row, line, problem in self._table.rows():
            if problem:
                yield damaged_entry(self._table, line, problem)
                continue
            value = {name: row[index] for name, index in self._table.column.items()}
            key = ""
            try:
                key = f"{whole_of(value, 'ecg_id'):05d}"
                entry = self._entry(key, value)
            except ValueError as error:
                entry = damaged_entry(self._table, line, str(error), key, value["patient_id"])
            yield entry

    def _entry(self, key: str, value: dict[str, str]) -> CatalogueEntry:
        age = number_of(value, "age") if value["age"] else None
        if age == 300.0:  # PTB-XL's mark for "older than 89"
            age = 90.0
        if not value[self._path_column]:
            raise ValueError(f"{self._path_column} is empty")
        return CatalogueEntry(
            key=key,
            path=self.root / value[self._path_column],
            subject_id=str(whole_of(value, "patient_id")),
            study_id=key,
            ecg_time=value["recording_date"] or None,
            age=age,
            sex=sex_of({"0": "male", "1": "female"}.get(value["sex"].removesuffix(".0"), "")),
            statements=keys_of(value, "scp_codes"),
            fold=whole_of(value, "strat_fold") if value["strat_fold"] else None,
        )


class _WfdbFolder(Catalogue):
    source = "wfdb"
    patients_known = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._paths = sorted(
            Path(folder) / name.removesuffix(".hea")
            for folder, _, names in os.walk(root)
            for name in names
            if name.endswith(".hea")
        )
        if not self._paths:
            raise FileNotFoundError(
                f"{root}: no record_list.csv, ptbxl_database.csv or .hea file in it: "
                "give the folder that holds the recordings"
            )

    def _count(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[CatalogueEntry]:
        for path in self._paths:
            try:
                comments = _core.read_header(os.fsencode(path), strict=False).comments
            except _core.RecordError:
                # Reading the record will say what is wrong with it; here it only lacks its notes.
                comments = ()
            notes = _notes(comments)
            key = record_key(path.relative_to(self.root).as_posix())
            codes = (code.strip() for code in notes.get("dx", "").split(","))
            yield CatalogueEntry(
                key=key,
                path=path,
                subject_id=path.name,
                study_id=key,
                age=age_in_years(notes.get("age", "")),
                sex=sex_of(notes.get("sex", "")),
                statements=tuple(code for code in codes if code and code.casefold() != "unknown"),
            )


def _notes(comments: Sequence[str]) -> dict[str, str]:
    """The comments of the form ``Name: value`` or ``<name>: value``."""
    notes: dict[str, str] = {}
    for comment in comments:
        name, colon, value = comment.partition(":")
        if colon:
            notes.setdefault(name.strip(" <>").casefold(), value.strip())
    return notes
