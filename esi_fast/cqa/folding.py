"""The wording of devices folded to one plain form: what the concept table's patterns read."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from pathlib import Path

_TABLE = tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
_WORDS: dict[str, str] = _TABLE["written"]
# Words that carry no finding.
FILLER = frozenset(_TABLE["filler"].split())

_JOINED = (
    (re.compile(r"\(\d+@\d+\)"), " "),  # devices' statement codes
    (re.compile(r"\b(?:non[ -])(?=specific|diagnostic|sustained)"), "non"),
    (re.compile(r"\ba[-/ ]v\b"), "av"),
    (re.compile(r"\bi-v\b"), "iv"),
    (re.compile(r"\bcan ?not\b|\bcan't\b"), "cannot"),
    (re.compile(r"\bpre-excit"), "preexcit"),
    (re.compile(r"\band ?/ ?or\b"), "or"),
    (re.compile(r"\(s\)|\(es\)"), ""),
    (re.compile(r"\br' "), "r "),
    (re.compile(r"\br-s-r'?"), "rsr'"),
    (re.compile(r"\bfascicular \(?hemi\)?block"), "fascicular block"),
    (re.compile(r"\s[-\u2013\u2014]+\s|[:;]+(?!\d)|\.(?=\s|$)|\.{2,}|--+"), " , "),
)
_LEAD_RANGE = re.compile(r"\bv([1-6])\s*(?:-|to|through)\s*v?([1-6])\b")
_DROPPED = re.compile(r"[^\w,:'?+]|_|(?<!\d):|:(?!\d)")
_COMMAS = re.compile(r"\s*,[\s,]*")


def fold(text: str) -> str:
    """A statement in lower case, singular, one spelling, with abbreviations written out.

    Stars, dashes, device codes, brackets and final dots go; clauses end up separated by
    ``" , "``; ``"V1-V3"`` becomes ``"v1 v2 v3"``.

    Args:
        text: a line as a device prints it.

    Returns:
        Words separated by single blanks; empty when nothing but marks was given.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("*", " ")
    folded = folded.replace("\u2019", "'").replace("|", " , ")
    for pattern, replacement in _JOINED:
        folded = pattern.sub(replacement, folded)
    folded = _LEAD_RANGE.sub(_expand_leads, folded)
    folded = _DROPPED.sub(" ", folded)
    folded = _COMMAS.sub(" , ", folded)
    words = [_WORDS.get(word, word) for word in folded.replace("?", " ? ").split()]
    return " ".join(words).strip(" ,")


def _expand_leads(match: re.Match[str]) -> str:
    first, last = int(match[1]), int(match[2])
    return " ".join(f"v{number}" for number in range(first, last + 1)) or match[0]
