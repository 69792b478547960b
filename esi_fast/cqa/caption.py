"""Composes an ECG's caption of its statements, its own measurements and the dictionary.

Findings come first, so that a text encoder with few tokens never loses them; then the measured
intervals, what the findings look like, who the ECG is of, and last the limits of the recording.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from esi_fast.cqa.checks import forbidden_claims
from esi_fast.cqa.concepts import display_name
from esi_fast.cqa.dictionary import CaptionDictionary
from esi_fast.cqa.phrases import FRAMES, frame_for, phrase, prompts_for, sentence
from esi_fast.cqa.statements import Statement, statements_of

__all__ = [
    "Caption",
    "CaptionDictionary",
    "compose",
    "concept_key_of",
    "concept_key_of_report",
    "display_name",
    "findings_of",
    "prompts_for",
]

# Beyond these a value is a device's mark for "not measured" (29999) or a failed measurement.
_PLAUSIBLE = {
    "heart_rate": (10.0, 400.0),
    "pr": (50.0, 600.0),
    "qrs": (30.0, 320.0),
    "qtc_bazett": (200.0, 800.0),
    "qtc_fridericia": (200.0, 800.0),
    "qrs_axis": (-180.0, 360.0),
}
# Upper limits of a normal QTc, ms: Rautaharju et al., AHA/ACCF/HRS 2009, part IV.
_LONG_QTC = {"male": 450.0, "female": 460.0, None: 460.0}
_SHORT_QTC = 390.0
# Digits may be a date, a name's number or an id: such a line stays out of captions.
_MAY_IDENTIFY = re.compile(r"\d{3,}|\d[/.-]\d")
_TOKEN = re.compile(r"\w+|[^\w\s]")
# What the key of a report is made of that says nothing of the heart.
_NO_STATEMENT = ("no_statement",)
_OTHERWISE_NORMAL = frozenset({"otherwise_normal_ecg", "normal_variant_ecg"})


@dataclass(frozen=True, slots=True)
class Caption:
    """A composed caption and what it rests on.

    Attributes:
        text: the caption.
        findings: sorted concept names, as ``findings_of`` gives them.
        concept_key: ``concept_key_of_report`` of the report lines.
        statements: everything that the report lines say.
        sources: ids of the passages whose descriptions the text holds.
    """

    text: str
    findings: tuple[str, ...]
    concept_key: str
    statements: tuple[Statement, ...]
    sources: tuple[str, ...]


def findings_of(raw_lines: Iterable[str]) -> tuple[str, ...]:
    """Sorted unique concept names of what report lines find.

    Summaries, technical notices, fragments, unread lines and what is denied or "no longer
    present" are no findings. Hedged findings (possible, probable, consider, cannot rule out,
    borderline, nonspecific) count like definite ones: a training target should hold everything
    that the reader saw, and the caption keeps the hedge.
    """
    return _findings(statements_of(tuple(raw_lines)))


@lru_cache(maxsize=65536)
def _findings(statements: tuple[Statement, ...]) -> tuple[str, ...]:
    return tuple(sorted({said.concept for said in statements if said.is_finding}))


def concept_key_of(findings: Iterable[str]) -> str:
    """16 hexadecimal digits: the SHA-256 of the sorted findings joined by "|".

    Records with equal keys say the same and are not each other's negatives.
    """
    return hashlib.sha256("|".join(sorted(findings)).encode()).hexdigest()[:16]


def concept_key_of_report(raw_lines: Iterable[str]) -> str:
    """``concept_key_of`` what report lines say: of their findings, where they have any.

    Without a finding it is the key of their verdicts ("Normal ECG") and of the lines that could
    not be read and that captions quote, so that a normal, an abnormal and an unreadable report do
    not count as saying the same. Reports that say nothing at all share one key of their own.
    """
    return _key(statements_of(tuple(raw_lines)))


def compose(
    statements: Sequence[str],
    *,
    measurements: Mapping[str, float] | None = None,
    age: float | None = None,
    sex: str | None = None,
    dictionary: CaptionDictionary | None = None,
    seed: int = 0,
    max_words: int = 72,
) -> Caption:
    """One ECG's caption; the same arguments give the same text.

    Args:
        statements: raw report lines in their order; blank ones are ignored.
        measurements: heart_rate (bpm), pr, qrs, qtc_bazett or qtc_fridericia (ms), qrs_axis
            (degrees); absent or implausible ones (29999) are left out.
        age: years, or None.
        sex: "male", "female" or None.
        dictionary: descriptions of statements; None leaves them out.
        seed: chooses among paraphrases of each finding.
        max_words: words and marks that the whole should not exceed. Findings and technical limits
            are never cut: only measurements, descriptions and demographics are left out.

    Returns:
        The caption. Its rhythm comes first, then findings by severity.

    Raises:
        ValueError: ``sex`` is something else.
    """
    if sex not in ("male", "female", None):
        raise ValueError(f"sex is {sex!r}; give 'male', 'female' or None")
    said = statements_of(tuple(statements))
    findings = _findings(said)
    forbidden = forbidden_claims(findings)
    choose = random.Random(seed).randrange

    ordered = _by_severity(said)
    head = [sentence(frame_for(one, choose(len(FRAMES))), phrase(one)) for one in ordered]
    head += _summary(said, forbidden)
    limits = _limits(said)
    room = max_words - sum(map(_length, head)) - sum(map(_length, limits))

    intervals = _intervals(measurements or {}, forbidden, sex)
    person = _demographics(age, sex)
    kept: dict[str, tuple[str, ...]] = {}
    candidates = [(intervals, ()), (person, ()), *_also_reported(said)]
    if dictionary is not None:
        candidates += _descriptions(ordered, dictionary, forbidden)
    for text, sources in candidates:
        if text and text not in kept and _length(text) <= room:
            kept[text] = sources
            room -= _length(text)
    person_kept = [person] if kept.pop(person, None) is not None else []
    return Caption(
        text=" ".join([*head, *kept, *person_kept, *limits]) or "Twelve-lead electrocardiogram.",
        findings=findings,
        concept_key=_key(said),
        statements=said,
        sources=tuple(dict.fromkeys(source for cited in kept.values() for source in cited)),
    )


@lru_cache(maxsize=65536)
def _key(said: tuple[Statement, ...]) -> str:
    verdicts = {one.concept for one in said if one.kind == "summary" and not one.negated}
    other = verdicts | {one.concept for one in said if _is_quoted(one)}
    return concept_key_of(_findings(said) or other or _NO_STATEMENT)


@lru_cache(maxsize=65536)
def _length(text: str) -> int:
    """Words and marks: about what a word-piece tokenizer makes of it."""
    return len(_TOKEN.findall(text))


@lru_cache(maxsize=65536)
def _by_severity(said: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The findings, rhythm first and then by severity; of one concept the surest statement."""
    surest: dict[str, Statement] = {}
    for one in said:
        if one.is_finding:
            known = surest.get(one.concept)
            if known is None or (known.certainty != "definite" and one.certainty == "definite"):
                surest[one.concept] = one
    return tuple(sorted(surest.values(), key=lambda one: one.rank))


@lru_cache(maxsize=65536)
def _summary(said: tuple[Statement, ...], forbidden: frozenset[str]) -> tuple[str, ...]:
    """The report's closing verdict, unless its own findings or another verdict contradict it."""
    verdicts = [
        one.base
        for one in said
        if one.kind == "summary" and one.base.endswith("_ecg") and not one.negated
    ]
    abnormal = [one for one in verdicts if one in ("abnormal_ecg", "borderline_ecg")]
    otherwise = [one for one in verdicts if one in _OTHERWISE_NORMAL]
    normal = [] if "normal_ecg" in forbidden else [one for one in verdicts if one == "normal_ecg"]
    chosen = (abnormal or otherwise or normal)[:1]
    return tuple(sentence("{}.", display_name(one)) for one in chosen)


@lru_cache(maxsize=65536)
def _limits(said: tuple[Statement, ...]) -> tuple[str, ...]:
    notices = dict.fromkeys(phrase(one) for one in said if one.kind == "technical")
    return tuple(sentence("{}.", words) for words in notices if words)


@lru_cache(maxsize=65536)
def _also_reported(said: tuple[Statement, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Lines that could not be read, word for word."""
    lines = dict.fromkeys(
        " ".join(one.raw.split()).strip(" *-.") for one in said if _is_quoted(one)
    )
    return tuple((f"Also reported: {x}.", ()) for x in lines)


def _is_quoted(one: Statement) -> bool:
    """Whether it could not be read and holds nothing that may be a date or an id."""
    return one.kind == "unknown" and not _MAY_IDENTIFY.search(one.raw)


def _descriptions(
    ordered: tuple[Statement, ...], dictionary: CaptionDictionary, forbidden: frozenset[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """What the findings look like, the plain sinus rhythm last; nothing the findings contradict."""
    last_first = sorted(ordered, key=lambda one: one.base == "sinus_rhythm")
    found = (dictionary.get(phrase(one)) for one in last_first)
    return [
        (one.text, one.sources) for one in found if one and one.text and not one.claims & forbidden
    ]


def _intervals(
    measurements: Mapping[str, float], forbidden: frozenset[str], sex: str | None
) -> str:
    """The measured values in one sentence, each called normal, short or long.

    A word that the findings contradict is left out, and so is the PR interval of a rhythm that
    has none: "PR 190 ms" beside a first-degree block, nothing beside atrial fibrillation, where
    the QTc is given without a word too.
    """
    value = {
        name: measurements[name]
        for name, (low, high) in _PLAUSIBLE.items()
        if name in measurements and low <= measurements[name] <= high
    }
    parts = []
    if "heart_rate" in value:
        parts.append(f"heart rate {value['heart_rate']:.0f} bpm")
    if "pr" in value and "pr" not in forbidden:
        pr = value["pr"]
        word = "short_pr" if pr < 120 else "long_pr" if pr > 200 else "normal_pr"
        parts.append(_said(word, forbidden, f"PR {pr:.0f} ms"))
    if "qrs" in value:
        qrs = value["qrs"]
        word = "wide_qrs" if qrs >= 120 else "normal_qrs" if qrs <= 110 else ""
        parts.append(_said(word, forbidden, f"QRS {qrs:.0f} ms"))
    qtc = value.get("qtc_bazett", value.get("qtc_fridericia"))
    if qtc is not None:
        limit = _LONG_QTC[sex]
        word = "short_qtc" if qtc <= _SHORT_QTC else "long_qtc" if qtc >= limit else "normal_qtc"
        # A QTc between the two limits of men and women is not called anything.
        unclear = sex is None and _LONG_QTC["male"] <= qtc < limit
        # The limits are meant for narrow QRS complexes.
        is_wide = value.get("qrs", 0.0) >= 120
        word = "" if unclear or is_wide or "qtc_word" in forbidden else word
        parts.append(_said(word, forbidden, f"QTc {qtc:.0f} ms"))
    if "qrs_axis" in value:
        axis = (value["qrs_axis"] + 180.0) % 360.0 - 180.0
        parts.append(_said(_axis_word(axis), forbidden, f"axis {axis:.0f} degrees"))
    if not parts:
        return ""
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _axis_word(axis: float) -> str:
    """Surawicz et al., AHA/ACCF/HRS 2009, part III: normal is -30 to 90 degrees in adults."""
    if -30 <= axis <= 90:
        return "normal_axis"
    return "left_axis" if -90 <= axis < -30 else "right_axis" if axis > 90 else ""


def _said(claim: str, forbidden: frozenset[str], words: str) -> str:
    if not claim or claim in forbidden:
        return words
    return f"{claim.split('_')[0]} {words}"


def _demographics(age: float | None, sex: str | None) -> str:
    """ "65-year-old male."; ages over 89 are given as one, as is the custom for open data."""
    if age is None or not 0 <= age < 400:
        return f"{sex.capitalize()} patient." if sex else ""
    who = sex or "patient"
    if age > 89:
        return f"{who.capitalize()} aged 90 or older."
    if age < 1:
        return f"{who.capitalize()} under 1 year old."
    return f"{int(age)}-year-old {who}."
