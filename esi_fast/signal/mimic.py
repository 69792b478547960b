"""MIMIC-IV-ECG: three csv files of up to 800,000 rows, read side by side in little memory."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from esi_fast.signal.catalogue import Catalogue, CatalogueEntry, Sex, damaged_entry, sex_of
from esi_fast.signal.csv_table import CsvTable, id_problem
from esi_fast.signal.machine_reports import MachineReports
from esi_fast.signal.measurements import MACHINE_COLUMNS

_Person = tuple[Sex | None, int | None]  # sex, year of birth
_NOBODY: _Person = (None, None)
_SEXES: tuple[Sex | None, ...] = (None, "male", "female")
_NO_YEAR = -(2**31)


class MimicIvEcg(Catalogue):
    """The folder with ``record_list.csv``, ``machine_measurements.csv`` and ``files/``.

    With ``patients.csv`` of MIMIC-IV beside them, age and sex are known, too.

    Source: https://physionet.org/content/mimic-iv-ecg/1.0/.
    """

    source = "mimic-iv-ecg"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        fix = "the root of MIMIC-IV-ECG holds it"
        self._records = CsvTable(
            root / "record_list.csv", ("subject_id", "study_id", "ecg_time", "path"), fix
        )
        self._machine = CsvTable(
            root / "machine_measurements.csv", ("study_id", "report_0", *MACHINE_COLUMNS), fix
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
        people = _People()
        if self._patients is not None:
            yield from people.read(self._patients)
        column = self._records.column
        subject_column, study_column, time_column, path_column = (
            column[name] for name in ("subject_id", "study_id", "ecg_time", "path")
        )
        folder = os.path.join(self.root, "")  # noqa: PTH118 (a Path has no trailing slash)
        last_subject, person = "", _NOBODY
        with closing(MachineReports(self._machine)) as machine:
            for row, line, problem in self._records.rows():
                problem = (
                    problem
                    or id_problem("study_id", row[study_column])
                    or id_problem("subject_id", row[subject_column])
                    or ("" if row[path_column] else "path is empty")
                )
                if problem:
                    yield damaged_entry(self._records, line, problem)
                    continue
                subject, study, time = row[subject_column], row[study_column], row[time_column]
                if subject != last_subject:  # the records of a patient follow each other
                    last_subject, person = subject, people.find(subject)
                report = machine.of_study(study)
                yield from machine.take_damaged()
                path = row[path_column].removesuffix(".hea")
                # By position and without a Path, which saves 4 us of 15.
                yield CatalogueEntry(
                    study,
                    str(self.root / path) if path.strip("/") != path else folder + path,
                    subject,
                    study,
                    time.strip() or None,
                    _age(time, person[1]),
                    person[0],
                    report[0],
                    report[1],
                    None,
                    report[2],
                )


def _age(time: str, birth_year: int | None) -> float | None:
    year = time.lstrip()[:4]
    if birth_year is None or len(year) < 4 or not year.isdecimal():
        return None
    age = int(year) - birth_year
    return float(age) if age >= 0 else None


class _People:
    """Sex and birth year (anchor_year - anchor_age, shifted) by subject_id, 13 bytes a patient."""

    def __init__(self) -> None:
        self._ids, self._sexes, self._years = array("q"), array("b"), array("i")
        self._odd: dict[str, _Person] = {}  # what the arrays cannot hold

    def read(self, table: CsvTable) -> Iterator[CatalogueEntry]:
        """Take in patients.csv, which is done when all its damaged rows have been given."""
        subject_column, gender, anchor_age, anchor_year = (
            table.column[name] for name in ("subject_id", "gender", "anchor_age", "anchor_year")
        )
        for row, line, problem in table.rows():
            subject = row[subject_column] if not problem else ""
            if problem := problem or id_problem("subject_id", subject):
                yield damaged_entry(table, line, problem)
                continue
            sex = sex_of(row[gender])
            try:
                year = int(float(row[anchor_year])) - int(float(row[anchor_age]))
            except (ValueError, OverflowError):
                year = _NO_YEAR
            number = _number_of(subject)
            if number is None or not _NO_YEAR <= year < 2**31:
                self._odd[subject] = sex, None if year == _NO_YEAR else year
                continue
            if self._odd:
                self._odd.pop(subject, None)
            self._ids.append(number)
            self._sexes.append(_SEXES.index(sex))
            self._years.append(year)
        # A later row of a patient counts: the order is stable, and the last one is found.
        order = np.argsort(np.frombuffer(self._ids, np.int64), kind="stable")
        for numbers in (self._ids, self._sexes, self._years):
            ordered = np.frombuffer(numbers, numbers.typecode)[order]
            del numbers[:]
            numbers.frombytes(ordered.tobytes())

    def find(self, subject: str) -> _Person:
        """Sex and birth year of a patient."""
        if subject in self._odd:
            return self._odd[subject]
        number = _number_of(subject)
        if number is None:
            return _NOBODY
        position = bisect_right(self._ids, number) - 1
        if position < 0 or self._ids[position] != number:
            return _NOBODY
        year = self._years[position]
        return _SEXES[self._sexes[position]], None if year == _NO_YEAR else year


def _number_of(subject: str) -> int | None:
    """The digits as a number that tells 07 from 7; None if they are too many for 64 bits."""
    return int(f"1{subject}") if len(subject) < 18 else None
