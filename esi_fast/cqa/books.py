"""Users' own books as passages: text, Markdown and PDF files, cut into chunks that overlap.

A chunk serves a statement only if it is about that very concept, wall and acuity; what it is about
is read by the same rules as a statement. It widens neither the leads nor the diseases that a
description may name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from esi_fast.cqa.concepts import (
    WALLS_OF_WORD,
    concept_name,
    concepts,
    find_concepts,
    ordered_walls,
)
from esi_fast.cqa.folding import fold
from esi_fast.cqa.requests import clean, visible_text
from esi_fast.retriever import Document

CHUNK_WORDS, OVERLAP_WORDS, MIN_WORDS = 120, 30, 12
_SUFFIXES = (".txt", ".md", ".pdf")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")
_WALL_WORD = re.compile(rf"\b(?:{'|'.join(sorted(set(WALLS_OF_WORD) - {'high'}))})\b")
_ACUTE = re.compile(
    r"\b(?:hyper)?acute(?:ly)?\b|\bevolving\b|\brecent\b|\bfirst (?:few )?(?:minutes|hours|days)\b"
    r"|\bst (?:segment )?elevation myocardial infarct"
)
_OLD = re.compile(r"\bold\b|\bprior\b|\bprevious\b|\bchronic\b|\bhealed\b")
# PDFs are full of them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


@dataclass(slots=True)
class Books:
    """What a folder of books gave.

    Attributes:
        passages: chunks that are about a concept, in the order of files and pages. Metadata as of
            the built-in passages, where ``source`` is the file and page.
        rejected: files that could not be read, with the reason.
        duplicates: chunks left out because another has the same words.
        unplaced: chunks left out because they are about no single concept.
    """

    passages: list[Document] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    duplicates: int = 0
    unplaced: int = 0


def read_books(folder: Path, progress: Callable[[str], object] = lambda name: None) -> Books:
    """Reads every .txt, .md and .pdf file under a folder.

    Args:
        folder: searched with its sub-folders; files in the order of their names.
        progress: called with each file's name when it is done.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
        ModuleNotFoundError: a PDF is there and pypdf is not installed.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of passages {folder}")
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
    )
    if not files:
        raise FileNotFoundError(f"{folder} holds no {', '.join(_SUFFIXES)} file")
    books, seen = Books(), set[str]()
    for path in files:
        # A file's name is any bytes.
        name = os.fsencode(path.relative_to(folder)).decode(errors="backslashreplace")
        try:
            for page, text in _pages(path):
                _take_page(books, seen, name, page, text)
        except (OSError, ValueError) as error:
            books.rejected.append((name, " ".join(str(error).split())))
        progress(name)
    return books


def _pages(path: Path) -> Iterator[tuple[int | None, str]]:
    """Pages of a PDF from 1, or a whole text as page None.

    Raises:
        ValueError: the file is no text, or no PDF that can be read.
    """
    if path.suffix.lower() != ".pdf":
        try:
            yield None, path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("is no UTF-8 text") from None
        return
    from pypdf import PdfReader

    try:
        for number, page in enumerate(PdfReader(path).pages, start=1):
            yield number, page.extract_text()
    except Exception as error:
        # What pypdf raises on damaged files is anything.
        raise ValueError(f"is no PDF that can be read ({type(error).__name__}: {error})") from None


def _take_page(books: Books, seen: set[str], name: str, page: int | None, text: str) -> None:
    place = name if page is None else f"{name}, page {page}"
    for number, (heading, chunk) in enumerate(chunks_of(text), start=1):
        digest = hashlib.sha256(fold(chunk).encode()).hexdigest()
        if digest in seen:
            books.duplicates += 1
            continue
        seen.add(digest)
        about = _about(heading, chunk)
        if about is None:
            books.unplaced += 1
            continue
        base, walls, acuity = about
        books.passages.append(
            Document(
                id=f"{place}, chunk {number}",
                title=heading,
                text=chunk,
                metadata={
                    "concept": concept_name(base, walls),
                    "base": base,
                    "kind": concepts()[base].kind,
                    "territory": list(walls),
                    "degree": concepts()[base].degree or "",
                    "acuity": acuity,
                    "leads": [],
                    "mentions": [],
                    "source": place,
                },
            )
        )


def chunks_of(text: str) -> Iterator[tuple[str, str]]:
    """Pieces of a text with the heading that they stand under, or "".

    A piece holds whole sentences of one section, about CHUNK_WORDS words and never twice as many,
    and begins with the last ones of the piece before, about OVERLAP_WORDS words. A section of
    fewer than MIN_WORDS words gives none.
    """
    for heading, body in _sections(text):
        sentences = list(_sentences(body))
        lengths = [len(one.split()) for one in sentences]
        words_left = sum(lengths)
        if words_left < MIN_WORDS:
            continue
        first = last = words = 0
        while words_left:
            # A rest that is too short for a piece of its own is taken along.
            while words_left and (words < CHUNK_WORDS or words_left < MIN_WORDS):
                words += lengths[last]
                words_left -= lengths[last]
                last += 1
            yield heading, " ".join(sentences[first:last])
            first, words = _overlap(lengths, first, last)


def _overlap(lengths: list[int], first: int, last: int) -> tuple[int, int]:
    """Where the piece after sentences first to last begins, and its words before last."""
    begin, words = last, 0
    while begin - 1 > first and words < OVERLAP_WORDS:
        if words + lengths[begin - 1] > 2 * OVERLAP_WORDS:
            break
        begin -= 1
        words += lengths[begin]
    return begin, words


def _sentences(body: str) -> Iterator[str]:
    """Sentences, and pieces of what is too long for one (tables and lists have no full stop)."""
    longest = CHUNK_WORDS - MIN_WORDS
    for sentence in _SENTENCE_END.split(body):
        words = sentence.split()
        for first in range(0, len(words), longest):
            yield " ".join(words[first : first + longest])


def _sections(text: str) -> Iterator[tuple[str, str]]:
    heading, lines = "", list[str]()
    plain = visible_text(_CONTROL.sub(" ", text.replace("\r\n", "\n")).replace("-\n", ""))
    for line in plain.split("\n"):
        if match := _HEADING.match(line):
            yield heading, " ".join(lines)
            heading, lines = match[1], []
        else:
            lines.append(clean(line, len(line)))  # who speaks is marked at a line's begin
    yield heading, " ".join(lines)


def _about(heading: str, chunk: str) -> tuple[str, tuple[str, ...], str] | None:
    """Concept, walls and acuity that a chunk is about, or None where that is not clear."""
    in_heading, in_text = _named(heading), _named(chunk)
    if len(in_heading) == 1:
        (base,) = in_heading
        if base not in in_text:
            return None
    else:
        ranked = in_text.most_common(2)
        if not ranked or ranked[0][1] < 2 or (len(ranked) > 1 and ranked[1][1] == ranked[0][1]):
            return None
        base = ranked[0][0]
    folded = fold(f"{heading} {chunk}")
    is_acute, is_old = bool(_ACUTE.search(folded)), bool(_OLD.search(folded))
    if is_acute and is_old:
        return None
    words = _WALL_WORD.findall(folded) if concepts()[base].walls else []
    walls = ordered_walls({wall for word in words for wall in WALLS_OF_WORD[word]})
    has_acuity = concepts()[base].kind in ("infarct", "ST-T")
    return base, walls, "acute" if is_acute and has_acuity else ""


def _named(text: str) -> Counter[str]:
    found = find_concepts(fold(text))
    return Counter(concept.name for _, _, concept in found if concept.kind != "summary")
