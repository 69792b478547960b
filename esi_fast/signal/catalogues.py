"""What a folder of recordings holds: who, when, which statements. No signal is read here.

Four layouts are known: MIMIC-IV-ECG, PTB-XL, LUDB, and any tree of WFDB headers. Csv files are
streamed, so that walking MIMIC-IV-ECG's 800,000 rows takes seconds and little memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from esi_fast.signal.catalogue import Catalogue, CatalogueEntry, damaged_entry, sex_of
from esi_fast.signal.csv_table import CsvTable, keys_of, number_of, whole_of
from esi_fast.signal.ludb import Ludb
from esi_fast.signal.mimic import MimicIvEcg
from esi_fast.signal.wfdb_folder import WfdbFolder

Source = Literal["auto", "mimic-iv-ecg", "ptb-xl", "ludb", "wfdb"]
# The table that tells each database, in the order in which they are looked for.
_TABLE_OF: dict[str, Source] = {
    "record_list.csv": "mimic-iv-ecg",
    "ptbxl_database.csv": "ptb-xl",
    "ludb.csv": "ludb",
}
_INCOMPLETE = "machine_measurements.csv"  # MIMIC-IV-ECG's other table, without its list


def layout_of(root: Path) -> Source:
    """Which database's table is in a folder, else "wfdb"."""
    return next((one for table, one in _TABLE_OF.items() if (root / table).exists()), "wfdb")


def is_database(root: Path) -> bool:
    """Whether csv files of a folder are tables of a database, and no recordings."""
    return layout_of(root) != "wfdb" or (root / _INCOMPLETE).exists()


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
        source = layout_of(folder)
        if source == "wfdb" and (folder / _INCOMPLETE).exists():
            raise ValueError(f"{folder}: lacks record_list.csv; complete it, or use source wfdb")
    if source == "mimic-iv-ecg":
        return MimicIvEcg(folder)
    if source == "ptb-xl":
        return _PtbXl(folder)
    if source == "ludb":
        return Ludb(folder)
    if source == "wfdb":
        return WfdbFolder(folder)
    raise ValueError(f"source {source!r} is not one of {', '.join(get_args(Source))}")


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
            path=str(self.root / value[self._path_column]),
            subject_id=str(whole_of(value, "patient_id")),
            study_id=key,
            ecg_time=value["recording_date"] or None,
            age=age,
            sex=sex_of({"0": "male", "1": "female"}.get(value["sex"].removesuffix(".0"), "")),
            statements=keys_of(value, "scp_codes"),
            fold=whole_of(value, "strat_fold") if value["strat_fold"] else None,
        )
