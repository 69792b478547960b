"""Csv files of catalogues, streamed: a damaged row is handed on with what is wrong with it."""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO


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

    def rows(self) -> Iterator[tuple[list[str], int, str]]:
        """Every row that is not blank: its fields, its first line, and what is wrong ("": nothing).

        Only the form is looked at: a row with a problem may have any number of fields.
        """
        with self.path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            if not self._multiline:
                yield from self._single_lines(file)
                return
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

    def _single_lines(self, file: TextIO) -> Iterator[tuple[list[str], int, str]]:
        next(file, None)
        for number, text in enumerate(file, start=2):
            try:
                row = next(csv.reader([text], strict=True), [])
            except csv.Error as error:
                yield [], number, str(error)
                continue
            wrong = len(row) != self._num_fields
            if row:
                yield row, number, f"{len(row)} fields, not {self._num_fields}" if wrong else ""

    def is_empty(self) -> bool:
        """Whether no row follows the header."""
        return next(self.rows(), None) is None

    def count(self) -> int:
        """Number of rows, the damaged ones included."""
        return sum(1 for _ in self.rows())

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
