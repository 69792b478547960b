"""The passages that captions rest on, and the retriever over them."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from esi_fast.cqa.concepts import concept_name, concepts, ordered_walls
from esi_fast.leads import STANDARD_LEADS
from esi_fast.retriever import Document, Retriever

_FILE = Path(__file__).with_name("passages.toml")
_REQUIRED = ("base", "title", "appearance", "text", "leads", "source")


@lru_cache(maxsize=1)
def passages() -> tuple[Document, ...]:
    """Every built-in passage.

    A document's metadata: concept, base, kind, territory (list), appearance, leads (list),
    mentions (list of concept bases), mirror (str or None) and source (the reference in full).

    Raises:
        ValueError: the file breaks its own rules; the message names the passage.
    """
    table: dict[str, Any] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(_document(row, table["sources"]) for row in table["passage"])


def _document(row: dict[str, Any], sources: dict[str, str]) -> Document:
    name = row.get("title", row.get("base", "without a title"))
    missing = [key for key in _REQUIRED if key not in row]
    if missing:
        raise ValueError(f"passage {name!r} lacks {', '.join(missing)}")
    walls = ordered_walls(set(row.get("territory", ())))
    foreign = sorted(set(row["leads"]) - set(STANDARD_LEADS))
    strangers = sorted({row["base"], *row.get("mentions", ())} - set(concepts()))
    if foreign or strangers or len(walls) != len(row.get("territory", ())):
        raise ValueError(f"passage {name!r} names what does not exist: {foreign or strangers}")
    concept = concept_name(row["base"], walls)
    return Document(
        id=concept.replace("_", "-"),
        title=row["title"],
        text=row["text"].strip(),
        metadata={
            "concept": concept,
            "base": row["base"],
            "kind": concepts()[row["base"]].kind,
            "territory": list(walls),
            "appearance": row["appearance"],
            "mirror": row.get("mirror"),
            "leads": list(row["leads"]),
            "mentions": list(row.get("mentions", ())),
            "source": sources[row["source"]],
        },
    )


def passage_retriever(backend: str = "bm25") -> Retriever:
    """A retriever over the built-in passages.

    Raises:
        ValueError: the backend is not available.
    """
    retriever = Retriever(backend)
    retriever.add_documents(passages())
    return retriever
