"""Checks that every description must pass, whatever wrote it: a text that fails is never used.

Each check takes the text and what it may draw on, and returns "" when it passes or the reason
why not. ``claims_of`` and ``forbidden_claims`` are also what keeps a composed caption from
contradicting itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from esi_fast.cqa.concepts import (
    WALL_LEADS,
    WALLS_OF_WORD,
    concepts,
    find_concepts,
    split_concept,
)
from esi_fast.cqa.folding import fold
from esi_fast.cqa.statements import NOT_FINDINGS, Statement, normalize
from esi_fast.leads import STANDARD_LEADS

MIN_WORDS, MAX_WORDS = 3, 60

# What a text may assert, by the words that assert it.
_CLAIMS = {
    "p_before_each_qrs": r"\bp[ -]waves? (?:is |are )?(?:before|preced\w+) (?:each|every|the) qrs"
    r"|(?:each|every) qrs (?:complex )?(?:is )?(?:preceded by|follows) (?:a|one) p"
    r"|\b1:1 (?:av |atrioventricular )?conduction",
    "normal_pr": r"\bnormal pr\b|\bpr (?:interval )?(?:is |of )?normal",
    "long_pr": r"\b(?:long|prolonged) (?:but )?(?:constant )?pr\b"
    r"|\bpr (?:interval )?\S* ?prolonged",
    "short_pr": r"\bshort pr\b",
    "normal_qrs": r"\b(?:normal|narrow) qrs\b"
    r"|\bqrs (?:complex(?:es)? )?(?:is |are )?(?:narrow|normal)",
    "wide_qrs": r"\b(?:wide|broad)(?: \w+)? qrs\b",
    "normal_qtc": r"\bnormal qtc?\b",
    "long_qtc": r"\b(?:long|prolonged) qtc?\b",
    "short_qtc": r"\bshort qtc?\b",
    "normal_axis": r"\bnormal (?:\w+ )?axis\b",
    "left_axis": r"\bleft(?:ward)? axis\b",
    "right_axis": r"\bright(?:ward)? axis\b",
    "regular": r"(?<!ir)\bregular (?:rhythm|rr|r-r|intervals|ventricular)\b",
    "normal_ecg": r"\bnormal ecg\b",
    "st_elevation": r"\bst(?:[ -]segment)?[ -]elevation\b",
    "isoelectric_st": r"\bisoelectric st\b|\bnormal st\b",
    "normal_voltage": r"\bnormal (?:qrs )?voltage",
}
_CLAIM_PATTERNS = {name: re.compile(pattern) for name, pattern in _CLAIMS.items()}

# Finding -> what may not be said beside it. "pr": no PR interval can be measured at all.
# "qtc_word": RR intervals vary too much for one strip's corrected QT to be called anything.
_NO_P = frozenset({"p_before_each_qrs", "pr", "normal_pr", "long_pr", "short_pr"})
_WIDE = frozenset({"normal_qrs"})
_FORBIDDEN: dict[str, frozenset[str]] = {
    "atrial_fibrillation": _NO_P | {"regular", "qtc_word"},
    "atrial_flutter": _NO_P | {"qtc_word"},
    "supraventricular_tachycardia": _NO_P,
    "junctional_rhythm": _NO_P,
    "junctional_tachycardia": _NO_P,
    "ventricular_tachycardia": _NO_P | _WIDE,
    "wide_qrs_tachycardia": _NO_P | _WIDE,
    "ventricular_fibrillation": _NO_P | _WIDE | {"regular", "wide_qrs"},
    "idioventricular_rhythm": _NO_P | _WIDE,
    "ventricular_paced_rhythm": _NO_P | _WIDE,
    "dual_chamber_paced_rhythm": _NO_P | _WIDE,
    "paced_rhythm": _NO_P | _WIDE,
    "atrial_paced_rhythm": frozenset({"p_before_each_qrs"}),
    "undetermined_rhythm": _NO_P,
    "irregular_rhythm": frozenset({"regular"}),
    "third_degree_av_block": _NO_P,
    "av_dissociation": _NO_P,
    "high_degree_av_block": frozenset({"p_before_each_qrs", "normal_pr"}),
    "second_degree_av_block": frozenset({"p_before_each_qrs", "normal_pr"}),
    "mobitz_i_av_block": frozenset({"p_before_each_qrs", "normal_pr", "regular"}),
    "mobitz_ii_av_block": frozenset({"p_before_each_qrs", "regular"}),
    "av_block": frozenset({"normal_pr", "short_pr"}),
    "first_degree_av_block": frozenset({"normal_pr", "short_pr"}),
    "prolonged_pr": frozenset({"normal_pr", "short_pr"}),
    "short_pr": frozenset({"normal_pr", "long_pr"}),
    "wolff_parkinson_white": frozenset({"normal_pr", "long_pr", "normal_qrs"}),
    "left_bundle_branch_block": _WIDE,
    "right_bundle_branch_block": _WIDE,
    "incomplete_left_bundle_branch_block": _WIDE,
    "incomplete_right_bundle_branch_block": _WIDE,
    "bundle_branch_block": _WIDE,
    "intraventricular_conduction_delay": _WIDE,
    "bifascicular_block": _WIDE,
    "trifascicular_block": _WIDE | {"normal_pr"},
    "abnormal_qrs": _WIDE,
    "wide_qrs": _WIDE,
    "prolonged_qt": frozenset({"normal_qtc", "short_qtc"}),
    "short_qt": frozenset({"normal_qtc", "long_qtc"}),
    "left_axis_deviation": frozenset({"normal_axis", "right_axis"}),
    "right_axis_deviation": frozenset({"normal_axis", "left_axis"}),
    "extreme_axis_deviation": frozenset({"normal_axis"}),
    "indeterminate_axis": frozenset({"normal_axis", "left_axis", "right_axis"}),
    "left_anterior_fascicular_block": frozenset({"normal_axis", "right_axis"}),
    "left_posterior_fascicular_block": frozenset({"normal_axis", "left_axis"}),
    "premature_ventricular_complexes": frozenset({"regular"}),
    "premature_atrial_complexes": frozenset({"regular"}),
    "premature_supraventricular_complexes": frozenset({"regular"}),
    "premature_junctional_complexes": frozenset({"regular"}),
    "premature_complexes": frozenset({"regular"}),
    "bigeminy": frozenset({"regular"}),
    "trigeminy": frozenset({"regular"}),
    "sinus_arrhythmia": frozenset({"regular"}),
    "sinus_pause": frozenset({"regular"}),
    "st_elevation": frozenset({"isoelectric_st"}),
    "st_depression": frozenset({"isoelectric_st"}),
    "st_abnormality": frozenset({"isoelectric_st"}),
    "low_qrs_voltage": frozenset({"normal_voltage"}),
    "high_qrs_voltage": frozenset({"normal_voltage"}),
}
# Beside these alone an ECG may be called normal.
_NORMAL_FINDINGS = frozenset({"sinus_rhythm", "sinus_arrhythmia"})


def claims_of(text: str) -> frozenset[str]:
    """What a text asserts about P waves, intervals, axis, rhythm and ST segment, by name."""
    lowered = text.casefold()
    return frozenset(name for name, pattern in _CLAIM_PATTERNS.items() if pattern.search(lowered))


@lru_cache(maxsize=16384)
def forbidden_claims(findings: tuple[str, ...]) -> frozenset[str]:
    """What may not be said of an ECG with these findings (names as ``findings_of`` gives them)."""
    forbidden: set[str] = set()
    for concept in findings:
        base = split_concept(concept)[0]
        forbidden |= _FORBIDDEN.get(base, frozenset())
        if base not in _NORMAL_FINDINGS:
            forbidden.add("normal_ecg")
    return frozenset(forbidden)


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


_NUMBER = re.compile(r"(?<![\w.:])[-+]?\d+(?:\.\d+)?(?![\w:])")
_RATIO = re.compile(r"(?<!\d)\d+:\d+(?!\d)")
_NAMED_LEAD = re.compile(r"\b(?:aV[RLFrlf]|V[1-6]|I{1,3})\b")
_LEAD_RANGE = re.compile(r"\bV([1-6])\s*(?:-|\u2013|to|through)\s*V([1-6])\b")
_HEDGES: dict[str, re.Pattern[str]] = {
    "probable": re.compile(r"\bprobabl|\blikely\b|\bsuggest|\bconsistent with\b"),
    "possible": re.compile(r"\bpossibl|\bmay\b|\bmight\b|\bsuspect|\bsuggest|\bcould\b"),
    "consider": re.compile(r"\bconsider|\bpossibl|\bmay\b|\bmight\b"),
    "cannot_rule_out": re.compile(r"\bcannot\b|\bnot excluded\b|\bnot ruled out\b|\bpossibl"),
    "borderline": re.compile(r"\bborderline\b|\bminimal\b|\bslight"),
    "nonspecific": re.compile(r"\bnon-?specific\b"),
}
_CHATTER = re.compile(
    r"[\n\r\t<>{}|`*#\[\]\\]|https?:|\bas an ai\b|\bi (?:am|cannot|can't|do not)\b|\bsorry\b"
    r"|\bcontext\b|\bpassages?\b|\bprompt\b|\bpotential ecg\b|\becg waveform for\b"
    r"|\b(?:fig(?:ure)?|table|chapter|page)\.? ?\d|\brecommend|\btreat|\btherap|\bmedicat"
    r"|\bconsult|\bplease\b|\blet me know\b|\bshould be (?:given|evaluated|seen)\b|\bsure[,!]"
    r"|\bthe patient\b|[\x00-\x1f\u200b-\u200f]",
    re.IGNORECASE,
)


def check_numbers(text: str, allowed: Allowed) -> str:
    """Every number must stand in a cited passage or be a measured value (rounded)."""
    cited = " ".join(allowed.passages)
    said = {float(number) for number in _NUMBER.findall(cited)}
    for number in _NUMBER.findall(text):
        value = float(number)
        measured = any(abs(value - known) <= 1.0 for known in allowed.measurements.values())
        if value not in said and not measured:
            return f"number {number} stands in no cited passage and is not measured"
    ratios = {allowed.statement.degree, *_RATIO.findall(cited)}
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
    named = set(_NAMED_LEAD.findall(text))
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
    clash = claims_of(text) & forbidden_claims((allowed.statement.concept,))
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


def check_chatter(text: str, allowed: Allowed) -> str:
    """No refusals, advice, markup, figure references, control characters or talk of the task."""
    del allowed
    found = _CHATTER.search(text)
    return f"holds {found[0]!r}" if found else ""


def check_length(text: str, allowed: Allowed) -> str:
    """Between MIN_WORDS and MAX_WORDS words, and a finished sentence."""
    del allowed
    count = len(text.split())
    if not MIN_WORDS <= count <= MAX_WORDS:
        return f"{count} words, not {MIN_WORDS} to {MAX_WORDS}"
    return "" if text.rstrip().endswith((".", ";")) else "is not a finished sentence"


CHECKS: dict[str, Callable[[str, Allowed], str]] = {
    "numbers": check_numbers,
    "territory": check_territory,
    "certainty": check_certainty,
    "polarity": check_polarity,
    "diagnoses": check_diagnoses,
    "chatter": check_chatter,
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
