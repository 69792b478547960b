"""Reads what machines and cardiologists write under an ECG: statements become concepts.

One line may say several things ("Sinus rhythm with PVCs"), hedge them ("possible"), date them
("age undetermined"), place them ("inferior") or explain them ("consider acute infarct"). All of
this is kept; what cannot be read is kept word for word and never elaborated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from esi_fast.cqa import wording
from esi_fast.cqa.concepts import (
    WALLS_OF_WORD,
    Concept,
    codes,
    concept_name,
    concepts,
    display_name,
    find_concepts,
    ordered_walls,
)
from esi_fast.cqa.folding import FILLER, fold
from esi_fast.leads import STANDARD_LEADS, canonical_lead

NOT_FINDINGS = frozenset({"summary", "technical", "fragment", "unknown"})


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that a report line says.

    Attributes:
        concept: canonical name with its wall ("inferior_myocardial_infarction"); of a line that
            could not be read, ``"unknown:"`` and its folded words.
        base: the concept without its wall; of a technical notice, what it is about
            (unsuitable_leads, lead_reversal, artifact, notice); "" for fragments and the unknown.
        kind: rhythm, pacing, conduction, morphology, infarct, ST-T, hypertrophy, axis, interval,
            summary, technical, fragment or unknown.
        certainty: definite, probable, possible, consider, cannot_rule_out, borderline or
            nonspecific.
        acuity: acute, possibly_acute, recent, old, undetermined or None.
        territory: walls of the heart, for example ("anterior", "lateral").
        degree: first, second, third, high; or a ratio ("2:1"), or how much or how often
            ("marked", "frequent"); or None.
        raw: the line as it was given.
        rate_response: rapid, slow, controlled or None.
        cause: what the statement is put down to, in words ("consider acute myocardial
            infarction"), or None. A cause is no finding of its own.
        leads: standard leads that the line names.
        negated: the line says that it is absent, or no longer there.
        remainder: words of the line that were not understood.
        rank: place in a caption, small first.
    """

    concept: str
    kind: str
    certainty: str
    acuity: str | None
    territory: tuple[str, ...]
    degree: str | None
    raw: str
    base: str = ""
    rate_response: str | None = None
    cause: str | None = None
    leads: tuple[str, ...] = ()
    negated: bool = False
    remainder: str = ""
    rank: int = 99

    @property
    def is_finding(self) -> bool:
        """Whether it is something found on the ECG: read, present, and no summary or notice."""
        return self.kind not in NOT_FINDINGS and not self.negated


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
    folded = fold(raw)
    if not folded:
        return ()
    return tuple(_read(folded, text))


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
    """``normalize`` of each line of a report, one after the other."""
    return tuple(statement for line in raw_lines for statement in _normalized(line))


def _read(folded: str, raw: str) -> list[Statement]:
    text = wording.NOTICE_TO_END.sub("", folded).strip(" ,")
    is_notice = text != folded
    if wording.TECHNICAL.search(text):
        is_notice = True
        clauses = wording.CLAUSES.split(text)
        text = " , ".join(part for part in clauses if not wording.TECHNICAL.search(part))
    found = find_concepts(text)
    if is_notice:
        topics = (name for name, pattern in wording.NOTICES if pattern.search(folded))
        leads = _leads_in(folded.replace(",", " "))
        notice = _bare("technical", "technical", raw, base=next(topics, "notice"), leads=leads)
        return [*(_read_clauses(text, found, raw) if found else ()), notice]
    return _read_clauses(text, found, raw) if found else [_unread(text, raw)]


def _read_clauses(text: str, found: list[tuple[int, int, Concept]], raw: str) -> list[Statement]:
    statements: list[Statement] = []
    before = text[: found[0][0]]
    for index, (start, end, concept) in enumerate(found):
        is_last = index + 1 == len(found)
        after = text[end : len(text) if is_last else found[index + 1][0]]
        statement, rest = _statement(concept, before, after, is_last, raw)
        previous = statements[-1] if statements else None
        if previous is not None and _explains(previous, concept, before):
            statements[-1] = _with_cause(previous, statement, before)
        elif previous is not None and (ratio := _conducts(previous, text[start:end], before)):
            statements[-1] = replace(previous, degree=ratio)
        else:
            # "A or B" asserts neither; "no A or B" denies both.
            if previous is not None and before.strip() == "or" and previous.negated:
                statement = replace(statement, negated=True)
            elif previous is not None and before.strip() == "or":
                statements[-1] = _at_most_possible(previous)
                statement = _at_most_possible(statement)
            statements.append(statement)
        before = rest
    return statements


def _explains(previous: Statement, concept: Concept, before: str) -> bool:
    """Whether a concept is given as the cause of the statement before it."""
    if previous.kind not in wording.EXPLAINED_KINDS or previous.negated:
        return False
    if not concept.names_disease or concept.kind == "rhythm":
        return False
    joins = previous.cause is not None and wording.JOINS_CAUSES.match(before.strip())
    return bool(joins or wording.LINK.search(before))


def _conducts(previous: Statement, named: str, before: str) -> str | None:
    """The ratio in "atrial flutter with 2:1 block": how a flutter conducts, no block of its own."""
    if previous.base not in ("atrial_flutter", "atrial_tachycardia") or "degree" in named:
        return None
    ratio = re.search(r"\d+:\d+|variable", f"{previous.degree} {before} {named}")
    return ratio[0] if ratio and named.endswith("block") else None


def _at_most_possible(statement: Statement) -> Statement:
    if statement.certainty != "definite":
        return statement
    return replace(statement, certainty="possible")


def _with_cause(previous: Statement, cause: Statement, before: str) -> Statement:
    """The statement with its cause; it takes over the cause's wall if it names none itself."""
    has_walls = concepts()[previous.base].walls
    territory = (previous.territory or cause.territory) if has_walls else ()
    name = display_name(cause.base if has_walls else cause.concept)
    if cause.acuity in ("acute", "recent", "old"):
        name = f"{cause.acuity} {name}"
    if previous.cause is not None:
        words = f"{previous.cause} or {name}"
    else:
        words = f"{_hedge_of_cause(cause.certainty, before)} {name}"
    return replace(
        previous,
        cause=words,
        territory=territory,
        concept=concept_name(previous.base, territory),
        remainder=" ".join(part for part in (previous.remainder, cause.remainder) if part),
    )


def _hedge_of_cause(certainty: str, before: str) -> str:
    if re.search(r"\b(?:due|secondary|related) to\b", before):
        return "due to" if certainty == "definite" else "possibly due to"
    if certainty == "cannot_rule_out":
        return "cannot rule out"
    return certainty if certainty in ("possible", "probable") else "consider"


@dataclass(slots=True)
class _Tail:
    """What the words behind a concept say of it, and what they leave unread."""

    rest: str
    certainty: str | None = None
    acuity: str | None = None
    degree: str | None = None
    rate_response: str | None = None
    walls: set[str] = field(default_factory=set)
    leads: tuple[str, ...] = ()


def _tail(after: str, is_last: bool) -> _Tail:
    """Reads modifiers behind a concept until a word comes that may belong to the next one."""
    tail = _Tail(after)
    while True:
        unread = tail.rest
        if found := wording.PLACED_AFTER.match(tail.rest):
            tail.walls |= _walls_in(found["walls"] or "")
            tail.leads += _leads_in(found["leads"] or "")
            tail.rest = tail.rest[found.end() :]
        if found := wording.AFTER.match(tail.rest):
            if found["certainty"] and tail.certainty is None:
                tail.certainty, _ = _take(wording.CERTAINTY, found["certainty"])
            tail.rest = tail.rest[found.end() :]
        stripped = tail.rest.lstrip(" ,'")
        for name, pattern in wording.ACUITY:
            # "acute" between two concepts is the next one's.
            if (found := pattern.match(stripped)) and (is_last or name != "acute"):
                tail.acuity = tail.acuity or name
                tail.rest = stripped = stripped[found.end() :]
        if found := wording.RATE_RESPONSE.match(stripped):
            tail.rate_response, tail.rest = found[1], stripped[found.end() :]
        if found := wording.RATIO_AFTER.match(tail.rest):
            tail.degree, tail.rest = tail.degree or found[1], tail.rest[found.end() :]
        if tail.rest == unread:
            break
    if is_last and (found := wording.RATE_RESPONSE.search(tail.rest)):
        tail.rate_response = tail.rate_response or found[1]
        tail.rest = wording.RATE_RESPONSE.sub(" ", tail.rest)
    return tail


def _statement(
    concept: Concept, before: str, after: str, is_last: bool, raw: str
) -> tuple[Statement, str]:
    """A concept with what the words around it say, and the words left for the next concept."""
    doubts_removed = wording.CERTAINTY[0][1].sub("", before)
    negated = bool(
        wording.NEGATED_AFTER.match(after) or wording.NEGATED_BEFORE.search(doubts_removed)
    )
    tail = _tail(after, is_last)
    acuity, before = _take(wording.ACUITY, before)
    certainty, before = _take(wording.CERTAINTY, before)
    degree = wording.DEGREE.search(before)
    rate = wording.RATE_RESPONSE.search(before)
    territory: tuple[str, ...] = ()
    if concept.walls:
        territory = ordered_walls(_walls_in(before) | tail.walls) or _wall_of_leads(tail.leads)
    left = f"{before} {tail.rest}" if is_last else before
    for pattern in (wording.DEGREE, wording.WALL_WORD, wording.RATE_RESPONSE, wording.LINK):
        left = pattern.sub(" ", left)
    statement = Statement(
        concept=concept_name(concept.name, territory),
        kind=concept.kind,
        certainty=certainty or tail.certainty or "definite",
        acuity=acuity or tail.acuity,
        territory=territory,
        degree=concept.degree or (degree[1] if degree else tail.degree),
        raw=raw,
        base=concept.name,
        rate_response=rate[1] if rate else tail.rate_response,
        leads=tail.leads,
        negated=negated,
        remainder=_meaningful(left),
        rank=concept.rank,
    )
    return statement, tail.rest


def _walls_in(text: str) -> set[str]:
    words = wording.WALL_WORD.findall(text)
    return {wall for word in words for wall in WALLS_OF_WORD[word]}


def _take(table: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> tuple[str | None, str]:
    """The first name of the table whose words the text holds, and the text without all such."""
    taken = None
    for name, pattern in table:
        text, count = pattern.subn(" ", text)
        if count:
            taken = taken or name
    return taken, text


def _leads_in(text: str) -> tuple[str, ...]:
    named = {canonical_lead(word) for word in text.split()}
    return tuple(lead for lead in STANDARD_LEADS if lead in named)


def _wall_of_leads(leads: tuple[str, ...]) -> tuple[str, ...]:
    """The wall that all of the leads look at; none where they look at opposite ones."""
    if leads:
        for wall, of_wall in (
            ("inferior", {"II", "III", "aVF"}),
            ("lateral", {"I", "aVL", "V5", "V6"}),
            ("anterior", {"V1", "V2", "V3", "V4"}),
        ):
            if set(leads) <= of_wall:
                return (wall,)
        if not set(leads) & {"II", "III", "aVF", "aVR"}:
            return ("anterior", "lateral")
    return ()


def _meaningful(text: str) -> str:
    words = [word for word in re.findall(r"[\w']+", text) if word not in FILLER]
    return " ".join(word for word in words if not re.fullmatch(wording.LEAD, word))


def _bare(
    concept: str,
    kind: str,
    raw: str,
    *,
    base: str = "",
    acuity: str | None = None,
    leads: tuple[str, ...] = (),
    remainder: str = "",
) -> Statement:
    return Statement(
        concept, kind, "definite", acuity, (), None, raw, base, leads=leads, remainder=remainder
    )


def _unread(folded: str, raw: str) -> Statement:
    """A line without a known concept: a fragment if it only modifies another, else unknown."""
    acuity, rest = _take(wording.ACUITY, folded)
    _, rest = _take(wording.CERTAINTY, rest)
    for pattern in (wording.DEGREE, wording.WALL_WORD, wording.RATE_RESPONSE, wording.LINK):
        rest = pattern.sub(" ", rest)
    if not _meaningful(rest):
        return _bare("fragment", "fragment", raw, acuity=acuity)
    words = folded.replace(" ,", ",")
    return _bare(f"unknown:{words}", "unknown", raw, remainder=_meaningful(folded))
