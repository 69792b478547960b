"""Which unread report lines a caption may quote: those that can name nobody.

A line of free text may hold a person's name, a date or an id. It is quoted only if every word of
it is one of the built-in passages' or of the concept table's, and no digits may identify.
"""

from __future__ import annotations

import re
from functools import lru_cache

from esi_fast.cqa.concepts import WALLS_OF_WORD, concept_words
from esi_fast.cqa.folding import FILLER, NAMES
from esi_fast.cqa.knowledge import passages
from esi_fast.cqa.reading import Statement
from esi_fast.leads import canonical_lead

# Digits may be a date, a name's number or an id.
_DIGITS = re.compile(r"\d{3,}|\d[/.-]\d")
# Where a person is spoken of, an ordinary word ("Young", "White") may be a name.
_PERSON = re.compile(
    r"\b(?:mr|mrs|ms|miss|dr|prof\w*|md|do|rn|np|pa|name[ds]?|patient'?s?|pt|physician|doctor"
    r"|nurse|tech(?:nician)?|operator|attending|referr\w*|order\w*|report\w*|call\w*|notif\w*"
    r"|born|dob|birth\w*|address|phone|mrn|id|room|bed|ward|hospital|clinic|by|son|daughter"
    r"|wife|husband|mother|father|he|she|his|her)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def may_be_quoted(statement: Statement) -> bool:
    """Whether a statement could not be read and its line can name nobody."""
    line = statement.raw
    if statement.kind != "unknown" or _DIGITS.search(line) or _PERSON.search(line):
        return False
    words = _WORD.findall(line)
    # Amid a sentence a capital begins a name, or is an abbreviation or a lead.
    named = any(word.istitle() and len(word) > 1 and not _is_lead(word) for word in words[1:])
    return not named and all(_is_known(word.casefold()) for word in words)


def _is_lead(word: str) -> bool:
    return canonical_lead(word) is not None


def _is_known(word: str) -> bool:
    known = _vocabulary()
    return word in known or word.removesuffix("s") in known or _is_lead(word)


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    """Lower-case words: a passage's capitals are those of Brugada, White or Wolff."""
    words = set(FILLER) | concept_words() | set(WALLS_OF_WORD)
    for passage in passages():
        words |= {word for word in _WORD.findall(passage.text) if word.islower()}
    return frozenset(words - NAMES)
