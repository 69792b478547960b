"""A table of labels: any csv file with a column of records and a column of 0 and 1 a label."""

from __future__ import annotations

import csv
import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_SPLITS = ("train", "val", "test")
_OTHERS = ("record", "patient", "split")


@dataclass(frozen=True)
class CsvLabels:
    """What a table says, a row a record.

    Attributes:
        label_names: (K) the label columns, sorted.
        keys: (n) the records as the table names them.
        paths: (n) where they are.
        patients: (n) the column ``patient``; without it, the record.
        splits: (n) the column ``split``; without it, "".
        labels: (n) the labels with a 1.
        patients_known: whether there is a column ``patient``.
    """

    label_names: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[Path, ...]
    patients: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[frozenset[str], ...]
    patients_known: bool

    @classmethod
    def read(cls, root: Path, name: str) -> CsvLabels:
        """Read ``root / name``; the order of its columns does not matter.

        Columns: ``record`` (the path of a WFDB record from ``root``), and if there are such
        ``patient`` and ``split`` (train, val or test); every other one is a label.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no csv file, a column is missing or named twice, a record is named
                twice, a record, patient or split is empty, a split is none of the three, a label
                is not 0 or 1, or no record has a certain label.
        """
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: give --labels a table in {root}")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                table = csv.DictReader(file)
                table.fieldnames = columns = [name.strip() for name in table.fieldnames or []]
                rows = list(table)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no csv file in UTF-8: {error}") from None
        if "record" not in columns:
            raise ValueError(f"{path} has no column record, only {', '.join(columns) or 'none'}")
        if twice := [column for column, number in Counter(columns).items() if number > 1]:
            raise ValueError(f"{path} has two columns {twice[0]}")
        label_names = tuple(sorted(column for column in columns if column not in _OTHERS))
        if not label_names or not rows:
            raise ValueError(f"{path} has no {'label column' if rows else 'record'}")
        for line, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise ValueError(f"{path} has too many or too few fields in row {line}")
            for column in set(columns).intersection(_OTHERS):
                row[column] = row[column].strip()
                if not row[column]:
                    raise ValueError(f"{path} names no {column} in row {line}")
            if row.get("split", "train") not in _SPLITS:
                raise ValueError(
                    f"{path} has split {row['split']!r} in row {line}, none of {_SPLITS}"
                )
            for label in label_names:
                if row[label].strip() not in ("0", "1", "0.0", "1.0"):
                    raise ValueError(
                        f"{path} has {label} {row[label]!r} in row {line}: labels are 0 or 1 (what "
                        f"is none is called {', '.join(_OTHERS)})"
                    )
        keys = [posixpath.normpath(row["record"]).removesuffix(".hea") for row in rows]
        if twice := [key for key, number in Counter(keys).items() if number > 1]:
            raise ValueError(f"{path} names record {twice[0]} twice")
        labels = tuple(
            frozenset(label for label in label_names if float(row[label]) == 1.0) for row in rows
        )
        for label in label_names:
            if not any(label in one for one in labels):
                raise ValueError(f"{path} has no record with a 1 for {label}: drop the column")
        return cls(
            label_names=label_names,
            keys=tuple(keys),
            paths=tuple(root / key for key in keys),
            patients=tuple(
                _whole(row.get("patient", key)) for row, key in zip(rows, keys, strict=True)
            ),
            splits=tuple(row.get("split", "") for row in rows),
            labels=labels,
            patients_known="patient" in columns,
        )


def _whole(patient: str) -> str:
    """An id without the ``.0`` that tables of numbers give it, as PTB-XL's own does."""
    return re.sub(r"^(\d+)\.0+$", r"\1", patient)


def ptbxl_name(key: str) -> str:
    """What a recording of PTB-XL is called, whichever of its two rates a path names."""
    return posixpath.basename(key).removesuffix("_hr").removesuffix("_lr")
