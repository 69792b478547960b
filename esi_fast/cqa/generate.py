"""Describes each canonical statement once, from retrieved passages, and checks what was written.

retrieve -> generate -> check; a text that fails is asked for once more, then the template
writes it, and if even that fails (or no passage fits) the bare statement stands alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from esi_fast.cqa.checks import CHECKS, Allowed, run_checks
from esi_fast.cqa.concepts import WALL_LEADS
from esi_fast.cqa.dictionary import Description
from esi_fast.cqa.phrases import phrase
from esi_fast.cqa.statements import Statement
from esi_fast.leads import STANDARD_LEADS
from esi_fast.retriever import Document, Retriever

# Below this BM25 score nothing in the passages is about the statement: abstain.
MIN_SCORE = 1.0
_LEADS_SLOT = "{leads}"
_LEAD_INS = {
    "definite": "",
    "probable": "probably ",
    "possible": "possibly ",
    "consider": "to consider: ",
    "cannot_rule_out": "not excluded: ",
    "borderline": "borderline: ",
    "nonspecific": "nonspecific: ",
}
# Leads as a reader names them, where they differ from the union of the walls' leads.
_LEADS_OF_WALLS = {
    ("anterior", "lateral"): ("I", "aVL", "V3", "V4", "V5", "V6"),
    ("anterior",): ("V2", "V3", "V4"),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a backend is asked to describe.

    Attributes:
        statement: the statement.
        words: its canonical words.
        passages: what was retrieved, best first; never empty.
        attempt: 0, or 1 after a text that failed its checks.
        reasons: why that text failed, by check.
    """

    statement: Statement
    words: str
    passages: tuple[Document, ...]
    attempt: int = 0
    reasons: tuple[str, ...] = ()

    def digest(self, backend: Backend) -> str:
        """SHA-256 of everything that decides the answer."""
        given = {
            "backend": backend.name,
            "model": backend.model,
            "statement": self.words,
            "passages": [[p.id, p.title, p.text, dict(p.metadata)] for p in self.passages],
            "attempt": self.attempt,
            "reasons": list(self.reasons),
        }
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


class Backend(Protocol):
    """Whatever writes descriptions: ``name`` and ``model`` go into the dictionary."""

    @property
    def name(self) -> str:
        """The backend's name, as ``--backend`` takes it."""

    @property
    def model(self) -> str:
        """What wrote the text, with its version."""

    def generate(self, request: Request) -> str:
        """What the ECG shows for the statement: one sentence or two."""


class TemplateBackend:
    """The passage's own appearance sentence, with the statement's leads and hedge; no model."""

    name = "template"
    model = "template-1"

    def generate(self, request: Request) -> str:
        """The same request always gives the same sentence."""
        metadata = request.passages[0].metadata
        appearance = str(metadata["appearance"])
        if _LEADS_SLOT in appearance:
            appearance = _placed(appearance, metadata["mirror"], request.statement)
        text = f"{_LEAD_INS[request.statement.certainty]}{appearance}."
        return text[0].upper() + text[1:]


def _placed(appearance: str, mirror: str | None, statement: Statement) -> str:
    """The appearance in the statement's leads; of the posterior wall its mirror, if it has one."""
    walls, behind = statement.territory, set(WALL_LEADS["posterior"])
    if "posterior" not in walls or mirror is None:
        return appearance.replace(_LEADS_SLOT, _in_words(statement.leads or _leads_of(walls)))
    if statement.leads:
        # V1 to V3 named by the line itself may be meant either way: nothing is said of them.
        clear = tuple(lead for lead in statement.leads if lead not in behind)
        return appearance.replace(_LEADS_SLOT, _in_words(clear))
    leads = _leads_of(tuple(wall for wall in walls if wall != "posterior"))
    front = appearance.replace(_LEADS_SLOT, _in_words(leads))
    # Leads that look at a wall before them are not said to show the one behind as well.
    if not mirror or behind & set(leads):
        return front
    return f"{front}; {mirror}" if leads else mirror


def _leads_of(walls: tuple[str, ...]) -> tuple[str, ...]:
    of_walls = {lead for wall in walls for lead in WALL_LEADS[wall]}
    named = _LEADS_OF_WALLS.get(walls, of_walls)
    return tuple(lead for lead in STANDARD_LEADS if lead in named)


def _in_words(leads: tuple[str, ...]) -> str:
    if not leads:
        return "the affected leads"
    return leads[0] if len(leads) == 1 else f"{', '.join(leads[:-1])} and {leads[-1]}"


def retrieve(statement: Statement, retriever: Retriever, k: int = 3) -> tuple[Document, ...]:
    """Passages about a statement: of its own concept, else of its base without a wall.

    Concept and wall are hard filters, not similarity: an inferior infarct never gets a passage
    about the anterior wall.

    Returns:
        At most ``k`` passages, best first; empty when nothing fits well enough.
    """
    if not statement.is_finding:
        return ()
    words = phrase(statement)
    for concept in dict.fromkeys((statement.concept, statement.base)):
        hits = retriever.query(words, k=k, filter={"concept": concept}, min_score=MIN_SCORE)
        if hits:
            return tuple(hit.document for hit in hits)
    return ()


def describe(statement: Statement, backend: Backend, retriever: Retriever) -> Description:
    """One line of the dictionary; its text is empty where the bare statement must do."""
    words = phrase(statement)
    known: dict[str, Any] = {
        "statement": words,
        "concept": statement.concept,
        "kind": statement.kind,
        "certainty": statement.certainty,
        "acuity": statement.acuity,
        "territory": statement.territory,
        "degree": statement.degree,
    }
    passages = retrieve(statement, retriever)
    if not passages:
        return Description(**known)
    allowed = Allowed(
        statement=statement,
        passages=tuple(passage.text for passage in passages),
        leads=frozenset(lead for passage in passages for lead in passage.metadata["leads"]),
        mentions=frozenset(name for passage in passages for name in passage.metadata["mentions"]),
    )
    failures: list[str] = []
    reasons: tuple[str, ...] = ()
    is_template = isinstance(backend, TemplateBackend)
    writers = (backend,) if is_template else (backend, backend, TemplateBackend())
    for attempt, writer in enumerate(writers):
        request = Request(statement, words, passages, min(attempt, 1), reasons)
        text = " ".join(writer.generate(request).split(" "))
        failed = run_checks(text, allowed)
        if not failed:
            return Description(
                **known,
                text=text,
                sources=tuple(passage.id for passage in passages),
                backend=writer.name,
                model=writer.model,
                prompt_sha256=request.digest(writer),
                checks=tuple(CHECKS),
                failures=tuple(failures),
            )
        reasons = tuple(f"{name}: {reason}" for name, reason in failed.items())
        failures += [f"{writer.name}: {reason}" for reason in reasons]
    return Description(**known, failures=tuple(failures))


def describe_all(
    statements: Iterable[Statement], backend: Backend, retriever: Retriever
) -> Iterator[Description]:
    """One description per canonical statement, in the order of first occurrence.

    Denied statements, fragments and notices that limit nothing have none.
    """
    seen: set[str] = set()
    for statement in statements:
        words = phrase(statement)
        if statement.negated or statement.kind == "fragment" or not words or words in seen:
            continue
        seen.add(words)
        yield describe(statement, backend, retriever)
