"""Reads one folded report line: the statements that it makes, and how they bear on each other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import takewhile

from esi_fast.cqa import wording
from esi_fast.cqa.concepts import (
    Concept,
    concept_name,
    concept_words,
    concepts,
    display_name,
    find_concepts,
)
from esi_fast.cqa.denials import is_denied, plain_denials, unread_doubt
from esi_fast.cqa.modifiers import Tail, leads_in, rate_of, tail_of, take, territory_of, unread

NOT_FINDINGS = frozenset({"summary", "technical", "fragment", "unknown"})
# The order in which premature complexes come.
_ORDERS = frozenset({"bigeminy", "trigeminy"})


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
        raw: the line as it was given, with the lines that continue it.
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


def read_line(folded: str, raw: str) -> list[Statement]:
    """What a folded line says; a line that says nothing known gives one statement."""
    text = wording.NOTICE_TO_END.sub("", folded).strip(" ,")
    is_notice = text != folded
    if is_notice and (reason := wording.REASON.search(folded[len(text) :])):
        text = f"{text} , {reason[1]}".strip(" ,")
    if wording.TECHNICAL.search(text):
        is_notice = True
        clauses = wording.CLAUSES.split(text)
        text = " , ".join(part for part in clauses if not wording.TECHNICAL.search(part))
    masked = wording.MASKED.search(text) if wording.HEDGED.search(text) else None
    if masked:
        text = f"{text[: masked.start()]}{text[masked.end() :]}"
    text, sets_aside = plain_denials(text)
    is_notice |= sets_aside
    said, doubted = _read_surely(text, raw)
    if masked and said:
        # A cause goes into prompts: only words of the concept table do, no others of the line.
        by = list(takewhile(concept_words().__contains__, masked["by"].split()))
        words = " ".join([masked["words"].strip(), *by]) if by else None
        said[-1] = replace(said[-1], cause=said[-1].cause or words)
    if is_notice:
        topics = (name for name, pattern in wording.NOTICES if pattern.search(folded))
        leads = leads_in(folded.replace(",", " "))
        notice = _bare("technical", "technical", raw, base=next(topics, "notice"), leads=leads)
        return [*said, *doubted, notice]
    return [*said, *doubted] or [unread_line(folded, raw)]


def _read_surely(text: str, raw: str) -> tuple[list[Statement], list[Statement]]:
    """The statements of a text, and its part that words of doubt which were not read leave open."""
    found = find_concepts(text)
    doubted: list[Statement] = []
    if found and (sure := unread_doubt(text, found)) is not None:
        doubted = [_unknown(text[sure:], raw)]
        text = text[:sure].strip(" ,")
        found = find_concepts(text)
    return (_read_clauses(text, found, raw) if found else []), doubted


def _read_clauses(text: str, found: list[tuple[int, int, Concept]], raw: str) -> list[Statement]:
    statements: list[Statement] = []
    before = text[: found[0][0]]
    for index, (start, end, concept) in enumerate(found):
        is_last = index + 1 == len(found)
        after = text[end : len(text) if is_last else found[index + 1][0]]
        statement, rest = _statement(concept, text[start:end], before, after, is_last, raw)
        previous = statements[-1] if statements else None
        if previous is None:
            if wording.ALTERNATIVE.match(before):
                statement = _at_most_possible(statement)
            statements.append(statement)
        elif not statement.negated and _explains(previous, concept, before):
            statements[-1] = _with_cause(previous, statement, before)
        elif ratio := _conducts(previous, text[start:end], before):
            rate = previous.rate_response or statement.rate_response
            statements[-1] = replace(previous, degree=ratio, rate_response=rate)
        else:
            _add(statements, statement, before, text[end:])
        before = rest
    return statements


def _add(statements: list[Statement], statement: Statement, before: str, behind: str) -> None:
    """Appends a statement; the words before it may make it an alternative to the last one."""
    previous = statements[-1]
    is_alternative = bool(wording.ALTERNATIVE.match(before))
    is_listed = bool(wording.LISTED.match(before))
    is_order = statement.base in _ORDERS and previous.base.startswith("premature_")
    if is_order and before.strip() in ("", "in", "with"):
        # "No PVCs in bigeminy", "ventricular bigeminy cannot be excluded": both or neither.
        hedge = statement.certainty if previous.certainty == "definite" else previous.certainty
        previous = statements[-1] = replace(previous, certainty=hedge)
        statement = replace(statement, certainty=hedge, negated=previous.negated)
    if previous.base == "undetermined_rhythm" and is_listed and not previous.negated:
        # "Rhythm unclear, sinus rhythm": a guess. Single beats are seen all the same.
        concept = concepts()[statement.base]
        if concept.kind == "rhythm" and concept.rank < concepts()["bigeminy"].rank:
            statement = _at_most_possible(statement)
    is_joined = is_alternative or before.strip() == "and"
    if previous.negated and (is_joined or (is_listed and re.search(r"\bn?or\b", behind))):
        # "no A, B or C" and "no A and B" deny all of them.
        statement = replace(statement, negated=True)
    if is_joined:
        statement = _share_walls(statements, statement, is_alternative)
    for index, known in enumerate(statements):
        if same := _merged(known, statement, is_alternative):
            statements[index] = same
            return
    if is_alternative and not statement.negated:
        # "A or B" asserts neither; A may be beats and their order.
        if previous.base in _ORDERS and statement.base not in _ORDERS and len(statements) > 1:
            beats = statements[-2]
            if beats.base.startswith("premature_") and beats.certainty == previous.certainty:
                statements[-2] = _at_most_possible(beats)
        previous = statements[-1] = _at_most_possible(statements[-1])
        if statement.certainty in ("definite", "probable"):
            hedges = ("consider", "cannot_rule_out")
            hedge = previous.certainty if previous.certainty in hedges else "possible"
            statement = replace(statement, certainty=hedge)
    statements.append(statement)


def _share_walls(
    statements: list[Statement], statement: Statement, is_alternative: bool
) -> Statement:
    """The wall of "ischemia or infarct, anterior wall" is that of both."""
    if not statement.territory:
        shares = is_alternative and concepts()[statement.base].walls
        return _placed(statement, statements[-1].territory) if shares else statement
    for index in range(len(statements) - 1, -1, -1):
        earlier = statements[index]
        if not concepts()[earlier.base].walls or earlier.territory:
            break
        statements[index] = _placed(earlier, statement.territory)
        if not is_alternative:
            break
    return statement


def _placed(statement: Statement, territory: tuple[str, ...]) -> Statement:
    concept = concept_name(statement.base, territory)
    return replace(statement, territory=territory, concept=concept)


def _merged(known: Statement, said: Statement, is_alternative: bool) -> Statement | None:
    """Both as one, if the line only says the same again ("extrasystole, type: single PVC")."""
    general = said.base == "premature_complexes" and known.base.startswith("premature_")
    if (known.base != said.base and not general) or known.negated != said.negated:
        return None
    if known.territory != said.territory and known.territory and said.territory:
        return None
    acuity = known.acuity or said.acuity
    if known.acuity and said.acuity and known.acuity != said.acuity:
        if not is_alternative:
            return None
        acuity = "undetermined"
    words = dict.fromkeys(f"{known.remainder} {said.remainder}".split())
    return replace(
        _placed(known, known.territory or said.territory),
        acuity=acuity,
        certainty=said.certainty if known.certainty == "definite" else known.certainty,
        degree=known.degree or said.degree,
        rate_response=known.rate_response or said.rate_response,
        leads=known.leads or said.leads,
        remainder=" ".join(words),
    )


def _explains(previous: Statement, concept: Concept, before: str) -> bool:
    """Whether a concept is given as the cause of the statement before it."""
    if previous.kind not in wording.EXPLAINED_KINDS or previous.negated:
        return False
    if not concept.names_disease or concept.kind == "rhythm":
        return False
    if concept.kind == "infarct" and previous.kind in ("axis", "interval"):
        return "due to" in before
    joins = previous.cause is not None and wording.JOINS_CAUSES.match(before.strip())
    return bool(joins or wording.LINK.search(before))


def _conducts(previous: Statement, named: str, before: str) -> str | None:
    """The ratio in "atrial flutter with 2:1 block": how a flutter conducts, no block of its own."""
    if previous.base not in ("atrial_flutter", "atrial_tachycardia") or "degree" in named:
        return None
    ratio = wording.RATIO.search(f"{previous.degree} {before} {named}")
    return ratio[0] if ratio and named.endswith("block") else None


def _at_most_possible(statement: Statement) -> Statement:
    if statement.certainty not in ("definite", "probable"):
        return statement
    return replace(statement, certainty="possible")


def _with_cause(previous: Statement, cause: Statement, before: str) -> Statement:
    """The statement with its cause; it takes over the cause's wall if it names none itself."""
    has_walls = concepts()[previous.base].walls
    territory = (previous.territory or cause.territory) if has_walls else ()
    is_there = has_walls and cause.territory in ((), territory)
    name = display_name(cause.base if is_there else cause.concept)
    if cause.acuity in ("acute", "recent", "old"):
        name = f"{cause.acuity} {name}"
    if previous.cause is not None:
        is_told = re.search(rf"\b{re.escape(name)}$", previous.cause)
        words = previous.cause if is_told else f"{previous.cause} or {name}"
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
        hedges = {"definite": "due to", "probable": "probably due to"}
        return hedges.get(certainty, "possibly due to")
    if certainty == "cannot_rule_out":
        return "cannot rule out"
    return certainty if certainty in ("possible", "probable") else "consider"


def _statement(
    concept: Concept, named: str, before: str, after: str, is_last: bool, raw: str
) -> tuple[Statement, str]:
    """A concept with what the words around it say, and the words left for the next concept."""
    negated = is_denied(before)
    tail = tail_of(after, is_last)
    if concept.walls:
        tail.leads = tail.leads or leads_in(before.replace(",", " "))
    acuity, before = take(wording.ACUITY, before)
    certainty, before = take(wording.CERTAINTY, before)
    degree = wording.DEGREE.search(before)
    rate = wording.RATE_RESPONSE.search(before)
    territory = territory_of(before, tail) if concept.walls else ()
    ratio = wording.RATIO.search(f"{named} {tail.degree or ''}")
    said_degree: str | None
    if concept.degree:
        said_degree = ratio[0] if ratio else concept.degree
    else:
        said_degree = degree[1] if degree else tail.degree or (ratio[0] if ratio else None)
    statement = Statement(
        concept=concept_name(concept.name, territory),
        kind=concept.kind,
        certainty="definite" if negated else certainty or tail.certainty or "definite",
        acuity=acuity or tail.acuity,
        territory=territory,
        degree=said_degree,
        raw=raw,
        base=concept.name,
        rate_response=rate_of(rate) if rate else tail.rate_response,
        leads=tail.leads,
        negated=negated,
        remainder=unread(f"{before} {tail.rest}" if is_last else before, concept.qualifiers),
        rank=concept.rank,
    )
    if tail.is_normal_variant and _is_disease(concept):
        statement = _at_most_possible(statement)
    return statement, tail.rest


def _is_disease(concept: Concept) -> bool:
    """Whether what is called a normal variant is not this concept at all."""
    is_one = concept.kind in ("infarct", "hypertrophy", "ST-T") and concept.names_disease
    return is_one and concept.name not in wording.NORMAL_VARIANTS


def _bare(
    concept: str,
    kind: str,
    raw: str,
    *,
    base: str = "",
    leads: tuple[str, ...] = (),
    remainder: str = "",
) -> Statement:
    return Statement(
        concept, kind, "definite", None, (), None, raw, base, leads=leads, remainder=remainder
    )


def _unknown(folded: str, raw: str) -> Statement:
    words = folded.replace(" ,", ",")
    return _bare(f"unknown:{words}", "unknown", raw, remainder=unread(folded))


def unread_line(folded: str, raw: str) -> Statement:
    """A line without a known concept: a fragment if it only modifies another, else unknown."""
    acuity, rest = take(wording.ACUITY, folded)
    certainty, rest = take(wording.CERTAINTY, rest)
    if unread(wording.CONDUCTS.sub("", rest)):
        return _unknown(folded, raw)
    if wording.NEGATED_BEFORE.search(folded):
        return _bare("fragment", "fragment", raw)
    degree, rate = wording.DEGREE.search(rest), wording.RATE_RESPONSE.search(rest)
    leads = leads_in(rest.replace(",", " "))
    return replace(
        _bare("fragment", "fragment", raw, leads=leads),
        certainty=certainty or "definite",
        acuity=acuity,
        territory=territory_of(rest, Tail("", leads=leads)),
        degree=degree[1] if degree else None,
        rate_response=rate_of(rate) if rate else None,
    )
