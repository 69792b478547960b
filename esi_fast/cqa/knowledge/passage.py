"""One passage as a document, and the rules that every passage keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from esi_fast.cqa.concepts import concept_name, concepts, ordered_walls
from esi_fast.cqa.lead_words import leads_named
from esi_fast.leads import STANDARD_LEADS
from esi_fast.retriever import Document

LEADS_SLOT = "{leads}"
_NEEDED = ("base", "title", "appearance", "paraphrases", "text", "leads", "source")
_OPTIONAL = ("territory", "side", "degree", "acuity", "mirror", "mentions")
_TEXT_WORDS = (35, 130)
_WORDING_WORDS = (3, 20)

_LEAD = re.compile(r"\b(?:aV[RLF]|V[1-6]|I{1,3})\b")
# A wording stands behind "Possibly": in lower case, unless it starts with a wave or an interval.
_START = re.compile(r"(?:[a-z]|(?:[PQRSTUJ]|PP|PR|QRS|QS|QT|RR|ST)(?:-[A-Z]+)*\b)")


def document_of(row: Mapping[str, Any], sources: Mapping[str, str]) -> Document:
    """A row of a passage file as a document for the retriever.

    Raises:
        ValueError: the row breaks a rule; the message names the passage.
    """
    name = row.get("title", row.get("base", "without a title"))
    try:
        return _document(row, sources)
    except ValueError as error:
        raise ValueError(f"passage {name!r} {error}") from None


def check_together(documents: Iterable[Document]) -> None:
    """No id and no wording may stand for two passages; {leads} of other walls are other words.

    Raises:
        ValueError: it does; the message names the passage.
    """
    ids: set[str] = set()
    said: dict[tuple[str, ...], str] = {}
    for document in documents:
        if document.id in ids:
            raise ValueError(f"passage {document.title!r} has the id {document.id!r} of another")
        ids.add(document.id)
        for words in (document.metadata["appearance"], *document.metadata["paraphrases"]):
            walls = document.metadata["territory"] if LEADS_SLOT in words else ()
            key = (words.casefold(), *walls)
            if key in said:
                raise ValueError(f"passage {document.title!r} says the same as {said[key]!r}")
            said[key] = document.title


def _document(row: Mapping[str, Any], sources: Mapping[str, str]) -> Document:
    if missing := [key for key in _NEEDED if key not in row]:
        raise ValueError(f"lacks {', '.join(missing)}")
    if unknown := sorted(set(row) - {*_NEEDED, *_OPTIONAL}):
        raise ValueError(f"has unknown keys: {', '.join(unknown)}")
    base, text = row["base"], " ".join(row["text"].split())
    walls = ordered_walls(set(row.get("territory", ())))
    strangers = {base, *row.get("mentions", ())} - set(concepts())
    strangers |= set(row["leads"]) - set(STANDARD_LEADS)
    strangers |= set(row.get("territory", ())) - set(walls)
    strangers |= {row["source"]} - set(sources)
    if strangers:
        raise ValueError(f"names what does not exist: {', '.join(sorted(strangers))}")
    if walls and not concepts()[base].walls:
        raise ValueError(f"has a territory, but {base} is of no wall")
    _check_attributes(row)
    _check_wordings(row)
    if not _TEXT_WORDS[0] <= len(text.split()) <= _TEXT_WORDS[1]:
        raise ValueError(f"has a text of {len(text.split())} words, not {_TEXT_WORDS}")
    said = " ; ".join((row["appearance"], *row["paraphrases"], row.get("mirror", ""), text))
    if unlisted := (leads_named(said) & set(STANDARD_LEADS)) - set(row["leads"]):
        raise ValueError(f"names leads outside its list: {', '.join(sorted(unlisted))}")
    concept, acuity = concept_name(base, walls), row.get("acuity", "")
    return Document(
        id="-".join(filter(None, (acuity, concept.replace("_", "-")))),
        title=row["title"],
        text=text,
        metadata={
            "concept": concept,
            "base": base,
            "kind": concepts()[base].kind,
            "territory": list(walls),
            "side": row.get("side", ""),
            "degree": row.get("degree", ""),
            "acuity": acuity,
            "appearance": row["appearance"],
            "paraphrases": list(row["paraphrases"]),
            "mirror": row.get("mirror"),
            "leads": list(row["leads"]),
            "mentions": list(row.get("mentions", ())),
            "source": sources[row["source"]],
        },
    )


def _check_attributes(row: Mapping[str, Any]) -> None:
    """Side and degree repeat what the concept says; acuity is acute or left out."""
    base = row["base"]
    if row.get("side", "") != (side := _side_of(base)):
        raise ValueError(f"has side {row.get('side', '')!r}; {base} has {side!r}")
    degree = concepts()[base].degree or ""
    if row.get("degree", "") != degree:
        raise ValueError(f"has degree {row.get('degree', '')!r}; {base} has {degree!r}")
    if row.get("acuity", "") not in ("", "acute"):
        raise ValueError(f"has acuity {row['acuity']!r}; give 'acute' or leave it out")


def _side_of(base: str) -> str:
    words = base.split("_")
    sides = [side for side in ("left", "right") if side in words]
    if {"biventricular", "biatrial"} & set(words):
        return "both"
    return sides[0] if sides else ""


def _check_wordings(row: Mapping[str, Any]) -> None:
    wordings = (row["appearance"], *row["paraphrases"])
    if not 2 <= len(wordings) <= 3:
        raise ValueError(f"has {len(wordings) - 1} paraphrases, not 1 or 2")
    slots = {LEADS_SLOT in words for words in wordings}
    if len(slots) == 2:
        raise ValueError(f"has {LEADS_SLOT} in one wording and not in another")
    if slots == {True} and not concepts()[row["base"]].walls:
        raise ValueError(f"has {LEADS_SLOT}, but {row['base']} is of no wall")
    if "mirror" in row and slots == {False}:
        raise ValueError(f"has a mirror, but no {LEADS_SLOT}")
    for words in filter(None, (*wordings, row.get("mirror"))):
        _check_wording(words)


def _check_wording(words: str) -> None:
    count = len(words.split())
    if not _WORDING_WORDS[0] <= count <= _WORDING_WORDS[1]:
        raise ValueError(f"has a wording of {count} words, not {_WORDING_WORDS}: {words!r}")
    if not _START.match(words) or not re.search(r"[\w'}]$", words) or words != words.strip():
        raise ValueError(f"has a wording that fits no sentence: {words!r}")
    if re.search(r"\d", _LEAD.sub("", words)):
        raise ValueError(f"has a number in a wording: {words!r}")
    if set(words.replace(LEADS_SLOT, "")) & set("{}[]<>\n\t"):
        raise ValueError(f"has marks in a wording: {words!r}")
