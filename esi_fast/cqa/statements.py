"""Reads what machines and cardiologists write under an ECG: statements become concepts.

One line may say several things ("Sinus rhythm with PVCs"), hedge them ("possible"), date them
("age undetermined"), place them ("inferior") or explain them ("consider acute infarct"). All of
this is kept; what cannot be read is kept word for word and never elaborated.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from esi_fast.cqa import wording
from esi_fast.cqa.concepts import codes
from esi_fast.cqa.folding import fold_line
from esi_fast.cqa.reading import NOT_FINDINGS, Statement, read_line, unread_line

__all__ = ["NOT_FINDINGS", "Statement", "normalize", "statements_of"]


@lru_cache(maxsize=65536)
def _normalized(text: str) -> tuple[Statement, ...]:
    raw = text.strip()
    code = codes().get(raw)
    if code is not None:
        return tuple(replace(statement, raw=text) for statement in _normalized(code))
    if re.fullmatch(r"(?:#? ?Dx: ?)?\d{6,}(?: ?, ?\d{6,})+|#? ?Dx: ?\d{6,}", raw):
        found: list[Statement] = []
        for number in re.findall(r"\d{6,}", raw):
            found.extend(replace(statement, raw=text) for statement in _normalized(number))
        return tuple(found)
    folded, beyond = fold_line(raw)
    if not folded and not beyond:
        return ()
    said = read_line(folded, text)
    if not beyond:
        return tuple(said)
    if not any(statement.is_finding or statement.negated for statement in said):
        return (unread_line(f"{folded} {beyond}", text),)
    last = said[-1]
    return (*said[:-1], replace(last, remainder=f"{last.remainder} {beyond}".strip()))


def normalize(text: str) -> list[Statement]:
    """Every statement that one report line makes, in the line's order.

    Also reads an SCP-ECG code of PTB-XL ("IMI") and SNOMED CT codes of CinC 2021 ("426783006",
    "Dx: 427084000,59931005").

    Args:
        text: the line; case, stars, dashes, device codes and final dots do not matter.

    Returns:
        Statements; a blank line gives none. A line that says nothing known gives one statement
        of kind "unknown" (or "fragment", when it only modifies another: "age undetermined").
    """
    return list(_normalized(text))


@lru_cache(maxsize=65536)
def statements_of(raw_lines: tuple[str, ...]) -> tuple[Statement, ...]:
    """What the lines of one report say, one after the other.

    A line that continues the one before it ("with rapid ventricular response", "age
    undetermined", "OR ABERRANT CONDUCTION") is read together with it, across blank lines and
    technical notices, but not across a summary or a line that could not be read.
    """
    parts: list[tuple[str, tuple[Statement, ...]]] = []
    head: int | None = None
    for line in raw_lines:
        said = _normalized(line)
        if not said:
            continue
        if head is not None and (joint := _joint(*parts[head], line, said)) is not None:
            joined = f"{parts[head][0]}{joint}{line.strip()}"
            parts[head] = (joined, _normalized(joined))
            continue
        parts.append((line, said))
        compares = said[0].kind == "technical" and wording.COMPARES.match(fold_line(line)[0])
        if said[-1].kind != "technical" or compares:
            head = len(parts) - 1
    return tuple(statement for _, statements in parts for statement in statements)


def _joint(
    before: str, said: tuple[Statement, ...], line: str, own: tuple[Statement, ...]
) -> str | None:
    """What joins a line to the one before it, of which it is a part; None for a line of its own."""
    folded, _ = fold_line(line)
    if said[0].kind == "technical":
        return " " if wording.CHANGED.search(folded) else None
    if not any(one.is_finding or one.negated for one in said):
        return None
    if any(one.kind in ("technical", "summary") for one in own):
        return None
    if wording.CONTINUES.match(folded) or wording.OPEN_END.search(before[-40:].casefold()):
        return " "
    (first, *_) = own
    says_more = first.certainty != "definite" or first.acuity or first.degree or first.territory
    if first.kind == "fragment" and (says_more or first.rate_response or first.leads):
        return ", "
    return None
