"""The caption dictionary: one description per canonical statement, as JSON lines on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from esi_fast.cqa.polarity import claims_of
from esi_fast.cqa.whole_file import whole_file


@dataclass(frozen=True)
class Description:
    """One line of the dictionary.

    Attributes:
        statement: the canonical statement, as ``phrases.phrase`` words it: the key.
        concept, kind, certainty, acuity, territory, degree: as in ``Statement``.
        text: what the ECG shows, or "" where the bare statement stands for itself.
        paraphrases: the same in other words, for captions to choose from.
        sources: ids of the passages that it rests on.
        backend: what wrote it: a generator's name, or "statement" for the bare statement.
        model: the generator's model.
        prompt_sha256: hash of all that the generator was given; "" for the bare statement.
        checks: names of the checks that the text and its paraphrases passed.
        failures: reasons of failed attempts before it, "backend: check: reason".
    """

    statement: str
    concept: str
    kind: str
    certainty: str
    acuity: str | None = None
    territory: tuple[str, ...] = ()
    degree: str | None = None
    text: str = ""
    paraphrases: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    backend: str = "statement"
    model: str = ""
    prompt_sha256: str = ""
    checks: tuple[str, ...] = ()
    failures: tuple[str, ...] = field(default=())

    @cached_property
    def texts(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The text and its paraphrases, each with what it asserts (``polarity.claims_of``)."""
        worded = (self.text, *self.paraphrases) if self.text else ()
        return tuple((one, claims_of(one)) for one in worded)


_FIELDS = tuple(Description.__dataclass_fields__)
_SEQUENCES = ("territory", "paraphrases", "sources", "checks", "failures")


class CaptionDictionary:
    """Descriptions by canonical statement.

    Args:
        descriptions: in any order; a statement may occur once.

    Raises:
        ValueError: a statement occurs twice.
    """

    def __init__(self, descriptions: Iterable[Description]) -> None:
        self._by_statement: dict[str, Description] = {}
        for description in descriptions:
            if description.statement in self._by_statement:
                raise ValueError(f"statement {description.statement!r} is described twice")
            self._by_statement[description.statement] = description

    def __len__(self) -> int:
        return len(self._by_statement)

    def __iter__(self) -> Iterator[Description]:
        return iter(self._by_statement.values())

    def get(self, statement: str) -> Description | None:
        """The description of a canonical statement, or None."""
        return self._by_statement.get(statement)

    @classmethod
    def load(cls, path: str | Path) -> CaptionDictionary:
        """Reads a file that ``save`` (tools/caption) wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line is no description; the message names it.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no caption dictionary {path}; tools/caption writes one")
        found: dict[str, Description] = {}
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 text: {error.reason}") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                one = _parse(line, where)
                if found.setdefault(one.statement, one) is not one:
                    raise ValueError(f"{where}: statement {one.statement!r} is described twice")
        if not found:
            raise ValueError(f"{path} holds no description; write it anew with tools/caption")
        return cls(found.values())

    def save(self, path: str | Path) -> None:
        """Writes JSON lines, sorted by statement; the file appears whole or not at all."""
        ordered: Sequence[Description] = sorted(self, key=lambda one: one.statement)
        with whole_file(Path(path)) as file:
            for one in ordered:
                row = {name: getattr(one, name) for name in _FIELDS}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _parse(line: str, where: str) -> Description:
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deep")
        raise ValueError(
            f"{where}: not JSON ({reason}); write it again with tools/caption"
        ) from None
    if not isinstance(row, dict) or not isinstance(row.get("statement"), str):
        raise ValueError(f"{where}: lacks a statement; write it again with tools/caption")
    unknown = sorted(set(row) - set(_FIELDS))
    missing = sorted({"concept", "kind", "certainty", "text"} - set(row))
    if unknown or missing:
        fault = f"unknown field(s) {unknown}" if unknown else f"lacks {missing}"
        raise ValueError(f"{where}: {fault}; write it again with tools/caption")
    for name, value in row.items():
        if not _is_of_its_type(name, value):
            wanted = "a list of strings" if name in _SEQUENCES else "a string"
            fault = f"{name} is {repr(value)[:60]}, not {wanted}"
            raise ValueError(f"{where}: {fault}; write it again with tools/caption")
        row[name] = tuple(value) if name in _SEQUENCES else value
    return Description(**row)


def _is_of_its_type(name: str, value: object) -> bool:
    if name in _SEQUENCES:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) or (value is None and name in ("acuity", "degree"))
