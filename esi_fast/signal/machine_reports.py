"""The rows of machine_measurements.csv by study, in whatever order they are, in little memory."""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from operator import itemgetter

import numpy as np

from esi_fast.signal.catalogue import CatalogueEntry, damaged_entry
from esi_fast.signal.csv_table import CsvTable, id_problem
from esi_fast.signal.measurements import MACHINE_COLUMNS, intervals_from_columns

# Statements, measurements, and how the row is damaged.
Report = tuple[tuple[str, ...], dict[str, float], str]
_NO_REPORT: Report = ((), {}, "")
_HASH_BITS = 0xFFFFFFFF
_LINE_BITS = 32


class MachineReports:
    """What the machine said, study after study; to be closed, as it keeps the file open.

    Both of MIMIC-IV-ECG's files are in the same order, so that the row that is wanted next is
    nearly always the next row. At the first that is not, the rest of the file is indexed.
    """

    def __init__(self, table: CsvTable) -> None:
        column = table.column
        self._study = column["study_id"]
        reports = [name for name in column if re.fullmatch(r"report_\d+", name)]
        reports.sort(key=lambda name: int(name.removeprefix("report_")))
        self._reports = [column[name] for name in reports]
        self._machine = itemgetter(*(column[name] for name in MACHINE_COLUMNS))
        self._table, self._rows = table, table.rows()
        self._line = 1  # the last one that was taken in order
        self._index: _RowIndex | None = None

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
        if self._index is not None:
            self._index.close()

    def of_study(self, study_id: str) -> Report:
        """What the machine said of a study, or how its row is damaged; nothing if it has no row."""
        if self._index is None:
            row, line, problem = next(self._rows, ([], 0, "no more rows"))
            if self._study_of(row, problem) == study_id:
                self._line = line
                return self._report(row, line, problem)
            self._index = _RowIndex(self._table, self._study_of, self._line + 1)
        found = self._index.take(study_id)
        return self._report(*found) if found else _NO_REPORT

    def take_damaged(self) -> Iterable[CatalogueEntry]:
        """The rows met since the last call that cannot be told to belong to any study."""
        return () if self._index is None else map(self._damaged, self._index.take_untold())

    def _damaged(self, found: tuple[list[str], int, str]) -> CatalogueEntry:
        row, line, problem = found
        wrong = problem or id_problem("study_id", row[self._study])
        return damaged_entry(self._table, line, wrong)

    def _study_of(self, row: list[str], problem: str) -> str:
        """The study of a row; "" if it cannot be told."""
        # The last field of a row that was cut short may itself be cut.
        if problem and len(row) <= self._study + 1:
            return ""
        study_id = row[self._study]
        return study_id if study_id.isascii() and study_id.isdecimal() else ""

    def _report(self, row: list[str], line: int, problem: str) -> Report:
        if problem:
            return (), {}, self._table.reason(line, problem)
        texts = [row[index] for index in self._reports]
        statements = tuple(filter(None, map(_statement, filter(None, texts))))
        return statements, intervals_from_columns(self._machine(row)), ""


# A few thousand distinct sentences serve 800,000 records: interned, they weigh nothing.
@lru_cache(maxsize=8192)
def _statement(text: str) -> str:
    return sys.intern(text.strip())


class _RowIndex:
    """The rows of a table by study, in 17 bytes a row.

    It answers as a walk through the file would that keeps what it passes: a study that is asked for
    gets its first row among those passed since it was last asked for; if there is none, the walk
    goes on until it meets one. So the rows that belong to no study have their place, too.
    """

    def __init__(
        self, table: CsvTable, study_of: Callable[[list[str], str], str], walked: int
    ) -> None:
        """Index a table.

        Args:
            table: each line of it is at most one row.
            study_of: the study of a row with a problem or without; "" if it cannot be told.
            walked: the lines below this one have been used.
        """
        self._table, self._study_of, self._walked = table, study_of, walked
        self._starts = array("Q", [0, 0])  # of each line, from 1 on, and the end of the last
        self._untold = array("I")  # lines
        self._num_told = 0  # of the untold ones, those taken
        # A hash of the study above the line, in order. An array of Python's own: bisect takes a
        # number out of it several times as fast as out of numpy's.
        self._keys = array("Q")
        for line, raw in enumerate(table.lines(), start=1):
            self._starts.append(self._starts[-1] + len(raw))
            if line < walked:
                continue
            row, problem = table.parse_line(raw)
            if not row and not problem:
                continue
            if study_id := study_of(row, problem):
                self._keys.append((hash(study_id) & _HASH_BITS) << _LINE_BITS | line)
            else:
                self._untold.append(line)
        np.frombuffer(self._keys, np.uint64).sort()
        self._used = bytearray(len(self._keys))
        self._file = table.path.open("rb")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def take(self, study_id: str) -> tuple[list[str], int, str] | None:
        """The row of a study, its line, and what is wrong with it; None if there is none."""
        wanted, found = hash(study_id) & _HASH_BITS, None
        position = bisect_left(self._keys, wanted << _LINE_BITS)
        while position < len(self._keys) and self._keys[position] >> _LINE_BITS == wanted:
            line = self._keys[position] & (1 << _LINE_BITS) - 1
            if found and line >= self._walked:
                break
            if not self._used[position]:
                row, _, problem = self._read(line)
                if self._study_of(row, problem) == study_id:  # else another one of equal hash
                    self._used[position] = True
                    found = found or (row, line, problem)
                    self._walked = max(self._walked, line + 1)
            position += 1
        if not found:
            self._walked = len(self._starts)
        return found

    def take_untold(self) -> Iterator[tuple[list[str], int, str]]:
        """The rows of no study that the walk has met since the last call."""
        while self._num_told < len(self._untold) and self._untold[self._num_told] < self._walked:
            self._num_told += 1
            yield self._read(self._untold[self._num_told - 1])

    def _read(self, line: int) -> tuple[list[str], int, str]:
        start = self._starts[line]
        self._file.seek(start)
        row, problem = self._table.parse_line(self._file.read(self._starts[line + 1] - start))
        return row, line, problem
