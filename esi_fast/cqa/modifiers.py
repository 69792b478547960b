"""Reads the words beside a finding: how sure, how old, where, how much, and what stays unread."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from esi_fast.cqa import wording
from esi_fast.cqa.concepts import WALLS_OF_WORD, ordered_walls
from esi_fast.cqa.folding import FILLER
from esi_fast.leads import STANDARD_LEADS, canonical_lead

_INFERIOR, _LATERAL = frozenset({"II", "III", "aVF"}), frozenset({"I", "aVL", "V5", "V6"})
_ANTERIOR = frozenset({"V1", "V2", "V3", "V4"})


@dataclass(slots=True)
class Tail:
    """What the words behind a concept say of it, and what they leave unread."""

    rest: str
    certainty: str | None = None
    acuity: str | None = None
    degree: str | None = None
    rate_response: str | None = None
    walls: set[str] = field(default_factory=set)
    leads: tuple[str, ...] = ()
    is_normal_variant: bool = False


def tail_of(after: str, is_last: bool) -> Tail:
    """Reads modifiers behind a concept until a word comes that may belong to the next one."""
    tail = Tail(after)
    while True:
        unread = tail.rest
        if found := wording.PLACED_AFTER.match(tail.rest):
            tail.walls |= walls_in(found["walls"] or "")
            tail.leads += leads_in(found["leads"] or "")
            tail.rest = tail.rest[found.end() :]
        if found := wording.AFTER.match(tail.rest):
            tail.is_normal_variant |= bool(found["variant"])
            if found["certainty"] and tail.certainty is None:
                tail.certainty, _ = take(wording.CERTAINTY, found["certainty"])
            tail.rest = tail.rest[found.end() :]
        stripped = tail.rest.lstrip(" ,'")
        for name, pattern in wording.ACUITY:
            found = pattern.match(stripped)
            # "old" right before the next concept is the next one's.
            if found and (
                is_last
                or name == "undetermined"
                or re.match(r" ,| and | with | or ", stripped[found.end() :])
            ):
                tail.acuity = tail.acuity or name
                tail.rest = stripped = stripped[found.end() :]
        if found := wording.RATE_RESPONSE.match(stripped):
            tail.rate_response, tail.rest = rate_of(found), stripped[found.end() :]
        if found := wording.RATIO_AFTER.match(tail.rest):
            tail.degree, tail.rest = tail.degree or found[1], tail.rest[found.end() :]
        if tail.rest == unread:
            break
    if is_last:
        if found := wording.RATE_RESPONSE.search(tail.rest):
            tail.rate_response = tail.rate_response or rate_of(found)
            tail.rest = wording.RATE_RESPONSE.sub(" ", tail.rest)
        if found := wording.DEGREE.search(tail.rest):
            tail.degree = tail.degree or found[1]
    return tail


def rate_of(match: re.Match[str]) -> str:
    """The rate response that RATE_RESPONSE found, by its plain name."""
    return wording.RATES.get(match[1], match[1])


def walls_in(text: str) -> set[str]:
    """The walls that a text names."""
    words = wording.WALL_WORD.findall(text)
    return {wall for word in words for wall in WALLS_OF_WORD[word]}


def take(table: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> tuple[str | None, str]:
    """The first name of the table whose words the text holds, and the text without all such."""
    taken = None
    for name, pattern in table:
        text, count = pattern.subn(" ", text)
        if count:
            taken = taken or name
    return taken, text


def leads_in(text: str) -> tuple[str, ...]:
    """The standard leads that a text names, in their order."""
    named = {canonical_lead(word) for word in text.split()}
    return tuple(lead for lead in STANDARD_LEADS if lead in named)


def walls_of_leads(leads: tuple[str, ...]) -> tuple[str, ...]:
    """The walls that all of the leads look at; none where they look at opposite ones."""
    named = set(leads)
    if not named:
        return ()
    for wall, of_wall in (("inferior", _INFERIOR), ("lateral", _LATERAL), ("anterior", _ANTERIOR)):
        if named <= of_wall:
            return (wall,)
    # One inferior lead among lateral ones ("I, II, V5, V6") says nothing of the inferior wall.
    if named <= _INFERIOR | _LATERAL and len(named & _INFERIOR) > 1:
        return ("inferior", "lateral")
    return () if named & (_INFERIOR | {"aVR"}) else ("anterior", "lateral")


def territory_of(before: str, tail: Tail) -> tuple[str, ...]:
    """The walls that the words around a concept name, or else those that its leads look at."""
    return ordered_walls(walls_in(before) | tail.walls) or walls_of_leads(tail.leads)


def unread(text: str, qualifiers: Collection[str] = ()) -> str:
    """The words of a text that are neither modifiers nor filler."""
    for pattern in (wording.DEGREE, wording.WALL_WORD, wording.RATE_RESPONSE, wording.LINK):
        text = pattern.sub(" ", text)
    words = [word for word in re.findall(r"[\w']+", text) if word not in FILLER]
    return " ".join(
        word for word in words if word not in qualifiers and not re.fullmatch(wording.LEAD, word)
    )
