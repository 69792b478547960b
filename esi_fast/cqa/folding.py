"""The wording of devices folded to one plain form: what the concept table's patterns read."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from functools import lru_cache
from pathlib import Path

_TABLE = tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
_WORDS: dict[str, str] = _TABLE["written"]
# Words that carry no finding.
FILLER = frozenset(_TABLE["filler"].split())
# Words that are surnames or given names too.
NAMES = frozenset(_TABLE["names"].split())
# Of a longer line only this much is read: no device prints such, and reading stays fast.
_MAX_CHARACTERS = 500

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u00ad"), "-")
_QUOTES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u00b4`"), "'")
_PLAIN = {**_DASHES, **_QUOTES, ord("\u00b0"): " degree ", ord("\u00ba"): " degree "}
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff]")

# What a device measured or required, printed behind its statement: "[40+ ms Q wave in V1]",
# "......... normal P axis, V-rate 50-99". It is no statement of its own.
_CRITERIA = (
    re.compile(r"(?<=\w)\s*\([-+]?\d+(?: ?deg\w*)?\s*\)"),
    re.compile(r"(?<=\w)\s*\[[^\]]*(?:\]|$)"),
    re.compile(r"(?<=\w)\s*\((?=[^)]*(?:[<>=]|\d ?\+? ?(?:ms|mv|mm|bpm|deg)\b))[^)]*\)"),
    re.compile(
        r"(?<=\w)\s*,\s*(?:[av]-|ventricular |heart )?rate:? (?:of )?[<>]?\s*\d[\d\s.-]*(?:bpm)?"
    ),
    re.compile(r"(?<=\w)\s*\.{3,}+(?=.*(?:\d|\baxis\b|\brate\b|\bv-rate\b|\bflat\b|\bneg\b)).*$"),
)
# The artery behind an infarct, "(LAD)", is no axis.
_ARTERY = re.compile(r"\(\s*(?:lad|rca|lcx|lcx? ?/ ?rca|rca ?/ ?lcx|proximal lad|left main)\s*\)")

# A coronary artery, not the left axis deviation that the same letters are short for.
_LAD = re.compile(
    r"\b(?:(?:proximal|mid|distal|wraparound) )*lad(?= (?:territory|distribution|region|area"
    r"|occlusion|stenosis|lesion|disease|stent|culprit|thromb|artery|supply|branch|infarct|ischa?em"
    r"|injury|mi\b|stemi))|\b(?:proximal|mid|distal|wraparound) lad\b"
    r"|(?<=occluded )lad\b|(?<=occlusion of )(?:the )?lad\b"
)

_DISEASE = r"ischa?emia|scar|infarct(?:ion)?|injury|fib(?:rillation)?|n?stemi|mi\b"
_JOINED = (
    (re.compile(r"\(\d+@\d+\)"), " "),  # devices' statement codes
    (re.compile(r"\b(?:non[ -])(?=specific|diagnostic|sustained|st\b)"), "non"),
    (re.compile(r"\bnon-(?=[a-z])"), "non"),
    (re.compile(r"\ba[-/ ]v\b"), "av"),
    (re.compile(r"\bi-v\b"), "iv"),
    (re.compile(r"\ba[- ](?=pac(?:ed|ing)\b)"), "atrial "),
    (re.compile(r"\bv[- ](?=pac(?:ed|ing)\b)"), "ventricular "),
    (re.compile(r"\bs-t\b"), "st"),
    (re.compile(r"\bs-?a\b(?=[- ](?:exit|block|nod))"), "sinoatrial"),
    (re.compile(r"\bcan ?not\b|\bcan't\b"), "cannot"),
    (re.compile(r"(?<=[a-z])n't\b"), " not"),
    (re.compile(r"\bvs\."), "vs"),
    (re.compile(r"\br/o\b"), "rule out"),
    (re.compile(r"\bw/o\b"), "without"),
    (re.compile(r"\bw/"), "with "),
    (re.compile(r"&|(?<=[a-z)])\s*\+\s*(?=[a-z])"), " and "),
    (re.compile(r"\bpre-excit"), "preexcit"),
    (re.compile(r"\bre-entr"), "reentr"),
    (re.compile(r"\ba\.? ?-? ?fib\b"), "afib"),
    (re.compile(r"\b(antero|infero|postero|septo)[-/ ](?=[a-z])"), r"\1"),
    (re.compile(r"\band ?/ ?or\b"), "or"),
    (re.compile(r"\(s\)|\(es\)"), ""),
    (re.compile(r"\br' "), "r "),
    (re.compile(r"\br-s-r'?"), "rsr'"),
    (re.compile(r"\bfascicular \(?hemi\)?block"), "fascicular block"),
    (re.compile(r"\bsupp?\.? ?(?=n?stemi)"), " "),
    # "ischemia/scar" names things of which one is meant
    (
        re.compile(rf"\b({_DISEASE}) ?/ ?(?=(?:acute |old )?(?:{_DISEASE}|flutter|strain))"),
        r"\1 or ",
    ),
    (re.compile(r"\s-+\s|[:;]+(?!\d)|\.(?=\s|$)|\.{2,}|--+|^-+|-+$"), " , "),
)
_LEAD_RANGE = re.compile(r"\bv([1-6])\s*(?:-|to|through|thru)\s*v?([1-6])\b")
_DROPPED = re.compile(r"[^\w,:'?+]|_|(?<!\d):|:(?!\d)")
_COMMAS = re.compile(r"\s*,[\s,]*")
# On the folded words: one wording for several, and a noun that two words share written twice.
_REWRITTEN = tuple(
    (re.compile(rf"(?<!\w)(?:{pattern})(?!\w)"), words) for pattern, words in _TABLE["rewritten"]
)


def fold(text: str) -> str:
    """A statement in lower case, singular, one spelling, with abbreviations written out.

    Stars, dashes, device codes, criteria, brackets and final dots go; clauses end up separated
    by ``" , "``; ``"V1-V3"`` becomes ``"v1 v2 v3"``.

    Args:
        text: a line as a device prints it.

    Returns:
        Words separated by single blanks; empty when nothing but marks was given.
    """
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).translate(_PLAIN)).casefold()
    folded = folded.translate(_PLAIN).replace("*", " ").replace("|", " , ")
    folded = _LAD.sub("coronary artery", _ARTERY.sub(" ", folded))
    for pattern in _CRITERIA:
        folded = pattern.sub(" ", folded)
    for pattern, replacement in _JOINED:
        folded = pattern.sub(replacement, folded)
    folded = _LEAD_RANGE.sub(_expand_leads, folded)
    folded = _DROPPED.sub(" ", folded)
    folded = _COMMAS.sub(" , ", folded)
    words = [_WORDS.get(word, word) for word in folded.replace("?", " ? ").split()]
    folded = " ".join(words)
    for pattern, replacement in _REWRITTEN:
        folded = pattern.sub(replacement, folded)
    return " ".join(_COMMAS.sub(" , ", folded).split()).strip(" ,")


@lru_cache(maxsize=65536)
def fold_line(text: str) -> tuple[str, str]:
    """A line folded, and the words beyond what is read of an overlong one ("" of any other)."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    if len(plain) <= _MAX_CHARACTERS:
        return fold(plain), ""
    end = plain.rfind(" ", 0, _MAX_CHARACTERS)
    end = end if end > 0 else _MAX_CHARACTERS
    return fold(plain[:end]), " ".join(re.findall(r"\w+", plain[end:].casefold()))


def _expand_leads(match: re.Match[str]) -> str:
    first, last = int(match[1]), int(match[2])
    return " ".join(f"v{number}" for number in range(first, last + 1)) or match[0]
