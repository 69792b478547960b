"""How much of a set of report lines the normaliser can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from esi_fast.cqa.statements import normalize


@dataclass(frozen=True, slots=True)
class LineRead:
    """A report line that was not read whole.

    Attributes:
        line: the line.
        count: how often it occurs.
        concepts: what it was read as; none of an unknown line.
        remainder: its words that were not understood.
    """

    line: str
    count: int
    concepts: tuple[str, ...]
    remainder: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts over report lines.

    Attributes:
        lines: distinct lines.
        statements: lines with repetitions.
        unknown: lines that could not be read, with their counts, the commonest first.
        partly_read: distinct lines of which words were left over.
        technical: notices with repetitions.
        rows: the unknown and the partly read lines, the commonest first.
    """

    lines: int
    statements: int
    unknown: tuple[tuple[str, int], ...]
    partly_read: int
    technical: int
    rows: tuple[LineRead, ...] = ()

    @property
    def share_read(self) -> float:
        """Share of distinct lines that were read, 0 to 1; 1 when there is none."""
        return 1.0 - len(self.unknown) / self.lines if self.lines else 1.0

    @property
    def share_of_statements_read(self) -> float:
        """Share of lines with repetitions that were read, 0 to 1; 1 when there is none."""
        unread = sum(count for _, count in self.unknown)
        return 1.0 - unread / self.statements if self.statements else 1.0


def coverage_of(lines: Mapping[str, int]) -> Coverage:
    """Coverage of report lines given with how often each occurs."""
    rows = []
    technical = 0
    for line, count in lines.items():
        said = normalize(line)
        technical += count if any(one.kind == "technical" for one in said) else 0
        remainder = " ".join(one.remainder for one in said if one.remainder)
        is_unknown = any(one.kind == "unknown" for one in said)
        if is_unknown or remainder:
            concepts = () if is_unknown else tuple(one.concept for one in said)
            rows.append(LineRead(line, count, concepts, remainder))
    rows.sort(key=lambda row: (-row.count, row.line))
    unknown = tuple((row.line, row.count) for row in rows if not row.concepts)
    return Coverage(
        lines=len(lines),
        statements=sum(lines.values()),
        unknown=unknown,
        partly_read=len(rows) - len(unknown),
        technical=technical,
        rows=tuple(rows),
    )
