"""What every catalogue of recordings offers, whatever its layout."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from esi_fast.signal.csv_table import CsvTable

Sex = Literal["male", "female"]

_AGE = re.compile(r"\d{1,3}(\.\d+)?(?!\d)")
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_-]")


# Not frozen: a frozen one takes four times as long to make, and archives list 800,000.
@dataclass(slots=True)
class CatalogueEntry:
    """One recording of a catalogue; nobody changes it.

    Attributes:
        key: names the recording, in ``[A-Za-z0-9_-]`` only: the study_id (MIMIC-IV-ECG), the
            ecg_id in five digits (PTB-XL), the ID (LUDB), the relative path with ``--`` for ``/``
            (a folder).
        path: the WFDB record without suffix; catalogues give a str, which is quicker to make and to
            send to another process than a Path.
        subject_id: the patient; in a folder of headers, the record's name.
        study_id: the recording session.
        ecg_time: when it was recorded, as the catalogue writes it.
        age: years at that time.
        sex: ``"male"``, ``"female"`` or None where it is not stated.
        statements: the machine's report lines in order, blank ones left out; SCP codes (PTB-XL);
            SNOMED CT codes (``# Dx:`` comments); diagnoses (LUDB).
        measurements: what :func:`~esi_fast.signal.measurements.intervals_from_machine` makes of the
            machine's columns; absent = not measured.
        fold: PTB-XL's recommended fold, 1..10.
        error: which row of which csv file is damaged, and how: nothing to read; "" if sound.
    """

    key: str
    path: str | Path
    subject_id: str
    study_id: str
    ecg_time: str | None = None
    age: float | None = None
    sex: Sex | None = None
    statements: tuple[str, ...] = ()
    measurements: dict[str, float] = field(default_factory=dict)
    fold: int | None = None
    error: str = ""

    def __reduce__(self) -> tuple[type[CatalogueEntry], tuple[object, ...]]:
        # Entries go to other processes in thousands: half the time of what slots give by default.
        fields = (self.key, self.path, self.subject_id, self.study_id, self.ecg_time, self.age)
        more = (self.sex, self.statements, self.measurements, self.fold, self.error)
        return CatalogueEntry, fields + more


class Catalogue(ABC):
    """The recordings of a folder, in a fixed order; iterating again reads the files again.

    A damaged row of any csv file becomes an entry with ``error``; ``len`` counts those of the file
    that lists the recordings.

    Attributes:
        source: which layout the folder has.
        patients_known: whether ``subject_id`` tells patients apart; if not, each record counts as
            its own patient.
        lists_files: whether it lists files that it has seen; a csv file may list others.
        adc_units_per_mv: the gain to read every lead with, where the headers hold no calibration
            and amplitudes are therefore assumed; None: the headers' gains.
    """

    source: Literal["mimic-iv-ecg", "ptb-xl", "ludb", "wfdb"]
    patients_known: bool = True
    lists_files: bool = False
    adc_units_per_mv: float | None = None

    def __init__(self, root: Path) -> None:
        self.root = root
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            self._length = self._count()
        return self._length

    @abstractmethod
    def __iter__(self) -> Iterator[CatalogueEntry]: ...

    @abstractmethod
    def _count(self) -> int: ...


def damaged_entry(
    table: CsvTable, line: int, problem: str, key: str = "", subject: str = ""
) -> CatalogueEntry:
    """The entry of a damaged row, with the ids that can be read; without, the line names it."""
    return CatalogueEntry(
        key=key or f"{table.path.stem}-line-{line}",
        path=str(table.path),
        subject_id=subject,
        study_id=key,
        error=table.reason(line, problem),
    )


def record_key(text: str) -> str:
    """The text with ``_`` for whatever a key may not hold."""
    return _NOT_IN_A_KEY.sub("_", text)


def age_in_years(text: str) -> float | None:
    """The number at the beginning of the text, or None."""
    number = _AGE.match(text)
    return float(number[0]) if number else None


def sex_of(text: str) -> Sex | None:
    """What ``M``, ``male``, ``F`` or ``female`` means, in any case; None for anything else."""
    folded = text.strip().casefold()
    if folded in ("m", "male"):
        return "male"
    return "female" if folded in ("f", "female") else None
