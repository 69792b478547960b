"""How much of a set of report lines the normaliser can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from esi_fast.cqa.statements import normalize


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts over report lines.

    Attributes:
        lines: distinct lines.
        statements: lines with repetitions.
        unknown: lines that could not be read, with their counts, the commonest first.
        partly_read: distinct lines of which words were left over.
        technical: notices with repetitions.
    """

    lines: int
    statements: int
    unknown: tuple[tuple[str, int], ...]
    partly_read: int
    technical: int

    @property
    def share_read(self) -> float:
        """Share of distinct lines that were read, 0 to 1; 1 when there is none."""
        return 1.0 - len(self.unknown) / self.lines if self.lines else 1.0


def coverage_of(lines: Mapping[str, int]) -> Coverage:
    """Coverage of report lines given with how often each occurs."""
    unknown: Counter[str] = Counter()
    partly_read = technical = 0
    for line, count in lines.items():
        said = normalize(line)
        kinds = {statement.kind for statement in said}
        if "unknown" in kinds:
            unknown[line] = count
        elif any(statement.remainder for statement in said):
            partly_read += 1
        technical += count if "technical" in kinds else 0
    return Coverage(
        lines=len(lines),
        statements=sum(lines.values()),
        unknown=tuple(unknown.most_common()),
        partly_read=partly_read,
        technical=technical,
    )
