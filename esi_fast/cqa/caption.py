"""Composes an ECG's caption of its statements, its own measurements and the dictionary.

Findings come first, so that a text encoder with few tokens never loses them; then the measured
intervals, what the findings look like, who the ECG is of, and last the limits of the recording.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from esi_fast.cqa.coherence import Ranges, is_otherwise_normal, reconciled, value_ranges
from esi_fast.cqa.concepts import display_name
from esi_fast.cqa.dictionary import CaptionDictionary, Description
from esi_fast.cqa.phrases import FRAMES, frame_for, phrase, prompts_for, sentence
from esi_fast.cqa.polarity import forbidden_claims
from esi_fast.cqa.quoting import may_be_quoted
from esi_fast.cqa.statements import Statement, statements_of
from esi_fast.cqa.values import NUM_STYLES, demographics, intervals, plausible

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

# Fits the longest typical caption, and the positions of any text encoder.
MAX_TOKENS = 72
_TOKEN = re.compile(r"\w+|[^\w\s]")
# What the key of a report is made of that says nothing of the heart.
_NO_STATEMENT = ("no_statement",)
# No value of an ECG that is called normal is itself called otherwise.
_JUDGED_ABNORMAL = frozenset(
    {"long_pr", "short_pr", "wide_qrs", "long_qtc", "short_qtc", "left_axis", "right_axis"}
)


@dataclass(frozen=True, slots=True)
class Caption:
    """A composed caption and what it rests on.

    Attributes:
        text: the caption.
        findings: sorted concept names, as ``findings_of`` gives them.
        concept_key: ``concept_key_of_report`` of the report lines.
        statements: everything that the report lines say.
        sources: ids of the passages whose descriptions the text holds.
        checks: names of the checks that these descriptions have passed.
        prompts: SHA-256 of what each description was made from, as in the dictionary.
    """

    text: str
    findings: tuple[str, ...]
    concept_key: str
    statements: tuple[Statement, ...]
    sources: tuple[str, ...]
    checks: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def key(self) -> str:
        """16 hexadecimal digits: equal for equal texts on equal grounds."""
        grounds = "|".join([self.text, self.concept_key, *self.sources, *self.prompts])
        return hashlib.sha256(grounds.encode()).hexdigest()[:16]


def findings_of(raw_lines: Iterable[str]) -> tuple[str, ...]:
    """Sorted unique concept names of what report lines find.

    Summaries, technical notices, fragments, unread lines and what is denied or "no longer
    present" are no findings. Hedged findings (possible, probable, consider, cannot rule out,
    borderline, nonspecific) count like definite ones: a training target should hold everything
    that the reader saw, and the caption keeps the hedge.
    """
    return _report(tuple(raw_lines)).findings


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
    return _report(tuple(raw_lines)).concept_key


def compose(
    statements: Sequence[str],
    *,
    measurements: Mapping[str, float | None] | None = None,
    age: float | None = None,
    sex: str | None = None,
    dictionary: CaptionDictionary | None = None,
    seed: int = 0,
    max_tokens: int = MAX_TOKENS,
    count_tokens: Callable[[str], int] | None = None,
) -> Caption:
    """One ECG's caption; the same arguments give the same text.

    Args:
        statements: raw report lines in their order; blank ones are ignored.
        measurements: heart_rate (bpm), pr, qrs, qtc_bazett or qtc_fridericia (ms), qrs_axis
            (degrees); absent ones, implausible ones (29999) and those that the findings exclude
            (130 bpm beside a bradycardia) are left out.
        age: years, or None.
        sex: "male", "female" or None.
        dictionary: descriptions of statements; None leaves them out.
        seed: chooses among wordings, so that equal findings need not give equal captions.
        max_tokens: of the whole. Findings and technical limits are never cut: only measurements,
            descriptions and demographics are left out, and findings take their shortest form.
        count_tokens: tokens of a sentence, its own and none for the start or end of a text, asked
            once for each distinct sentence if it remembers (`functools.lru_cache`); by default
            words and marks, about what a word-piece tokenizer makes of it.

    Returns:
        The caption. Its rhythm comes first, then findings by severity. What the report both
        asserts and excludes ("atrial fibrillation" and "sinus rhythm") is told as possible.

    Raises:
        ValueError: ``sex`` is something else, or a measurement is no number.
    """
    if sex not in ("male", "female", None):
        raise ValueError(f"sex is {sex!r}; give 'male', 'female' or None")
    length = count_tokens or approximate_tokens
    report = _report(tuple(statements))
    head = [*_told(report.findings_told, seed), *report.summary]
    limits = report.limits
    room = max_tokens - sum(map(length, head)) - sum(map(length, limits))
    if room < 0:
        head = [*_told(report.findings_told, None), *report.summary]
        room = max_tokens - sum(map(length, head)) - sum(map(length, limits))

    person = demographics(age, sex)
    style = seed % NUM_STYLES
    values = {
        name: number
        for name, number in plausible(measurements or {}).items()
        if name not in report.ranges or report.ranges[name][0] <= number <= report.ranges[name][1]
    }
    candidates: list[tuple[str, Description | None]] = [
        (intervals(values, report.forbidden, sex, style), None),
        (person, None),
        *((line, None) for line in report.quoted),
    ]
    if dictionary is not None:
        candidates += _descriptions(report, dictionary, seed)
    kept: dict[str, Description | None] = {}
    for text, description in candidates:
        if text and text not in kept and (needed := length(text)) <= room:
            kept[text] = description
            room -= needed
    person_kept = [person] if person in kept and kept.pop(person) is None else []
    described = [one for one in kept.values() if one is not None]
    return Caption(
        text=" ".join([*head, *kept, *person_kept, *limits]) or "Twelve-lead electrocardiogram.",
        findings=report.findings,
        concept_key=report.concept_key,
        statements=report.said,
        sources=tuple(dict.fromkeys(source for one in described for source in one.sources)),
        checks=tuple(dict.fromkeys(check for one in described for check in one.checks)),
        prompts=tuple(one.prompt_sha256 for one in described),
    )


def _key(said: tuple[Statement, ...]) -> str:
    verdicts = {one.concept for one in said if one.kind == "summary" and not one.negated}
    other = verdicts | {one.concept for one in said if may_be_quoted(one)}
    return concept_key_of(_findings(said) or other or _NO_STATEMENT)


@lru_cache(maxsize=65536)
def approximate_tokens(text: str) -> int:
    """Words and marks: about what a word-piece tokenizer makes of it."""
    return len(_TOKEN.findall(text))


def _draw(seed: int, place: int) -> int:
    """A number for each place of a caption, spread evenly over seeds."""
    return zlib.crc32(f"{seed}:{place}".encode())


@dataclass(frozen=True, slots=True)
class _Report:
    """What a report says, read once for all records that share it.

    Attributes:
        said: its statements.
        findings, concept_key: as a caption has them.
        forbidden: what may not be said of this ECG.
        ranges: what its measured values may be.
        findings_told: (canonical words, statement) in the order of a caption.
        summary, limits, quoted: sentences.
    """

    said: tuple[Statement, ...]
    findings: tuple[str, ...]
    concept_key: str
    forbidden: frozenset[str]
    ranges: Ranges
    findings_told: tuple[tuple[str, Statement], ...]
    summary: tuple[str, ...]
    limits: tuple[str, ...]
    quoted: tuple[str, ...]


@lru_cache(maxsize=65536)
def _report(lines: tuple[str, ...]) -> _Report:
    said = statements_of(lines)
    told = reconciled(said)
    findings = _findings(said)
    forbidden = forbidden_claims(findings)
    verdict = _verdict(told, forbidden)
    return _Report(
        said=said,
        findings=findings,
        concept_key=_key(said),
        forbidden=forbidden | _JUDGED_ABNORMAL if verdict == "normal_ecg" else forbidden,
        ranges=value_ranges(told, verdict == "normal_ecg"),
        findings_told=tuple((phrase(one), one) for one in _by_severity(told)),
        summary=(sentence("{}.", display_name(verdict)),) if verdict else (),
        limits=_limits(said),
        quoted=_also_reported(said),
    )


def _told(findings: tuple[tuple[str, Statement], ...], seed: int | None) -> list[str]:
    """The findings, a sentence each: in frames drawn by a seed, or in the shortest one."""
    return [
        sentence(FRAMES[0] if seed is None else frame_for(one, _draw(seed, place)), words)
        for place, (words, one) in enumerate(findings)
    ]


def _by_severity(said: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The findings, rhythm first and then by severity, without those that another one includes."""
    told: list[Statement] = []
    for one in said:
        if one.is_finding and not any(_includes(known, one) for known in told):
            told = [known for known in told if not _includes(one, known)]
            told.append(one)
    return tuple(sorted(told, key=lambda one: one.rank))


def _includes(this: Statement, other: Statement) -> bool:
    """Whether a statement of the same concept is as sure as another one, and as exact in its age.

    An old infarct never hides an acute one, nor a definite one a possibly acute one.
    """
    return (
        this.concept == other.concept
        and (this.certainty == "definite" or this.certainty == other.certainty)
        and (this.acuity == other.acuity or other.acuity in (None, "undetermined"))
    )


def _verdict(told: tuple[Statement, ...], forbidden: frozenset[str]) -> str | None:
    """The report's closing verdict, unless its own findings or another verdict contradict it."""
    verdicts = {one.base for one in told if one.kind == "summary" and not one.negated}
    for name in ("abnormal_ecg", "borderline_ecg"):
        if name in verdicts:
            return name
    for name in ("otherwise_normal_ecg", "normal_variant_ecg"):
        if name in verdicts:
            return name if is_otherwise_normal(told) else None
    return "normal_ecg" if "normal_ecg" in verdicts - forbidden else None


def _limits(said: tuple[Statement, ...]) -> tuple[str, ...]:
    notices = dict.fromkeys(phrase(one) for one in said if one.kind == "technical")
    return tuple(sentence("{}.", words) for words in notices if words)


def _also_reported(said: tuple[Statement, ...]) -> tuple[str, ...]:
    """Lines that could not be read and can name nobody, word for word."""
    lines = dict.fromkeys(
        " ".join(one.raw.split()).strip(" *-.") for one in said if may_be_quoted(one)
    )
    return tuple(f"Also reported: {line}." for line in lines)


def _descriptions(
    report: _Report, dictionary: CaptionDictionary, seed: int
) -> list[tuple[str, Description | None]]:
    """What the findings look like, the plain sinus rhythm last; nothing the findings contradict."""
    found: list[tuple[str, Description | None]] = []
    plain: list[tuple[str, Description | None]] = []
    for place, (words, one) in enumerate(report.findings_told):
        description = dictionary.get(words)
        if description is not None:
            fitting = [text for text, said in description.texts if not said & report.forbidden]
            if fitting:
                chosen = fitting[_draw(seed, -1 - place) % len(fitting)]
                (plain if one.base == "sinus_rhythm" else found).append((chosen, description))
    return found + plain
