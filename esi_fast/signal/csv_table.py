"""Csv files of catalogues, streamed: a damaged row is handed on with what is wrong with it."""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

# Of each row: its fields, its first line, and what is wrong with it.
Rows = Generator[tuple[list[str], int, str], None, None]

# Made once: making one takes as long as reading a row by it.
_STRICT = csv.reader([], strict=True).dialect
_BLOCK_BYTES = 1 << 18
# Characters of a line from which on csv looks for fields beyond its own limit.
_LONG_LINE = 100_000


class CsvTable:
    """A csv file read row by row.

    Attributes:
        path: the file.
        column: the position of each column, by name.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], fix: str, *, multiline: bool = False
    ) -> None:
        """Read the header.

        Args:
            path: the file.
            columns: names that the header must have.
            fix: how to come by the right file, for the errors.
            multiline: whether a quoted field may hold line breaks. Where none may, every line is
                read on its own, so that a stray quote damages its line and no other.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the header lacks a column.
        """
        self.path = path
        self._multiline = multiline
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; {fix}")
        try:
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                header = next(csv.reader(file), [])
        except csv.Error as error:
            raise ValueError(f"{path}: its first line is no header: {error}; {fix}") from None
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(f"{path}: lacks the column(s) {', '.join(missing)}; {fix}")
        self.column = {name: index for index, name in enumerate(header)}
        self._num_fields = len(header)

    def rows(self) -> Rows:
        """Every row that is not blank: its fields, its first line, and what is wrong ("": nothing).

        Only the form is looked at: a row with a problem may have any number of fields.
        """
        return self._multiline_rows() if self._multiline else self._line_rows()

    def _multiline_rows(self) -> Rows:
        with self.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file)
            next(reader, None)
            while True:
                line = reader.line_num + 1
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    yield [], line, f"{error} (up to line {reader.line_num})"
                    continue
                if row is None:
                    return
                problem = ""
                if len(row) != self._num_fields:
                    problem = f"{len(row)} fields, not {self._num_fields}"
                    if reader.line_num > line:  # a quote that is never closed swallows what follows
                        problem += f" (up to line {reader.line_num})"
                if row:
                    yield row, line, problem

    def _line_rows(self) -> Rows:
        for line, raw in enumerate(self.lines(), start=1):
            row, problem = self.parse_line(raw)
            if (row or problem) and line > 1:
                yield row, line, problem

    def lines(self) -> Iterator[bytes]:
        """Every line of the file, the header and blank ones included, with its line end."""
        with self.path.open("rb") as file:
            # Block by block is quicker than line by line. A block ends where a line does.
            while block := file.read(_BLOCK_BYTES):
                yield from (block + file.readline()).splitlines(keepends=True)

    def parse_line(self, raw: bytes) -> tuple[list[str], str]:
        """The fields of a line that is a row, and what is wrong; neither if it is blank."""
        text = raw.decode("utf-8", "replace")
        if '"' in text or len(text) > _LONG_LINE:
            try:
                row = next(csv.reader([text], _STRICT), [])
            except csv.Error as error:
                return [], str(error)
        elif row_text := text.rstrip("\r\n"):
            # What a reader makes of it, in a quarter of the time; most lines hold no quote.
            row = row_text.split(",")
        else:
            return [], ""
        if len(row) != self._num_fields:
            return row, f"{len(row)} fields, not {self._num_fields}"
        return row, ""

    def is_empty(self) -> bool:
        """Whether no row follows the header."""
        return next(self.rows(), None) is None

    def count(self) -> int:
        """Number of rows, the damaged ones included."""
        if self._multiline:
            return sum(1 for _ in self.rows())
        lines = self.lines()
        next(lines, None)
        return sum(1 for raw in lines if len(raw) > 2 or raw.strip(b"\r\n"))

    def reason(self, line: int, problem: str) -> str:
        """What is wrong where, with the file's bare name: the same wherever the folder lies."""
        return f"{self.path.name}, line {line}: {problem}"


def number_of(value: Mapping[str, str], name: str) -> float:
    """A field of a row, by name, as a finite number.

    Raises:
        ValueError: it is none; name and text are named.
    """
    try:
        number = float(value[name])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value[name]!r}, not a number")
    return number


def whole_of(value: Mapping[str, str], name: str) -> int:
    """A field of a row, by name, as a whole number; ``15709.0`` counts as one.

    Raises:
        ValueError: it is none; name and text are named.
    """
    number = number_of(value, name)
    if number != int(number):
        raise ValueError(f"{name} is {value[name]!r}, not a whole number")
    return int(number)


def keys_of(value: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The keys of a field of a row, by name, that holds a Python dictionary.

    Raises:
        ValueError: it holds none, or one whose keys are not strings; name and text are named.
    """
    try:
        found = ast.literal_eval(value[name])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{name} is {value[name][:80]!r}, not a dictionary")
    return tuple(found)


def id_problem(name: str, text: str) -> str:
    """What is wrong with an id that must be digits; empty if nothing."""
    return "" if text.isascii() and text.isdecimal() else f"{name} is {text!r}, not a number"
