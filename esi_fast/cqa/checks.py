"""Checks that every description must pass, whatever wrote it: a text that fails is never used.

Each check takes the text and what it may draw on, and returns "" when it passes or the reason
why not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from esi_fast.cqa.concepts import WALL_LEADS, WALLS_OF_WORD, concepts, find_concepts
from esi_fast.cqa.folding import fold
from esi_fast.cqa.polarity import contradictions
from esi_fast.cqa.statements import NOT_FINDINGS, Statement, normalize
from esi_fast.leads import STANDARD_LEADS

MIN_WORDS, MAX_WORDS = 3, 60
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


_NUMBER = re.compile(
    r"(?<![\w.:])(?P<number>[-+\u2212]?\d+(?:\.\d+)?)(?![\w:]|\.\d)"
    r"(?:[ -]?(?P<unit>ms\b|msec|milliseconds?|s\b|sec|seconds?|bpm|beats|per minute|/ ?min|mv\b"
    r"|millivolts?|mm\b|millimet\w+|degrees?|\u00b0|percent|%|hz\b))?",
    re.IGNORECASE,
)
# Glued to its unit ("120ms") a number has no word boundary.
_GLUED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(ms|s|bpm|mv|mm|hz)\b", re.IGNORECASE)
# Each unit as one of a kind, and the factor to it.
_UNITS = (
    ("ms", re.compile(r"ms|msec|milliseconds?"), 1.0),
    ("ms", re.compile(r"s|sec|seconds?"), 1000.0),
    ("bpm", re.compile(r"bpm|beats|per minute|/ ?min"), 1.0),
    ("mm", re.compile(r"mv|millivolts?"), 10.0),  # at the standard gain
    ("mm", re.compile(r"mm|millimet\w+"), 1.0),
    ("degrees", re.compile("degrees?|\u00b0"), 1.0),
    ("percent", re.compile(r"percent|%"), 1.0),
    ("hz", re.compile(r"hz"), 1.0),
)
_UNIT_OF_MEASUREMENT = {"heart_rate": "bpm", "qrs_axis": "degrees", "p_axis": "degrees"}
_SPELLED = re.compile(
    r"\b(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred)\b[ -]*(?:\w+[ -]*)?"
    r"(?:ms|millisecond|second|beat|bpm|degree|per minute|millimet|millivolt)",
    re.IGNORECASE,
)
_RATIO = re.compile(r"(?<!\d)\d+:\d+(?!\d)")
_NAMED_LEAD = re.compile(r"\b(?:aV[RLFrlf]|V[1-6]|I{1,3})\b")
_TYPE = re.compile(r"\b(?:Mobitz|[Tt]ype)(?: [Tt]ype)? I{1,2}\b")  # no lead
_LEAD_RANGE = re.compile(r"\bV([1-6])\s*(?:-|\u2013|to|through)\s*V([1-6])\b")
_HEDGES: dict[str, re.Pattern[str]] = {
    "probable": re.compile(r"\bprobabl|\blikely\b|\bsuggest|\bconsistent with\b"),
    "possible": re.compile(r"\bpossibl|\bmay\b|\bmight\b|\bsuspect|\bsuggest|\bcould\b"),
    "consider": re.compile(r"\bconsider|\bpossibl|\bmay\b|\bmight\b"),
    "cannot_rule_out": re.compile(r"\bcannot\b|\bnot excluded\b|\bnot ruled out\b|\bpossibl"),
    "borderline": re.compile(r"\bborderline\b|\bminimal\b|\bslight"),
    "nonspecific": re.compile(r"\bnon-?specific\b"),
}
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
_ADVICE = re.compile(
    r"\brecommend|\btreat|\btherap|\bmedicat|\bconsult|\bplease\b|\bthe patient\b|\badvis"
    r"|\bshould (?:be|undergo|receive|see|seek)\b|\burgent|\bimmediate(?:ly)?\b|\breferr(?:al|ed)\b"
    r"|\bfollow[ -]?up\b|\bemergency\b|\bclinical(?:ly)? (?:correlat|evaluat)",
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
    """Every number must stand in a cited passage, with its unit, or be a measured value."""
    cited = _quantities(" ".join(allowed.passages))
    bare = {value for value, _ in cited}
    measured = [
        (value, _UNIT_OF_MEASUREMENT.get(name, "ms"))
        for name, value in allowed.measurements.items()
    ]
    for value, unit in _quantities(text):
        in_passage = (value, unit) in cited if unit else value in bare
        is_measured = any(
            abs(value - known) <= 1.0 and unit in ("", its) for known, its in measured
        )
        if not in_passage and not is_measured:
            number = f"{value:g} {unit}".strip()
            return f"number {number} stands in no cited passage and is not measured"
    if spelled := _SPELLED.search(text):
        return f"number {spelled[0]!r} is written in words"
    ratios = {allowed.statement.degree, *_RATIO.findall(" ".join(allowed.passages))}
    for ratio in _RATIO.findall(text):
        if ratio not in ratios:
            return f"ratio {ratio} stands neither in the statement nor in a cited passage"
    return ""


@lru_cache(maxsize=4096)
def _quantities(text: str) -> frozenset[tuple[float, str]]:
    """Numbers of a text with their units, "" where there is none; "120 to 200 ms" has two in ms."""
    found: list[tuple[float, str]] = []
    spaced = _GLUED.sub(r"\1 \2", text)
    pending: list[float] = []
    last_end = 0
    for match in _NUMBER.finditer(spaced):
        value = float(match["number"].replace("\u2212", "-"))
        between = spaced[last_end : match.start()]
        if pending and not re.fullmatch(r"\s*(?:to|and|or|-|\u2013|,)\s*(?:\w+ )?", between):
            found += [(one, "") for one in pending]
            pending = []
        last_end = match.end()
        if match["unit"] is None:
            pending.append(value)
            continue
        kind, factor = _unit_of(match["unit"])
        found += [(round(one * factor, 6), kind) for one in [*pending, value]]
        pending = []
    return frozenset([*found, *((one, "") for one in pending)])


def _unit_of(written: str) -> tuple[str, float]:
    for kind, pattern, factor in _UNITS:
        if pattern.fullmatch(written.casefold()):
            return kind, factor
    raise ValueError(f"unit {written!r} is in no row of _UNITS")


def check_territory(text: str, allowed: Allowed) -> str:
    """Leads and walls must belong to the statement or to the cited passages."""
    statement = allowed.statement
    leads = set(allowed.leads) | set(statement.leads)
    for wall in statement.territory:
        leads |= set(WALL_LEADS[wall])
    named = set(_NAMED_LEAD.findall(_TYPE.sub(" ", text)))
    for first, last in _LEAD_RANGE.findall(text):
        named |= {f"V{number}" for number in range(int(first), int(last) + 1)}
    by_fold = {lead.casefold(): lead for lead in STANDARD_LEADS}
    foreign = sorted({by_fold[lead.casefold()] for lead in named} - leads)
    if foreign:
        return f"names lead(s) {', '.join(foreign)} outside {statement.concept}"
    if statement.territory:
        words = set(re.findall(r"[a-z]+", text.casefold())) & set(WALLS_OF_WORD) - {"high"}
        walls = {wall for word in words for wall in WALLS_OF_WORD[word]}
        if walls - set(statement.territory):
            return f"names {', '.join(sorted(walls - set(statement.territory)))} wall"
    return ""


def check_certainty(text: str, allowed: Allowed) -> str:
    """A hedged statement needs its hedge in the text."""
    certainty = allowed.statement.certainty
    if certainty != "definite" and not _HEDGES[certainty].search(text.casefold()):
        return f"states a {certainty} finding without the hedge"
    return ""


def check_polarity(text: str, allowed: Allowed) -> str:
    """Nothing that contradicts the statement ("P wave before each QRS" in atrial fibrillation)."""
    if not allowed.statement.is_finding:
        return ""
    clash = contradictions(text, allowed.statement.concept)
    return f"says {', '.join(sorted(clash))} of {allowed.statement.concept}" if clash else ""


def check_diagnoses(text: str, allowed: Allowed) -> str:
    """No disease but the statement's own, and none at all for a notice or an unread line."""
    statement = allowed.statement
    if statement.kind in NOT_FINDINGS:
        named = [row[2].name for row in find_concepts(fold(text)) if row[2].kind != "summary"]
        return f"describes a {statement.kind} line as {named[0]}" if named else ""
    supported = {statement.base, *allowed.mentions}
    if statement.cause:
        supported |= {row[2].name for row in find_concepts(fold(statement.cause))}
    for sentence in re.split(r"(?<=[.;])\s+", text):
        for found in normalize(sentence):
            if not found.is_finding or found.base in supported:
                continue
            if concepts()[found.base].names_disease:
                return f"names {found.base}, which the statement does not"
    return ""


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
    del allowed
    return _holds(_ADVICE, text)


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
