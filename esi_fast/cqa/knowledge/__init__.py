"""The passages that captions rest on, and the retriever over them.

The files beside this module hold one passage a finding, in the project's own words. A row's keys:

    base, territory  the concept (and its wall) that the passage is about
    acuity           "acute" for the look of an acute infarct; left out otherwise
    side, degree     left, right or both; first, second, third or high: as the concept's name says
    title            searched with double weight
    appearance       what the tracing shows, without a number: captions quote it, behind "Possibly"
                     too. {leads} stands for the leads of the statement's wall
    paraphrases      one or two further wordings of the appearance
    mirror           with {leads}, what V1 to V3 show of the posterior wall, which they see from
                     behind: the reverse. "" where that is unsure; left out where a thing has no
                     direction, so that V1 to V3 are named like other leads
    text             definition, criteria with numbers, mimics; line ends are blanks
    leads            every lead that the wordings and the text name
    mentions         other diseases that the wordings or the text may name
    source           an entry of sources.toml
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from esi_fast.cqa.knowledge.passage import check_together, document_of
from esi_fast.retriever import Document, Retriever

_FOLDER = Path(__file__).parent
# Passages keep this order: among equal scores the first one wins.
_FILES = (
    "rhythm",
    "pacing",
    "conduction",
    "hypertrophy",
    "infarct",
    "acute_infarct",
    "st_t",
    "st_t_walls",
    "interval_axis",
    "morphology",
)


@lru_cache(maxsize=1)
def passages() -> tuple[Document, ...]:
    """Every built-in passage, always in the same order.

    A document's metadata: concept, base, kind, territory (list), side ("left", "right", "both" or
    ""), degree ("first", "second", "third", "high" or ""), acuity ("acute" or ""), appearance,
    paraphrases (list of 1 or 2), mirror (str or None), leads (list), mentions (list of concept
    bases) and source (the reference in full).

    Raises:
        ValueError: a passage breaks a rule of ``passage.document_of``; the message names it.
    """
    sources = sources_by_key()
    rows = [row for name in _FILES for row in _read(name)["passage"]]
    documents = tuple(document_of(row, sources) for row in rows)
    check_together(documents)
    return documents


def sources_by_key() -> dict[str, str]:
    """The references, by the short names that the passage files give."""
    sources: dict[str, str] = _read("sources")["sources"]
    return sources


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def passage_retriever(backend: str = "bm25") -> Retriever:
    """A retriever over the built-in passages.

    Raises:
        ValueError: the backend is not available.
    """
    retriever = Retriever(backend)
    retriever.add_documents(passages())
    return retriever
