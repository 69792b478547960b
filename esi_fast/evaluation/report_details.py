"""What a task notes beside its scores, as sentences and tables of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esi_fast.evaluation.document import Table


def detail_lines(task: Mapping[str, Any]) -> list[str]:
    """What a task says of itself that fits a line."""
    details = task["details"].items()
    plain = [f"{_words(k)}: {_cell(v)}" for k, v in details if isinstance(v, str | int | float)]
    return [f"{'; '.join(plain)}."] if plain else []


def detail_tables(task: Mapping[str, Any]) -> tuple[Table, ...]:
    """What a task says of its contenders or labels: a row each."""
    tables, rest = [], {}
    for name, value in task["details"].items():
        if isinstance(value, Mapping):
            if value and all(isinstance(one, Mapping) for one in value.values()):
                tables.append(_detail_table(name, value))
            elif value and all(isinstance(one, list) for one in value.values()):
                rows = {row: {"": " | ".join(map(str, one))} for row, one in value.items()}
                tables.append(_detail_table(name, rows))
            else:
                parts = [one for one in value.values() if isinstance(one, Mapping)]
                rest[name] = {k: v for part in (value, *parts) for k, v in part.items()}
    return (*tables, *([_detail_table("", rest)] if rest else []))


def _detail_table(name: str, rows: Mapping[str, Any]) -> Table:
    """Columns are what the rows hold beside what has a structure of its own."""
    plain = {
        row: {k: v for k, v in cells.items() if not isinstance(v, Mapping | list)}
        for row, cells in rows.items()
    }
    columns = tuple(dict.fromkeys(column for cells in plain.values() for column in cells))
    return Table(
        (_words(name), *map(_words, columns)),
        tuple(
            (_words(row), *(_cell(cells.get(c)) for c in columns)) for row, cells in plain.items()
        ),
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
