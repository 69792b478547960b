"""Reads the numbers of a text: value, unit, and whether it is a lower or an upper bound.

Numbers may be in figures or in words ("half a millivolt"), directions in words or symbols.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple


class Quantity(NamedTuple):
    """A number of a text.

    Attributes:
        value: in the unit of its kind.
        kind: what it measures (ms, bpm, mm, degrees, ...); "" without a unit.
        bound: "min" where the text gives it as the least, "max" as the most, else "".
    """

    value: float
    kind: str
    bound: str


_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    **{word: float(value) for value, word in enumerate(_SMALL)},
    **{word: 10.0 * value for value, word in enumerate(_TENS, start=2)},
}
_PARTS = {
    "half": 0.5,
    "halve": 0.5,
    "third": 1 / 3,
    "quarter": 0.25,
    "fifth": 0.2,
    "tenth": 0.1,
    "hundredth": 0.01,
    "thousandth": 0.001,
}

# Each unit as one of a kind, and the factor to it. Millivolts count as 10 mm, the standard gain.
_EVENTS = r"(?:(?:beat|time|cycle|complexe|wave|impulse)s? )?"
_UNITS = (
    ("ms", r"ms|msecs?|milli-?seconds?", 1.0),
    ("ms", r"us|usecs?|micro-?seconds?", 0.001),
    ("bpm", rf"{_EVENTS}(?:per|a|each|every) min(?:ute)?|(?:beats? ?)?/ ?min(?:ute)?|bpm", 1.0),
    ("bpm", rf"{_EVENTS}per sec(?:ond)?|/ ?s(?:ec)?", 60.0),
    ("hz", r"hz|hertz", 1.0),
    ("ms", r"s|secs?|seconds?", 1000.0),
    ("mm", r"mv|milli-?volts?", 10.0),
    ("mm", r"uv|micro-?volts?", 0.01),
    ("mm", r"v|volts?", 10000.0),
    ("mmhg", r"mm ?hg", 1.0),
    ("mm", r"mm|milli-?met(?:er|re)s?", 1.0),
    ("mm", r"cm|centi-?met(?:er|re)s?", 10.0),
    ("degrees", r"degrees?|degs?|\u00b0", 1.0),
    ("percent", r"percent|per cent|%", 1.0),
    ("minutes", r"mins?|minutes?", 1.0),
    ("hours", r"h|hrs?|hours?", 1.0),
    ("days", r"days?", 1.0),
    ("weeks", r"weeks?", 1.0),
    ("months", r"months?", 1.0),
    ("years", r"years?", 1.0),
    ("squares", r"(?:(?:small|large|big|little) )?(?:squares?|box(?:es)?)", 1.0),
    ("amounts", r"mg|mcg|kg|g|mmol\S*|meq\S*|units?|joules?|ma|milli-?amp\w*", 1.0),
    ("odd", r"\?[a-z]+", 1.0),
)
_UNIT_PATTERNS = tuple((kind, re.compile(pattern), factor) for kind, pattern, factor in _UNITS)
_UNIT = "|".join(pattern for _, pattern, _ in _UNITS)
_NUMBER = re.compile(
    r"(?<![\w.:])(?P<number>[-+]?(?:\d+(?:\.\d+)?|\.\d+))(?![\w:]|\.\d)"
    rf"(?:[ -]?(?P<unit>{_UNIT})(?!\w))?"
)
# Glued to its unit ("120ms") a number has no word boundary; "2nd" is no quantity.
_GLUED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(?!st\b|nd\b|rd\b|th\b)([a-z]+)\b")
_FRACTION = re.compile(r"(?<![\w./])(?:(\d+) )?(\d)[/\u2044]([1-9]\d*)(?![\w/])")
_WRITTEN_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_SYMBOLS = (
    (re.compile("[\u2212\u2013](?=\\d)"), "-"),
    (re.compile("[\u00b5\u03bc]"), "u"),
    (re.compile("<=|=<|\u2264|\u2a7d"), " at most "),
    (re.compile(">=|=>|\u2265|\u2a7e"), " at least "),
    (re.compile("<"), " below "),
    (re.compile(">"), " above "),
    (re.compile(r"(?<![\w.])([\d.]+)\+(?!\d)"), r"at least \1"),
)
_MORE = (
    r"(?:more|greater|longer|larger|wider|broader|higher|faster|taller|bigger|older|later|deeper"
    r"|quicker)"
)
_LESS = (
    r"(?:less|fewer|shorter|smaller|narrower|lower|slower|briefer|earlier|younger|shallower|under)"
)
# Numbers in words. "a" in "half a millivolt" is taken with them; "S" behind a word
# is a wave, and "third degree" a block.
_COUNT = "|".join(_VALUES)
_PART = "|".join(_PARTS)
_IN_WORDS = re.compile(
    rf"\b(?:minus )?(?:(?:(?:an?|{_COUNT})[ -](?:{_PART})s?|half)"
    rf"|(?:(?:{_COUNT}|hundred|thousand|a (?=hundred|thousand))(?:[ -]and)?[ -])*"
    rf"(?:{_COUNT}|hundred|thousand)(?: point(?: (?:{_COUNT}))+)?(?: and an? (?:{_PART}))?)\b"
    rf"(?:(?: of)? an?(?= (?:{_UNIT})(?!\w)))?"
)
# A text without these has no quantity.
_HAS_NUMBER = re.compile(rf"(?<![^\W_])\d|[^\x00-\x7f]|\b(?:{_COUNT}|hundred|thousand|{_PART})")
_UNIT_NEXT = re.compile(rf"[ -](?![svhg]\b|degree\b)(?:{_UNIT})(?!\w)")
_RANGE_NEXT = re.compile(
    rf" or (?:{_MORE}|{_LESS}) (?:{_UNIT})(?!\w)"
    rf"|(?: (?:to|or|and)|-)[ -]?(?:(?:{_COUNT}|hundred|and|a|\d+)[ -])+(?:{_UNIT})(?!\w)"
)

# What makes a number a bound. Between the words and the number may stand only these.
_LEADS_IN = r"(?:\s+(?:about|around|roughly|some|or equal to|or|the|an?|mark of|limit of|of))*\s*$"
_TURN = r"(?P<turned>\b(?:no|not|never|nor|hardly|without)\s+(?:(?:to|be|much|any|ever|go)\s+)*)?"
_BEFORE = {
    "max": rf"{_LESS} than|below|under(?:neath)?|beneath|at (?:the )?(?:very )?most|up to|within"
    r"|short of|maximum(?: of)?|until|shy of|inside|upper limit(?: of)?|(?:limited|confined) to"
    r"|capped at|fail(?:s|ing)? to (?:reach|exceed|attain)|(?:less|lower) or equal to",
    "min": rf"{_MORE} than|above|over|at (?:the )?(?:very )?least|exceed(?:s|ed|ing)?|surpass\w*"
    r"|beyond|in excess of|minimum(?: of)?|reach(?:es|ing)?|attain\w*|past|upwards? of"
    r"|lower limit(?: of)?|outlast\w*|outside|(?:greater|more) or equal to|cross(?:es|ing)",
}
_AFTER = {
    "min": rf"[ ,]*(?:or|and) (?:even )?(?:{_MORE}|above|over|beyond|up(?:wards?)?)\b"
    r"| *(?:and )?up(?:wards?)?\b(?! to)| *(?:at least|at minimum|minimum|plus)\b",
    "max": rf"[ ,]*(?:or|and) (?:even )?(?:{_LESS}|below|beneath|down(?:wards?)?)\b"
    r"| *(?:down(?:wards?)?|at (?:the )?most|at maximum|maximum)\b",
}
_BEFORE_PATTERNS = {
    bound: re.compile(rf"{_TURN}\b(?:{words}){_LEADS_IN}") for bound, words in _BEFORE.items()
}
_AFTER_PATTERNS = {bound: re.compile(words) for bound, words in _AFTER.items()}
_TURNED = {"min": "max", "max": "min"}
# "120 or more ms" with its unit first.
_BOUND_INSIDE = re.compile(rf"(?<=\d) (or (?:{_MORE}|{_LESS}))[ -]({_UNIT})(?!\w)")
_JOINS = re.compile(r"\s*(?:to|and|or|-|\u2013|through|,)\s*(?:\w+ ){0,2}")
_IS_RANGE = re.compile(r"\s*(?:to|-|\u2013|through)\s*")
_BETWEEN = re.compile(r"\bbetween (?:about )?$")


@lru_cache(maxsize=4096)
def quantities(text: str) -> frozenset[Quantity]:
    """Numbers of a text; those that share a unit ("120 to 200 ms") have it each.

    The ends of a range bound it: "120 to 200 ms" is at least 120 ms and at most 200 ms.
    """
    if not _HAS_NUMBER.search(text.casefold()):
        return frozenset()
    text = _in_figures(text)
    found: list[Quantity] = []
    end, starts_range = 0, False
    joined = 0  # how many of the last ones wait for the unit of the next
    for match in _NUMBER.finditer(text):
        kind, value = _in_kind(match["unit"], float(match["number"]))
        between = text[end : match.start()]
        bound = _bound(between[-60:], text[match.end() : match.end() + 30], value)
        joins = bool(found) and _JOINS.fullmatch(between) is not None
        if not joins:
            joined = 0
        for index in range(len(found) - joined, len(found)):
            if kind:
                other = found[index]
                found[index] = Quantity(_in_kind(match["unit"], other.value)[1], kind, other.bound)
        if joins and (_IS_RANGE.fullmatch(between) or (starts_range and "and" in between)):
            other = found[-1]
            low_first = other.value < value
            found[-1] = other._replace(bound="min" if low_first else "max")
            bound = "max" if low_first else "min"
        elif joins and not bound:
            bound = found[-1].bound
        found.append(Quantity(value, kind, bound))
        joined = 0 if kind else joined + 1
        starts_range = _BETWEEN.search(between) is not None
        end = match.end()
    return frozenset(found)


def _in_kind(unit: str | None, value: float) -> tuple[str, float]:
    for kind, pattern, factor in _UNIT_PATTERNS if unit else ():
        if pattern.fullmatch(unit or ""):
            return kind, round(value * factor, 6)
    return "", value


def _bound(before: str, after: str, value: float) -> str:
    for bound, pattern in _BEFORE_PATTERNS.items():
        if found := pattern.search(before):
            # An axis beyond -30 degrees lies at -40: more is less of a negative number.
            away = value < 0 and "beyond" in found[0]
            return _TURNED[bound] if bool(found["turned"]) != away else bound
    return next((bound for bound, pattern in _AFTER_PATTERNS.items() if pattern.match(after)), "")


def _in_figures(text: str) -> str:
    """The text in lower case, its numbers in figures and its symbols of order in words."""
    text = text.casefold()
    text = _WRITTEN_FRACTION.sub(lambda one: " " + unicodedata.normalize("NFKC", one[0]), text)
    for pattern, words in _SYMBOLS:
        text = pattern.sub(words, text)
    text = _FRACTION.sub(_of_fraction, text)
    text = _GLUED.sub(_apart, text)
    return _BOUND_INSIDE.sub(r" \2 \1", _IN_WORDS.sub(_of_words, text))


def _of_fraction(match: re.Match[str]) -> str:
    return f"{float(match[1] or 0) + float(match[2]) / float(match[3]):g}"


def _apart(match: re.Match[str]) -> str:
    """A number and its unit; what is no unit is marked as an odd one."""
    known = any(pattern.fullmatch(match[2]) for _, pattern, _ in _UNIT_PATTERNS)
    return f"{match[1]} {match[2]}" if known else f"{match[1]} ?{match[2]}"


def _of_words(match: re.Match[str]) -> str:
    """A number in figures where it is a quantity; "two P waves" and "one shape" stay words."""
    value, text = _value_of(match[0]), match.string
    is_quantity = _UNIT_NEXT.match(text, match.end()) or _RANGE_NEXT.match(text, match.end())
    return f"{value:g}" if is_quantity or value >= len(_SMALL) else match[0]


def _value_of(words: str) -> float:
    total = group = 0.0
    place = 0  # behind the point
    for word in re.findall(r"[a-z]+", words.removesuffix(" a")):
        part = _PARTS.get(word) or _PARTS.get(word.removesuffix("s"))
        if word == "point":
            place = 1
        elif word in _VALUES:
            group += _VALUES[word] / 10**place
            place += place > 0
        elif word == "thousand":
            total, group = total + max(group, 1.0) * 1000.0, 0.0
        elif word == "hundred":
            group = max(group, 1.0) * 100.0
        elif part:
            # "one and a half" adds, "three tenths" multiplies.
            group = group + part if re.search(r"\w and an? ", words) else max(group, 1.0) * part
    return (total + group) * (-1.0 if words.startswith("minus") else 1.0)
