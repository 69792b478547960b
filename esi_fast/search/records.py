"""What an index knows of its records: a line of JSON each, and columns that filters look at.

``records.jsonl`` stays on disk, mapped; only the lines of hits are read. ``columns.npz`` holds
where each line begins, keys, ages, sexes, splits, and for every finding and every statement the
rows that have it. ``terms.json`` names the findings and statements.
"""

from __future__ import annotations

import json
import mmap
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.shard_index import SPLITS
from esi_fast.retriever.documents import Mask
from esi_fast.signal.catalogue import Sex

RECORDS, COLUMNS, TERMS = "records.jsonl", "columns.npz", "terms.json"
FILES = (RECORDS, COLUMNS, TERMS)
SEXES: tuple[str, ...] = get_args(Sex)
_UNKNOWN = -1  # a sex


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records may be found; what is None or empty lets all through.

    Attributes:
        age: youngest and oldest in years, both included, either None for no bound; a record of
            unknown age is outside.
        sex: ``"male"`` or ``"female"``.
        statements: each of them must be there. The name of a finding (``atrial_fibrillation``, or
            with spaces) asks for the finding, which a denial in the report is not; any other text
            asks for a report line that contains it, in any case.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        ValueError: a bound, sex, split or statement is none.
    """

    age: tuple[float | None, float | None] | None = None
    sex: str | None = None
    statements: tuple[str, ...] = ()
    split: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no record can be."""
        if self.age is not None:
            low, high = self.age
            if any(bound is not None and not 0 <= bound <= 200 for bound in self.age) or (
                low is not None and high is not None and low > high
            ):
                raise ValueError(f"age is {self.age}; give (youngest, oldest) in years")
        if self.sex is not None and self.sex not in SEXES:
            raise ValueError(f"sex is {self.sex!r}; give {' or '.join(SEXES)}")
        if self.split is not None and self.split not in SPLITS:
            raise ValueError(f"split is {self.split!r}; give {', '.join(SPLITS)}")
        given: object = self.statements
        if not isinstance(given, tuple) or not all(str(one).strip() for one in given):
            raise ValueError(f"statements is {given!r}; give a tuple of texts")


class RecordTable:
    """The records of an index by row.

    Args:
        folder: holds the three files, their bytes verified.

    Raises:
        ValueError: they do not fit each other.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / COLUMNS, allow_pickle=False) as columns:
            self._begins: NDArray[np.int64] = columns["begins"]
            self._keys: NDArray[np.bytes_] = columns["keys"]
            self._ages: NDArray[np.float32] = columns["ages"]
            self._sexes: NDArray[np.int8] = columns["sexes"]
            self._splits: NDArray[np.int8] = columns["splits"]
            self._rows: NDArray[np.int32] = columns["rows"]
            self._ends: NDArray[np.int64] = columns["ends"]
        terms = json.loads((folder / TERMS).read_text(encoding="utf-8"))
        self.findings: list[str] = terms["findings"]
        self.statements: list[str] = terms["statements"]
        if len(self._ends) != len(self.findings) + len(self.statements) + 1:
            raise ValueError(f"{folder / TERMS} and {COLUMNS} do not fit each other")
        with (folder / RECORDS).open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._keys)

    def line(self, row: int) -> dict[str, Any]:
        """What was written of a row."""
        line: dict[str, Any] = json.loads(self._lines[self._begins[row] : self._begins[row + 1]])
        return line

    def row_of(self, key: str) -> int:
        """The row of a key.

        Raises:
            ValueError: there is no such key.
        """
        wanted = key.encode()
        at = int(np.searchsorted(self._keys, wanted, sorter=self._order))
        if at == len(self) or self._keys[self._order[at]] != wanted:
            raise ValueError(f"no record {key!r} in the index")
        return int(self._order[at])

    def mask(self, wanted: RecordFilter) -> Mask | None:
        """Rows (n,) that a filter lets through; None where it lets all through.

        Raises:
            ValueError: no record at all has one of the statements.
        """
        masks: list[Mask] = []
        if wanted.age is not None:
            low, high = wanted.age
            low, high = 0.0 if low is None else low, np.inf if high is None else high
            masks.append((self._ages >= low) & (self._ages <= high))
        if wanted.sex is not None:
            masks.append(self._sexes == SEXES.index(wanted.sex))
        if wanted.split is not None:
            masks.append(self._splits == SPLITS.index(wanted.split))
        masks += map(self._having, wanted.statements)
        return np.logical_and.reduce(masks) if masks else None

    def _having(self, statement: str) -> Mask:
        concept = _concept(statement)
        if concept in self.findings:
            terms = [self.findings.index(concept)]
        else:
            part = " ".join(statement.casefold().split())
            first = len(self.findings)
            terms = [first + at for at, text in enumerate(self._folded) if part in text]
        if not terms:
            raise ValueError(
                f"no record of the index has the finding or a statement with {statement!r}"
            )
        having = np.zeros(len(self), np.bool_)
        for term in terms:
            having[self._rows[self._ends[term] : self._ends[term + 1]]] = True
        return having

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._keys, kind="stable")

    @cached_property
    def _folded(self) -> list[str]:
        return [" ".join(text.casefold().split()) for text in self.statements]


def write_records(folder: Path, parts: Iterable[Sequence[dict[str, Any]]]) -> int:
    """Write the three files from the lines of all rows, keys all different; returns the rows."""
    begins, keys, ages = array("q", [0]), list[bytes](), array("f")
    sexes, splits = array("b"), array("b")
    findings: dict[str, array[int]] = {}
    statements: dict[str, array[int]] = {}
    with (folder / RECORDS).open("wb") as file:
        for part in parts:
            for line in part:
                row = len(keys)
                begins.append(begins[-1] + file.write(json.dumps(line).encode() + b"\n"))
                keys.append(line["key"].encode())
                age = line["age"]
                ages.append(np.nan if age is None else age)
                sexes.append(SEXES.index(line["sex"]) if line["sex"] in SEXES else _UNKNOWN)
                splits.append(SPLITS.index(line["split"]))
                for terms, name in ((findings, "findings"), (statements, "statements")):
                    for term in dict.fromkeys(line[name]):
                        terms.setdefault(term, array("i")).append(row)
    rows = [*findings.values(), *statements.values()]
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    np.savez(
        folder / COLUMNS,
        begins=np.array(begins, np.int64),
        keys=np.array(keys),
        ages=np.array(ages, np.float32),
        sexes=np.array(sexes, np.int8),
        splits=np.array(splits, np.int8),
        rows=np.concatenate([np.array(one, np.int32) for one in rows] or [np.empty(0, np.int32)]),
        ends=ends,
    )
    names = {"findings": [*findings], "statements": [*statements]}
    (folder / TERMS).write_text(json.dumps(names), encoding="utf-8")
    return len(keys)


def _concept(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().casefold())
