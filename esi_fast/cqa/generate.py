"""Describes each canonical statement once, from retrieved passages, and checks what was written.

retrieve -> generate -> check; a text that fails is asked for once more, then the template
writes it, and if even that fails (or no passage fits) the bare statement stands alone.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.checks import CHECKS, Allowed, run_checks
from esi_fast.cqa.concepts import WALL_LEADS
from esi_fast.cqa.dictionary import CaptionDictionary, Description
from esi_fast.cqa.knowledge import passage_retriever
from esi_fast.cqa.phrases import phrase
from esi_fast.cqa.requests import Answer, Backend, Request
from esi_fast.cqa.statements import Statement, statements_of
from esi_fast.cqa.template import TemplateBackend, template_texts
from esi_fast.cqa.whole_file import whole_file
from esi_fast.leads import STANDARD_LEADS
from esi_fast.retriever import Document, Retriever

# Below these scores nothing in the passages is about the statement: abstain.
MIN_SCORE = {"bm25": 1.0, "dense": 0.1}
_ACUTE = ("acute", "recent")


@dataclass(slots=True)
class Described:
    """What became of a set of statements.

    Attributes:
        descriptions: one a canonical statement, in the order of first occurrence.
        checked: texts by (backend, attempt, check, "passed" or "failed").
        asked: requests sent to the backend.
        remembered: requests answered from the answer file.
        errors: requests without an answer, by reason.
        abstained: statements of which no passage speaks.
    """

    descriptions: list[Description] = field(default_factory=list)
    checked: Counter[tuple[str, int, str, str]] = field(default_factory=Counter)
    asked: int = 0
    remembered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    abstained: int = 0


def retrieve(statement: Statement, retriever: Retriever, k: int = 3) -> tuple[Document, ...]:
    """Passages about a statement: of its own concept, else of its base without a wall.

    Concept, wall, side, degree and acuity are hard filters, not similarity: an inferior infarct
    never gets a passage about the anterior wall, nor an old one that of an acute one. Side and
    degree are part of a concept's name.

    Returns:
        At most ``k`` passages, built-in ones first and then best first; empty when nothing fits
        well enough.
    """
    if not statement.is_finding:
        return ()
    words = phrase(statement)
    acuities = ("acute", "") if statement.acuity in _ACUTE else ("",)
    for concept in dict.fromkeys((statement.concept, statement.base)):
        for acuity in acuities:
            wanted = {"concept": concept, "acuity": acuity}
            # All of them, or many books would drive out the built-in passage.
            every = max(len(retriever), 1)
            hits = retriever.query(words, k=every, filter=wanted, min_score=MIN_SCORE)
            if hits:
                found = [hit.document for hit in hits]
                ranked = sorted(found, key=lambda one: "appearance" not in one.metadata)
                return tuple(ranked[:k])
    return ()


def canonical(statements: Iterable[Statement]) -> dict[str, Statement]:
    """Statements by their canonical words, in the order of first occurrence.

    Denied statements, fragments, notices that limit nothing and lines that could not be read,
    which may hold anything, are left out.
    """
    plan: dict[str, Statement] = {}
    for statement in statements:
        words = phrase(statement)
        is_read = statement.kind not in ("fragment", "unknown")
        if words and is_read and not statement.negated:
            plan.setdefault(words, statement)
    return plan


def describe_all(
    statements: Iterable[Statement],
    backend: Backend,
    retriever: Retriever,
    *,
    answers: AnswerFile | None = None,
    top_k: int = 3,
    progress: Callable[[int], object] = lambda done: None,
) -> Described:
    """One description per canonical statement: one request each, and one more where it fails.

    Args:
        statements: any, with repetitions.
        backend: what writes.
        retriever: over the passages.
        answers: remembers what the backend has answered; None asks anew every time.
        top_k: passages a statement.
        progress: called with the number of statements that are done since the last call.
    """
    job = _Job(progress)
    requests = []
    for words, statement in canonical(statements).items():
        job.made[words] = _bare(words, statement)
        passages = retrieve(statement, retriever, top_k)
        if passages:
            requests.append(Request(statement, words, passages, _leads(statement, passages)))
        else:
            job.described.abstained += statement.is_finding
            progress(1)
    if not isinstance(backend, TemplateBackend):
        refused, unanswered = job.round(requests, backend, answers)
        refused, unanswered_again = job.round(refused, backend, answers)
        # What got no answer was tried often enough by the backend itself.
        requests = [*refused, *unanswered, *unanswered_again]
    refused, unanswered = job.round(requests, TemplateBackend(), None)
    for request in (*refused, *unanswered):
        bare = job.made[request.words]
        job.made[request.words] = replace(bare, failures=tuple(job.failures[request.words]))
    progress(len(refused) + len(unanswered))
    job.described.descriptions = list(job.made.values())
    return job.described


def describe_reports(reports: Iterable[Sequence[str]]) -> CaptionDictionary:
    """Describes the lines of reports with the built-in passages and the template.

    A line may go on in the next one, so lines of different reports must be kept apart.
    """
    said = [one for lines in reports for one in statements_of(tuple(lines))]
    described = describe_all(said, TemplateBackend(), passage_retriever())
    return CaptionDictionary(described.descriptions)


class _Job:
    """Descriptions in the making."""

    def __init__(self, progress: Callable[[int], object]) -> None:
        self.described = Described()
        self.made: dict[str, Description] = {}
        self.failures: dict[str, list[str]] = defaultdict(list)
        self._progress = progress

    def round(
        self, requests: Sequence[Request], writer: Backend, answers: AnswerFile | None
    ) -> tuple[list[Request], list[Request]]:
        """Asks once for each; what was refused, to be asked again, and what got no answer."""
        refused, unanswered = [], []
        for request, answer in self._answered(requests, writer, answers):
            if answer.error:
                self.failures[request.words].append(f"{writer.name}: error: {answer.error}")
                self.described.errors[answer.error] += 1
                unanswered.append(request)
                continue
            text = answer.text.strip()
            reasons = run_checks(text, _allowed(request))
            for check in CHECKS:
                found = (writer.name, request.attempt, check)
                self.described.checked[*found, "failed" if check in reasons else "passed"] += 1
            if reasons:
                told = tuple(f"{name}: {reason}" for name, reason in reasons.items())
                self.failures[request.words] += [f"{writer.name}: {one}" for one in told]
                refused.append(replace(request, attempt=1, reasons=told))
            else:
                self._accept(request, text, writer)
        order = {request.words: place for place, request in enumerate(requests)}
        refused.sort(key=lambda one: order[one.words])
        return refused, unanswered

    def _answered(
        self, requests: Sequence[Request], writer: Backend, answers: AnswerFile | None
    ) -> Iterator[tuple[Request, Answer]]:
        """Every request with its answer, the remembered ones first; new ones are remembered."""
        keys = [request.key(writer) for request in requests]
        new = []
        for request, key in zip(requests, keys, strict=True):
            known = None if answers is None else answers.get(key)
            if known is None:
                new.append((request, key))
            else:
                self.described.remembered += 1
                yield request, Answer(known)
        for index, answer in writer.answers([request for request, _ in new]):
            request, key = new[index]
            if answers is not None and not answer.error:
                answers.add(key, answer.text)
            self.described.asked += not isinstance(writer, TemplateBackend)
            yield request, answer

    def _accept(self, request: Request, text: str, writer: Backend) -> None:
        paraphrases: tuple[str, ...] = ()
        if isinstance(writer, TemplateBackend):
            allowed = _allowed(request)
            others = template_texts(request)[1:]
            paraphrases = tuple(one for one in others if not run_checks(one, allowed))
        self.made[request.words] = replace(
            self.made[request.words],
            text=text,
            paraphrases=paraphrases,
            sources=tuple(passage.id for passage in request.passages),
            backend=writer.name,
            model=writer.model,
            prompt_sha256=request.key(writer),
            checks=tuple(CHECKS),
            failures=tuple(self.failures[request.words]),
        )
        self._progress(1)


def _bare(words: str, statement: Statement) -> Description:
    """The statement alone, with nothing written about it."""
    return Description(
        statement=words,
        concept=statement.concept,
        kind=statement.kind,
        certainty=statement.certainty,
        acuity=statement.acuity,
        territory=statement.territory,
        degree=statement.degree,
    )


def _leads(statement: Statement, passages: Sequence[Document]) -> tuple[str, ...]:
    """Leads that a description may name: the passages', the line's and those of its wall."""
    named = {lead for passage in passages for lead in passage.metadata.get("leads", ())}
    named |= {lead for wall in statement.territory for lead in WALL_LEADS[wall]}
    named |= set(statement.leads)
    return tuple(lead for lead in STANDARD_LEADS if lead in named)


def _allowed(request: Request) -> Allowed:
    return Allowed(
        statement=request.statement,
        passages=tuple(passage.text for passage in request.passages),
        leads=frozenset(request.leads),
        mentions=frozenset(
            name for passage in request.passages for name in passage.metadata.get("mentions", ())
        ),
    )


def write_checks(described: Described, path: Path) -> None:
    """Counts of the checks as a csv file: backend, attempt, check, texts, failed."""
    rows: dict[tuple[str, int, str], Counter[str]] = defaultdict(Counter)
    for (backend, attempt, check, result), count in described.checked.items():
        rows[backend, attempt, check][result] += count
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["backend", "attempt", "check", "texts", "failed"])
        for (backend, attempt, check), results in rows.items():
            total = results["passed"] + results["failed"]
            writer.writerow([backend, attempt, check, total, results["failed"]])
