"""What a folder of recordings holds: who, when, which statements. No signal is read here.

Three layouts are known: MIMIC-IV-ECG, PTB-XL, and any tree of WFDB headers. Csv files are streamed,
so that walking MIMIC-IV-ECG's 800,000 rows takes seconds and little memory.
"""

from __future__ import annotations

import ast
import csv
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from esi_fast.signal.measure import intervals_from_machine
from esi_fast.signal.resample import _core

Source = Literal["auto", "mimic-iv-ecg", "ptb-xl", "wfdb"]

_MACHINE_COLUMNS = (
    "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis",
    "t_axis",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One recording of a catalogue.

    Attributes:
        key: names the recording, in ``[A-Za-z0-9_-]`` only: the study_id (MIMIC-IV-ECG), the
            ecg_id in five digits (PTB-XL), the relative path with ``_`` for ``/`` (a folder).
        path: the WFDB record without suffix.
        subject_id: the patient; in a folder of headers, the record's name.
        study_id: the recording session.
        ecg_time: when it was recorded, as the catalogue writes it.
        age: years at that time.
        sex: ``"male"``, ``"female"`` or None where it is not stated.
        statements: the machine's report lines in order, blank ones left out; SCP codes (PTB-XL);
            SNOMED CT codes (``# Dx:`` comments).
        measurements: what :func:`~esi_fast.signal.measure.intervals_from_machine` makes of the
            machine's columns; absent = not measured.
        fold: PTB-XL's recommended fold, 1..10.
    """

    key: str
    path: Path
    subject_id: str
    study_id: str
    ecg_time: str | None = None
    age: float | None = None
    sex: Literal["male", "female"] | None = None
    statements: tuple[str, ...] = ()
    measurements: dict[str, float] = field(default_factory=dict)
    fold: int | None = None


class Catalogue:
    """The recordings of a folder, in a fixed order; iterating again reads the files again."""

    source: Literal["mimic-iv-ecg", "ptb-xl", "wfdb"]

    def __init__(self, root: Path) -> None:
        self.root = root
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            self._length = self._count()
        return self._length

    def __iter__(self) -> Iterator[CatalogueEntry]:
        """The entries in order.

        Raises:
            ValueError: a row of a csv file cannot be understood.
        """
        return self._entries()

    def _count(self) -> int:
        raise NotImplementedError

    def _entries(self) -> Iterator[CatalogueEntry]:
        raise NotImplementedError


def open_catalogue(root: str | os.PathLike[str], source: Source = "auto") -> Catalogue:
    """Open a folder of recordings.

    Args:
        root: the folder that holds ``record_list.csv`` (MIMIC-IV-ECG), ``ptbxl_database.csv``
            (PTB-XL), or WFDB headers at any depth.
        source: which of the three; ``"auto"`` looks for those files in that order.

    Raises:
        FileNotFoundError: the folder, or a file that the layout needs, does not exist.
        ValueError: ``source`` is unknown, ``root`` is not a folder, or a csv file is empty or lacks
            a column.

    Source: the data descriptions at https://physionet.org/content/mimic-iv-ecg/1.0/ and
    https://physionet.org/content/ptb-xl/1.0.3/.
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
        else:
            source = "wfdb"
    if source == "mimic-iv-ecg":
        return _MimicIvEcg(folder)
    if source == "ptb-xl":
        return _PtbXl(folder)
    if source == "wfdb":
        return _WfdbFolder(folder)
    raise ValueError(f"source {source!r} is not one of auto, mimic-iv-ecg, ptb-xl, wfdb")


class _Table:
    """A csv file read row by row, by column name."""

    def __init__(self, path: Path, columns: Sequence[str], fix: str) -> None:
        self.path = path
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; {fix}")
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            self.header = next(csv.reader(file), [])
        missing = [name for name in columns if name not in self.header]
        if missing:
            raise ValueError(f"{path}: lacks the column(s) {', '.join(missing)}; {fix}")
        self.column = {name: index for index, name in enumerate(self.header)}

    def rows(self) -> Iterator[list[str]]:
        with self.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file)
            try:
                next(reader, None)
                for row in reader:
                    if not row:
                        continue
                    if len(row) < len(self.header):
                        raise self.error(
                            reader.line_num, f"{len(row)} fields, not {len(self.header)}"
                        )
                    yield row
            except csv.Error as error:
                raise self.error(reader.line_num, str(error)) from None

    def count(self) -> int:
        return sum(1 for _ in self.rows())

    def error(self, line: int, what: str) -> ValueError:
        return ValueError(f"{self.path}, line {line}: {what}; is the file complete?")


class _MimicIvEcg(Catalogue):
    source = "mimic-iv-ecg"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        fix = "the root of MIMIC-IV-ECG holds it"
        self._records = _Table(
            root / "record_list.csv", ("subject_id", "study_id", "ecg_time", "path"), fix
        )
        self._machine = _Table(
            root / "machine_measurements.csv", ("study_id", "report_0", *_MACHINE_COLUMNS), fix
        )
        self._patients = None
        if (root / "patients.csv").exists():
            columns = ("subject_id", "gender", "anchor_age", "anchor_year")
            fix = "it is hosp/patients.csv of MIMIC-IV; remove it to go without age and sex"
            self._patients = _Table(root / "patients.csv", columns, fix)
        if next(self._records.rows(), None) is None:
            raise ValueError(f"{self._records.path}: lists no records")

    def _count(self) -> int:
        return self._records.count()

    def _entries(self) -> Iterator[CatalogueEntry]:
        people = self._people()
        machine = _MachineReports(self._machine)
        column = self._records.column
        subject, study, when, path = (
            column[name] for name in ("subject_id", "study_id", "ecg_time", "path")
        )
        for row in self._records.rows():
            sex, birth_year = people.get(row[subject], (None, None))
            year = re.match(r"\s*(\d{4})", row[when])
            age = None
            if year and birth_year is not None and int(year[1]) >= birth_year:
                age = float(int(year[1]) - birth_year)
            statements, measurements = machine.of_study(row[study])
            yield CatalogueEntry(
                key=_key(row[study]),
                path=self.root / row[path].removesuffix(".hea"),
                subject_id=row[subject],
                study_id=row[study],
                ecg_time=row[when].strip() or None,
                age=age,
                sex=sex,
                statements=statements,
                measurements=measurements,
            )

    def _people(self) -> dict[str, tuple[Literal["male", "female"] | None, int | None]]:
        """Sex and year of birth (anchor_year - anchor_age, in shifted time) by subject_id."""
        if self._patients is None:
            return {}
        column = self._patients.column
        people = {}
        for row in self._patients.rows():
            age, year = row[column["anchor_age"]], row[column["anchor_year"]]
            try:
                birth_year = int(float(year)) - int(float(age))
            except ValueError:
                birth_year = None
            people[row[column["subject_id"]]] = _sex(row[column["gender"]]), birth_year
        return people


class _MachineReports:
    """Statements and measurements by study, from one pass over machine_measurements.csv.

    Both of MIMIC-IV-ECG's files are in the same order, so that the row that is wanted next is
    nearly always the next row; rows that come early are kept until they are asked for.
    """

    def __init__(self, table: _Table) -> None:
        column = table.column
        self._study = column["study_id"]
        reports = [name for name in column if re.fullmatch(r"report_\d+", name)]
        reports.sort(key=lambda name: int(name.removeprefix("report_")))
        self._reports = [column[name] for name in reports]
        self._machine = [(name, column[name]) for name in _MACHINE_COLUMNS]
        self._rows = table.rows()
        self._early: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {}

    def of_study(self, study_id: str) -> tuple[tuple[str, ...], dict[str, float]]:
        """What the machine said of a study; nothing if it has no row."""
        if study_id in self._early:
            return self._early.pop(study_id)
        for row in self._rows:
            parsed = self._parse(row)
            if row[self._study] == study_id:
                return parsed
            self._early.setdefault(row[self._study], parsed)
        return (), {}

    def _parse(self, row: list[str]) -> tuple[tuple[str, ...], dict[str, float]]:
        # A few thousand distinct sentences serve 800,000 records: interned, they weigh nothing.
        lines = (row[index].strip() for index in self._reports)
        statements = tuple(sys.intern(line) for line in lines if line)
        return statements, intervals_from_machine({name: row[i] for name, i in self._machine})


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
        self._table = _Table(root / "ptbxl_database.csv", columns, fix)
        if next(self._table.rows(), None) is None:
            raise ValueError(f"{self._table.path}: lists no records")

    def _count(self) -> int:
        return self._table.count()

    def _entries(self) -> Iterator[CatalogueEntry]:
        for row in self._table.rows():
            value = {name: row[index] for name, index in self._table.column.items()}
            try:
                yield self._entry(value)
            except (ValueError, SyntaxError, AttributeError) as error:
                raise ValueError(
                    f"{self._table.path}: ecg_id {value['ecg_id']}: {error}; is the file complete?"
                ) from None

    def _entry(self, value: dict[str, str]) -> CatalogueEntry:
        key = f"{int(value['ecg_id']):05d}"
        age = float(value["age"]) if value["age"] else None
        if age == 300.0:  # PTB-XL's mark for "older than 89"
            age = 90.0
        return CatalogueEntry(
            key=key,
            path=self.root / value[self._path_column],
            subject_id=str(int(float(value["patient_id"]))),
            study_id=key,
            ecg_time=value["recording_date"] or None,
            age=age,
            sex=_sex({"0": "male", "1": "female"}.get(value["sex"].removesuffix(".0"), "")),
            statements=tuple(ast.literal_eval(value["scp_codes"]).keys()),
            fold=int(float(value["strat_fold"])) if value["strat_fold"] else None,
        )


class _WfdbFolder(Catalogue):
    source = "wfdb"

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

    def _entries(self) -> Iterator[CatalogueEntry]:
        for path in self._paths:
            try:
                comments = _core.read_header(os.fsencode(path)).comments
            except _core.RecordError:
                # Reading the record will say what is wrong with it; here it only lacks its notes.
                comments = ()
            notes = _notes(comments)
            key = _key(path.relative_to(self.root).as_posix())
            codes = (code.strip() for code in notes.get("dx", "").split(","))
            yield CatalogueEntry(
                key=key,
                path=path,
                subject_id=path.name,
                study_id=key,
                age=_age(notes.get("age", "")),
                sex=_sex(notes.get("sex", "")),
                statements=tuple(code for code in codes if code and code.casefold() != "unknown"),
            )


def _key(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _notes(comments: Sequence[str]) -> dict[str, str]:
    """The comments of the form ``Name: value`` or ``<name>: value``."""
    notes: dict[str, str] = {}
    for comment in comments:
        name, colon, value = comment.partition(":")
        if colon:
            notes.setdefault(name.strip(" <>").casefold(), value.strip())
    return notes


def _age(text: str) -> float | None:
    number = re.match(r"\d+(\.\d+)?", text)
    return float(number[0]) if number else None


def _sex(text: str) -> Literal["male", "female"] | None:
    folded = text.strip().casefold()
    if folded in ("m", "male"):
        return "male"
    return "female" if folded in ("f", "female") else None
