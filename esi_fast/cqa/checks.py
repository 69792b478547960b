"""Checks that every description must pass, whatever wrote it: a text that fails is never used.

Each check takes the text and what it may draw on, and returns "" when it passes or the reason
why not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from esi_fast.cqa.bedside import ADVICE, DISEASE
from esi_fast.cqa.certainty import age_fault, hedge_fault
from esi_fast.cqa.concepts import WALL_LEADS, concepts, display_name, find_concepts
from esi_fast.cqa.folding import fold
from esi_fast.cqa.lead_words import groups_named, leads_named, walls_named
from esi_fast.cqa.polarity import contradictions
from esi_fast.cqa.quantities import quantities
from esi_fast.cqa.statements import NOT_FINDINGS, Statement, normalize
from esi_fast.leads import STANDARD_LEADS

MIN_WORDS, MAX_WORDS = 3, 60
# What the ventricles do in any rhythm, which is no ventricular rhythm.
_VENTRICLES = re.compile(r"\bthe ventricular (?:rhythm|rate|response)\b", re.IGNORECASE)
# A run of as many words that a text shares with a passage is a copy.
COPIED_WORDS = 12


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a description of one statement may draw on.

    Attributes:
        statement: the statement that is described.
        passages: texts of the cited passages.
        leads: leads that the passages give for the concept.
        mentions: further concepts that the passages let the description name.
        measurements: measured values that may be quoted; none in a dictionary.
    """

    statement: Statement
    passages: tuple[str, ...] = ()
    leads: Collection[str] = ()
    mentions: Collection[str] = ()
    measurements: Mapping[str, float] = field(default_factory=dict)


_UNIT_OF_MEASUREMENT = {"heart_rate": "bpm", "qrs_axis": "degrees", "p_axis": "degrees"}
_RATIO = re.compile(r"(?<!\d)\d+:\d+(?!\d)")
_OPPOSITE = {"min": "max", "max": "min"}
_BOUND_WORDS = {"min": "at least", "max": "at most"}
_REFUSAL = re.compile(
    r"\bas an? (?:ai|language model|assistant)\b"
    r"|\bi(?:'m| am| cannot| can't| do not| don't| have)\b"
    r"|\bsorry\b|\bunable to\b|\bcontext\b|\bpassages?\b|\bprompt\b|\binstructions?\b"
    r"|\bnot (?:provided|mentioned|enough information)\b|\bpotential ecg\b|\becg waveform for\b"
    r"|\bsure[,!]|\bof course\b|\bcertainly[,!]|\bhere(?: is|'s)\b|\blet me know\b|\bignore\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"[\n\r\t<>{}|`*#\[\]\\_]|https?:|www\.|[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_SENTENCE = re.compile(r"(?<=[.;])\s+")
_UNLIKELY = re.compile(
    r"\b(?:unlikely|improbable|implausible|doubtful|refuted|disproved|(?<!not )(?<!not be )"
    r"(?<!cannot be )(?:excluded|ruled out))\b",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"\b(?:fig(?:ure)?|table|chapter|page|ecg|section|strip)s?\.? ?\d|\bet al\b|\b(?:19|20)\d\d\b"
    r"|\btextbook\b|\baccording to\b|\bguideline",
    re.IGNORECASE,
)
_GENERIC = re.compile(
    r"\b(?:often|usually|typically|at times|sometimes|mostly|commonly|generally"
    r"|frequently|as a rule|characteristically|in (?:most|some|many) cases|tends? to)\b"
    r"|\bcan (?:be|also|have|show|include|occur|appear)\b",
    re.IGNORECASE,
)
_MAY = re.compile(r"\b(?:may|might|could)\b", re.IGNORECASE)
_WORD = re.compile(r"[\w'-]+")


def check_numbers(text: str, allowed: Allowed) -> str:
    """Every number must stand in a cited passage, with its unit and direction, or be measured."""
    cited = quantities(" ".join(allowed.passages))
    measured = [
        (value, _UNIT_OF_MEASUREMENT.get(name, "ms"))
        for name, value in allowed.measurements.items()
    ]
    for value, unit, bound in quantities(text):
        number = f"{value:g} {unit}".strip()
        bounds = {one.bound for one in cited if one.value == value and unit in ("", one.kind)}
        is_measured = any(
            abs(value - known) <= 1.0 and unit in ("", its) for known, its in measured
        )
        if not bounds and not is_measured:
            return f"number {number} stands in no cited passage and is not measured"
        if bound not in bounds and _OPPOSITE.get(bound) in bounds:
            return f"says {_BOUND_WORDS[bound]} {number}, where the passage says the reverse"
    ratios = {allowed.statement.degree, *_RATIO.findall(" ".join(allowed.passages))}
    for ratio in _RATIO.findall(text):
        if ratio not in ratios:
            return f"ratio {ratio} stands neither in the statement nor in a cited passage"
    return ""


def check_territory(text: str, allowed: Allowed) -> str:
    """Leads and walls must belong to the statement or to the cited passages."""
    statement = allowed.statement
    leads = set(allowed.leads) | set(statement.leads)
    for wall in statement.territory:
        leads |= set(WALL_LEADS[wall])
    beyond = leads_named(" ".join(allowed.passages)) - set(STANDARD_LEADS)
    if foreign := sorted(leads_named(text) - leads - beyond):
        return f"names lead(s) {', '.join(foreign)} outside {statement.concept}"
    groups = groups_named(text)
    for words, named in groups.walls:
        if not leads.issuperset(named):
            return f"names {words!r} outside {statement.concept}"
    is_placed = bool(statement.territory or statement.leads)
    if is_placed and groups.spread:
        return f"says {groups.spread!r} of {statement.concept}"
    cited = {named for _, named in groups_named(" ".join(allowed.passages)).regions}
    for words, named in groups.regions:
        # A region that no passage names may stand for some of its leads, where no place is given.
        is_part = named != STANDARD_LEADS and not leads.isdisjoint(named)
        if not leads.issuperset(named) and (is_placed or not (named in cited or is_part)):
            return f"names {words!r} outside {statement.concept}"
    is_of_walls = statement.base in concepts() and concepts()[statement.base].walls
    walls = walls_named(text) - set(statement.territory)
    if walls and (statement.territory or (is_of_walls and not is_placed)):
        return f"names {', '.join(sorted(walls))} wall"
    return ""


def check_certainty(text: str, allowed: Allowed) -> str:
    """A hedged statement needs its hedge beside the finding; a definite one gets no doubt."""
    return hedge_fault(text, allowed.statement)


def check_acuity(text: str, allowed: Allowed) -> str:
    """An infarct is as old as the statement says, and undated where it does not say."""
    return age_fault(text, allowed.statement)


def check_polarity(text: str, allowed: Allowed) -> str:
    """Nothing that contradicts the statement ("P wave before each QRS" in atrial fibrillation)."""
    statement = allowed.statement
    if not statement.is_finding:
        return ""
    if clash := contradictions(text, statement.concept, statement.acuity):
        return f"says {', '.join(sorted(clash))} of {statement.concept}"
    for sentence in _SENTENCE.split(text):
        said = normalize(sentence)
        if any(one.negated and one.base == statement.base for one in said):
            return f"denies {statement.concept}"
        unlikely = _UNLIKELY.search(sentence)
        if unlikely and any(one.base == statement.base for one in said):
            return f"calls {statement.concept} {unlikely[0]!r}"
    return ""


def check_diagnoses(text: str, allowed: Allowed) -> str:
    """No disease but the statement's own, and none at all for a notice or an unread line."""
    statement = allowed.statement
    if statement.kind in NOT_FINDINGS:
        named = [row[2].name for row in find_concepts(fold(text)) if row[2].kind != "summary"]
        return f"describes a {statement.kind} line as {named[0]}" if named else ""
    supported = {statement.base, *allowed.mentions}
    if statement.cause:
        supported |= _concepts_in(statement.cause)
    for sentence in _SENTENCE.split(_VENTRICLES.sub("the ventricles", text)):
        for found in normalize(sentence):
            # What a finding is put down to is a diagnosis too.
            diagnoses = {found.base} if found.is_finding else set()
            diagnoses |= _concepts_in(found.cause or "")
            for name in sorted(diagnoses - supported):
                if concepts()[name].names_disease:
                    return f"names {name}, which the statement does not"
    own = " ".join((statement.raw, *map(display_name, supported), *allowed.passages)).casefold()
    for disease in DISEASE.findall(text.casefold()):
        if disease not in own:
            return f"names {disease!r}, which neither the statement nor a passage does"
    return ""


def _concepts_in(text: str) -> set[str]:
    return {concept.name for _, _, concept in find_concepts(fold(text))} if text else set()


def check_refusal(text: str, allowed: Allowed) -> str:
    """No refusals, greetings or talk of the task."""
    del allowed
    return _holds(_REFUSAL, text)


def check_markup(text: str, allowed: Allowed) -> str:
    """No markup, links, control or invisible characters, and Latin letters only."""
    del allowed
    # Greek would be for units; captions write them in Latin letters.
    foreign = next((one for one in text if one.isalpha() and ord(one) > 0x24F), "")
    return _holds(_MARKUP, text) or (f"holds {foreign!r}" if foreign else "")


def check_advice(text: str, allowed: Allowed) -> str:
    """No advice, and nothing about treatment or the person."""
    name = display_name(allowed.statement.concept)
    own = " ".join((name, allowed.statement.raw, *allowed.passages)).casefold()
    device = "pacemaker" in text.casefold() and "pacemaker" not in own
    return _holds(ADVICE, text.casefold()) or ("holds 'pacemaker'" if device else "")


def check_reference(text: str, allowed: Allowed) -> str:
    """No figures, tables, authors or years of a book."""
    del allowed
    return _holds(_REFERENCE, text)


def check_generic(text: str, allowed: Allowed) -> str:
    """No talk of what is often or may be seen: a caption says what this ECG shows."""
    certainty = allowed.statement.certainty
    vague = _holds(_GENERIC, text)
    return vague or ("" if certainty in ("possible", "consider") else _holds(_MAY, text))


def check_copy(text: str, allowed: Allowed) -> str:
    """No run of 12 words of a cited passage."""
    runs = _runs(text)
    for passage in allowed.passages:
        if copied := runs & _runs(passage):
            return f"copies {min(copied)!r} from a passage"
    return ""


def check_length(text: str, allowed: Allowed) -> str:
    """Between MIN_WORDS and MAX_WORDS words, and a finished sentence."""
    del allowed
    count = len(text.split())
    if not MIN_WORDS <= count <= MAX_WORDS:
        return f"{count} words, not {MIN_WORDS} to {MAX_WORDS}"
    return "" if text.rstrip().endswith((".", ";")) else "is not a finished sentence"


def _holds(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return f"holds {found[0]!r}" if found else ""


@lru_cache(maxsize=4096)
def _runs(text: str) -> frozenset[str]:
    words = _WORD.findall(text.casefold())
    return frozenset(
        " ".join(words[first : first + COPIED_WORDS])
        for first in range(len(words) - COPIED_WORDS + 1)
    )


CHECKS: dict[str, Callable[[str, Allowed], str]] = {
    "numbers": check_numbers,
    "territory": check_territory,
    "certainty": check_certainty,
    "acuity": check_acuity,
    "polarity": check_polarity,
    "diagnoses": check_diagnoses,
    "refusal": check_refusal,
    "markup": check_markup,
    "advice": check_advice,
    "reference": check_reference,
    "generic": check_generic,
    "copy": check_copy,
    "length": check_length,
}


def run_checks(text: str, allowed: Allowed, names: Iterable[str] = CHECKS) -> dict[str, str]:
    """The checks that a text fails, each with the reason; empty when it may be used.

    Args:
        text: a description.
        allowed: what it may draw on.
        names: which checks to run.

    Returns:
        Reason by check, failed checks only.
    """
    reasons = {name: CHECKS[name](text, allowed) for name in names}
    return {name: reason for name, reason in reasons.items() if reason}
