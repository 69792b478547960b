"""Leads and walls that a text names, by their names ("V2 to V4") or in words ("lead two")."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from esi_fast.cqa.concepts import WALL_LEADS, WALLS_OF_WORD
from esi_fast.leads import STANDARD_LEADS

_LIMB, _CHEST = STANDARD_LEADS[:6], STANDARD_LEADS[6:]
_BY_FOLD = {lead.casefold(): lead for lead in STANDARD_LEADS}
_NUMERALS = ("I", "II", "III")
_DIGITS = ("one", "two", "three", "four", "five", "six")
_DIGIT_OF = {word: index for index, word in enumerate(_DIGITS, start=1)}
_DIGIT_OF |= {str(index): index for index in range(1, 7)}

_DASH = r"\s*(?:-|\u2013|\u2014|/|to|through|thru|until|and|,)\s*"
_RANGE = r"\s*(?:-|\u2013|\u2014|to|through|thru|until)\s*"
# No leads.
_TYPE = re.compile(r"\b(?:Mobitz|type)(?:[ -]type)? I{1,2}(?: (?:or|and) I{1,2})?\b", re.IGNORECASE)
_CHEST_IN_WORDS = re.compile(rf"\bV[- ]({'|'.join(_DIGITS)})\b", re.IGNORECASE)
_CHEST_RANGE = re.compile(rf"\bV([1-6]){_RANGE}V?([1-6])\b(?![.:%]\d)", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:aV[RLF]|V[1-6]|I{1,3})\b", re.IGNORECASE)
_LIMB_RANGE = re.compile(rf"\b(I{{1,2}}){_RANGE}(I{{2,3}})\b")
_ONE_LIMB = r"(?:one|two|three|i{1,3}|[1-3])"
_LIMB_IN_WORDS = re.compile(
    rf"\bleads? ({_ONE_LIMB}(?:(?:{_DASH})+{_ONE_LIMB}\b)*)\b", re.IGNORECASE
)
# Beyond the twelve: posterior and right-sided leads.
_BEYOND = re.compile(r"\b(?:V[7-9]|V[1-6]R|rV[1-6])\b", re.IGNORECASE)

_LEAD = r"(?:ecg |12 |twelve )?(?:leads?|electrodes?|derivations?)"
_ALL = r"(?:all|every(?: one of)?|each(?: of)?|throughout|any)(?: of)?(?: the)?(?: (?:12|twelve))?"
_HAS_GROUP = re.compile(r"lead|electrode|derivation|precordi|everywhere|whole|widespread|diffuse")
# The first that fits wins; what it matched is not read again.
_GROUPS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("V1", "V2", "V3"), rf"right(?:-sided)?[ -](?:precordial|chest)[ -]{_LEAD}|right precordium"),
    (("V4", "V5", "V6"), rf"left(?:-sided)?[ -](?:precordial|chest)[ -]{_LEAD}|left precordium"),
    (("V3", "V4"), rf"mid[ -]?(?:dle )?(?:precordial|chest)[ -]{_LEAD}"),
    (_CHEST, rf"(?:precordial|chest|horizontal[ -]plane|v|thoracic)[ -]{_LEAD}|(?:the|across the)"
             r" precordium|all precordial|precordially"),
    (("aVR", "aVL", "aVF"), rf"augmented (?:limb )?{_LEAD}|unipolar limb {_LEAD}"),
    (("I", "II", "III"), rf"(?:bipolar|standard)(?: limb)? {_LEAD}"),
    (_LIMB, rf"(?:limb|extremity|frontal(?:[ -]plane)?)[ -]{_LEAD}"),
    (("I", "aVL"), rf"high[ -]lateral[ -]{_LEAD}"),
    (STANDARD_LEADS, rf"{_ALL} {_LEAD}|(?:12|twelve)[ -]leads? (?:show|have|are)\w*"
                     rf"|everywhere|whole (?:tracing|ecg)"),
)  # fmt: skip
_GROUP_PATTERNS = tuple((leads, re.compile(rf"\b(?:{words})\b")) for leads, words in _GROUPS)
_WALL_WORD = re.compile(rf"\b(?:{'|'.join(sorted(set(WALLS_OF_WORD) - {'high'}, key=len))})\b")
# The wall words that stand before leads name these leads: "inferior and lateral leads".
_WALL_GROUP = re.compile(
    rf"\b((?:{_WALL_WORD.pattern}|and|or|,|[ -])+)[ -]{_LEAD}\b", re.IGNORECASE
)
_SPREAD = re.compile(
    rf"\b(?:most|nearly all|almost all|many|nearly every|almost every)(?: of)?(?: the)? {_LEAD}\b"
    r"|\bwidespread\b|\bdiffuse(?:ly)?\b"
)


class Groups(NamedTuple):
    """Leads that a text names in words.

    Attributes:
        regions: leads of a plane or of a part of the chest, by the words.
        walls: leads of walls, by the words.
        spread: words that say most leads, or "".
    """

    regions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    walls: tuple[tuple[str, tuple[str, ...]], ...] = ()
    spread: str = ""


@lru_cache(maxsize=4096)
def leads_named(text: str) -> frozenset[str]:
    """Leads that a text names one by one, ranges written out; also such as "V8" and "V4R"."""
    text = _CHEST_IN_WORDS.sub(lambda one: f"V{_DIGIT_OF[one[1].casefold()]}", _TYPE.sub(" ", text))
    named = {beyond.upper() for beyond in _BEYOND.findall(text)}
    named |= {_BY_FOLD[lead.casefold()] for lead in _NAMED.findall(text) if lead != "i"}
    for first, last in _CHEST_RANGE.findall(text):
        named |= {f"V{number}" for number in range(int(first), int(last) + 1)}
    for first, last in _LIMB_RANGE.findall(text):
        named |= set(_NUMERALS[len(first) - 1 : len(last)])
    for words in _LIMB_IN_WORDS.findall(text):
        named |= _limb_leads(words.casefold())
    return frozenset(named)


def _limb_leads(words: str) -> set[str]:
    """Leads of "two and three" or "i to iii" behind the word lead."""
    numbers = [
        len(word) if set(word) == {"i"} else _DIGIT_OF[word]
        for word in re.findall(_ONE_LIMB, words)
    ]
    if re.search(_RANGE, words):
        numbers = list(range(min(numbers), max(numbers) + 1))
    return {_NUMERALS[number - 1] for number in numbers}


@lru_cache(maxsize=4096)
def groups_named(text: str) -> Groups:
    """Groups of leads that a text names: "the limb leads", "every lead", "inferior leads"."""
    text = text.casefold()
    if not _HAS_GROUP.search(text):
        return Groups()
    regions, walls = [], []
    spread = _SPREAD.search(text)
    text = _SPREAD.sub(" ", text)
    for leads, pattern in _GROUP_PATTERNS:
        regions += [(words, leads) for words in pattern.findall(text)]
        text = pattern.sub(" ", text)
    for match in _WALL_GROUP.finditer(text):
        of_walls = {wall for word in _WALL_WORD.findall(match[1]) for wall in WALLS_OF_WORD[word]}
        named = {lead for wall in of_walls for lead in WALL_LEADS[wall]}
        if named:
            walls.append((match[0], tuple(one for one in STANDARD_LEADS if one in named)))
    return Groups(tuple(regions), tuple(walls), spread[0] if spread else "")


def walls_named(text: str) -> set[str]:
    """Walls of the heart that a text names."""
    words = _WALL_WORD.findall(text.casefold())
    return {wall for word in words for wall in WALLS_OF_WORD[word]}
