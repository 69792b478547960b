"""Findings in words: the phrase of a statement, and the sentences that captions build of it."""

from __future__ import annotations

from functools import lru_cache

from esi_fast.cqa.concepts import display_name, split_concept
from esi_fast.cqa.statements import Statement

_CERTAINTY = {
    "definite": "",
    "probable": "probable ",
    "possible": "possible ",
    "consider": "consider ",
    "cannot_rule_out": "cannot rule out ",
    "borderline": "borderline ",
    "nonspecific": "nonspecific ",
}
_ACUITY_BEFORE = {"acute": "acute ", "recent": "recent ", "old": "old "}
_ACUITY_AFTER = {"undetermined": " of undetermined age", "possibly_acute": ", possibly acute"}
_AMOUNTS = frozenset(
    {
        "marked",
        "moderate",
        "mild",
        "minimal",
        "minor",
        "severe",
        "frequent",
        "occasional",
        "multiple",
        "isolated",
        "extensive",
        "multiform",
        "multifocal",
        "paired",
        "diffuse",
        "rare",
        "single",
        "polymorphic",
        "monomorphic",
        "uniform",
        "widespread",
    }
)
_AMOUNTS_AFTER = {
    "couplet": " in couplets",
    "triplet": " in triplets",
    "consecutive": ", consecutive",
}
# The plain form often: half of the sentences are the shortest.
FRAMES = (
    "{}.",
    "{}.",
    "{}.",
    "{}.",
    "The ECG shows {}.",
    "Finding: {}.",
    "This tracing shows {}.",
    "Impression: {}.",
)
# "The ECG shows cannot rule out ..." is no sentence.
_PLAIN_ONLY = ("consider", "cannot_rule_out")
_NOTICES = {
    "lead_reversal": "possible lead reversal",
    "artifact": "recording quality limited",
    "notice": "",
}


@lru_cache(maxsize=65536)
def phrase(statement: Statement) -> str:
    """A statement in canonical words, its certainty, age, degree, rate and cause kept.

    The concept's ``display_name`` occurs in it. Two lines that say the same give the same phrase.
    A technical notice gives what it limits in the recording, or "" when it limits nothing.
    """
    if statement.kind == "technical":
        if statement.base != "unsuitable_leads":
            return _NOTICES[statement.base]
        leads = statement.leads
        return f"recording limited in {' '.join(leads)}" if leads else "recording limited"
    name = display_name(statement.concept)
    if statement.kind in ("unknown", "fragment"):
        return name
    degree = statement.degree or ""
    amount = f"{degree} " if degree in _AMOUNTS else ""
    acuity = _ACUITY_BEFORE.get(statement.acuity or "", "")
    words = f"{_CERTAINTY[statement.certainty]}{amount}{acuity}{name}"
    words += _ACUITY_AFTER.get(statement.acuity or "", "") + _AMOUNTS_AFTER.get(degree, "")
    if ":" in degree or degree == "variable":
        words += f" with {degree} conduction"
    if statement.rate_response:
        words += f" with {statement.rate_response} ventricular response"
    return f"{words}, {statement.cause}" if statement.cause else words


@lru_cache(maxsize=65536)
def sentence(frame: str, words: str) -> str:
    """The words in one of FRAMES, as a sentence."""
    filled = frame.format(words)
    return filled[0].upper() + filled[1:]


def frame_for(statement: Statement, choice: int) -> str:
    """A frame by any number, or the plain one where no other makes a sentence."""
    plain = statement.certainty in _PLAIN_ONLY
    return FRAMES[0] if plain else FRAMES[choice % len(FRAMES)]


def prompts_for(concept: str) -> tuple[str, ...]:
    """Short zero-shot prompts in the very sentences in which captions state that finding.

    Args:
        concept: a name that ``findings_of`` gives, for example "anterior_st_elevation".

    Raises:
        ValueError: the concept table does not know it.
    """
    split_concept(concept)
    name = display_name(concept)
    return tuple(dict.fromkeys(sentence(frame, name) for frame in FRAMES))
