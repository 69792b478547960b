"""LUDB, the Lobachevsky University database: its layout, and why its gains are not used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from esi_fast.signal.catalogue import (
    Catalogue,
    CatalogueEntry,
    age_in_years,
    damaged_entry,
    record_key,
    sex_of,
)
from esi_fast.signal.csv_table import CsvTable

_DIAGNOSES = (
    "Rhythms", "Electric axis of the heart", "Conduction abnormalities", "Extrasystolies",
    "Hypertrophies", "Cardiac pacing", "Ischemia", "Non-specific repolarization abnormalities",
    "Other states",
)  # fmt: skip


class Ludb(Catalogue):
    """The folder with ``ludb.csv`` and ``data/ID.hea``; every record is another patient's.

    The headers' gains stretch each lead to the full range of the format, so that millivolts by the
    header cannot be compared between leads. The ADC units themselves obey Einthoven's and
    Goldberger's equations exactly; one gain for all leads keeps that. That a unit is 1 uV is an
    assumption: waveforms and intervals are right, amplitudes need not be.

    Source: Kalyakulina et al. 2020, https://physionet.org/content/ludb/1.0.1/.
    """

    source = "ludb"
    adc_units_per_mv = 1000.0

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        if not (root / "data").is_dir():
            raise FileNotFoundError(f"{root}: no folder data; the root of LUDB holds it")
        columns = ["ID", "Sex", "Age", *_DIAGNOSES]
        fix = "the root of LUDB holds it"
        self._table = CsvTable(root / "ludb.csv", columns, fix, multiline=True)
        if self._table.is_empty():
            raise ValueError(f"{self._table.path}: lists no records")

    def _count(self) -> int:
        return self._table.count()

    def __iter__(self) -> Iterator[CatalogueEntry]:
        for row, line, problem in self._table.rows():
            if problem:
                yield damaged_entry(self._table, line, problem)
                continue
            value = {name: row[index].strip() for name, index in self._table.column.items()}
            if not value["ID"].isdecimal():
                yield damaged_entry(self._table, line, f"ID {value['ID']!r} is not a number")
                continue
            # ">89" hides an age, as in PTB-XL, and counts as 90.
            age = 90.0 if value["Age"].startswith(">") else age_in_years(value["Age"])
            # A field lists several diagnoses, a line each.
            lines = (text.strip() for name in _DIAGNOSES for text in value[name].splitlines())
            yield CatalogueEntry(
                key=record_key(value["ID"]),
                path=str(self.root / "data" / value["ID"]),
                subject_id=value["ID"],
                study_id=value["ID"],
                age=age,
                sex=sex_of(value["Sex"]),
                statements=tuple(text for text in lines if text),
            )
