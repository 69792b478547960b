"""What a line denies, doubts, cannot judge, or tells of another ECG, put in the reader's words.

Reports do this in many words, on either side of a finding. ``plain_denials`` puts "no" or
"possible" before the finding, or sets the finding aside; ``unread_doubt`` finds what words of
doubt are left. What stands beside one of those is never taken for a finding.
"""

from __future__ import annotations

import re

from esi_fast.cqa import wording
from esi_fast.cqa.concepts import Concept, find_concepts
from esi_fast.cqa.doubts import CUE, REWRITTEN, UNREAD
from esi_fast.cqa.folding import FILLER

Found = list[tuple[int, int, Concept]]

# By how the words of doubts.CUE bear on a finding.
_ASIDE = frozenset({"history", "was", "judge", "masks", "unless"})
_FINDING_FOLLOWS = frozenset({"no", "masks", "unless", "denies"})
_FINDING_BEFORE = frozenset({"was", "absent", "turned"})
# Kinds that stand for themselves before a list: "sinus rhythm, LVH and RVH excluded".
_HEADS = frozenset({"rhythm", "pacing", "summary"})

# What stands before one of these is not denied with what stands behind it.
_PARTS = re.compile(r" (?:with|but|due to|because of|in the presence of|now|consider) ")
_STOPS = re.compile(
    r"^ (?:and|or|nor|in|on|at|as|now|since)\b|\b(?:but|with|because|given|now|by|cannot|no|not)\b"
)
_REASON = re.compile(
    r"\b(?:due to|because of|in (?:the )?(?:presence|setting) of|given|secondary to|by|with)\b"
)
_NOW = re.compile(r"\b(?:now|today|today's|current(?:ly)?|presently|at present|this ecg)\b")
_EMPTY = re.compile(r"\b(?:no|without|absen\w+)\b")


def plain_denials(text: str) -> tuple[str, bool]:
    """Folded text with its denials and doubts in plain words.

    Returns:
        The text, and whether something was set aside: it is of another time, or cannot be judged.
    """
    for pattern, words in REWRITTEN:
        text = pattern.sub(words, text)
    sets_aside = False
    position = 0
    while cue := CUE.search(text, position):
        found = find_concepts(text)
        start, end = cue.span(cue.lastgroup or 0)
        is_named = any(first < end and start < last for first, last, _ in found)
        read = None if is_named else _read(text, cue, found)
        if read is None:
            position = end
            continue
        head, tail = read
        text, position = head + tail, len(head)
        sets_aside |= cue.lastgroup in _ASIDE
    return " ".join(text.split()).strip(" ,"), sets_aside


def _read(text: str, cue: re.Match[str], found: Found) -> tuple[str, str] | None:
    """The text with one cue read: up to where it is read, and from there on."""
    name, (start, end) = cue.lastgroup or "", cue.span()
    opens, closes = _clause(text, start, end)
    behind = text[end:closes]
    stops = _REASON.search(behind) if name == "judge" else None
    limit = end + stops.start() if stops else closes
    before = [first for first, last, _ in found if opens <= first and last <= start]
    after = [
        first
        for first, _, _ in found
        if end <= first < limit and not _STOPS.search(text[end:first])
    ]
    if after and name == "turned" and not before:
        # "RBBB no longer present, replaced by LBBB": what came in its place is there.
        return (text[:start], text[end:]) if opens and is_denied(text[: opens - 3]) else None
    if after and not (before and name in _FINDING_BEFORE):
        stop = len(text) if name in ("history", "denies") else limit
        return _applied(name, text, start, start, end, stop)
    if before and (name == "masks" or name not in _FINDING_FOLLOWS):
        first = start if name == "masks" else _segment(text, opens, before, found)
        return _applied(name, text, first, start, end, limit)
    if before or any(end <= first < closes for first, _, _ in found):
        return None
    rest = f"{text[opens:start]} {text[end:limit]}"
    if any(word not in FILLER for word in re.findall(r"[\w']+", rest)):
        return None
    if name == "unlikely" and text[opens:start].strip():
        return None  # "Axis doubtful, AF" doubts the axis
    # A clause of its own: "Indication: AF", "AF: excluded".
    if found and (opens == 0 or (name == "history" and closes < len(text))):
        return _applied(name, text, start, start, min(closes + 2, len(text)), len(text))
    if closes == len(text) and found and opens > 0:
        first, _ = _clause(text, opens - 3, opens - 3)
        return _applied(name, text, first, opens - 3, end, limit)
    return None


def _applied(name: str, text: str, first: int, start: int, end: int, stop: int) -> tuple[str, str]:
    """The text with what stands from ``first`` to ``start`` and ``end`` to ``stop`` read."""
    head, before, after, tail = text[:first], text[first:start], text[end:stop], text[stop:]
    if name in _ASIDE:
        now = _NOW.search(after) if name in ("history", "was") else None
        reason = _REASON.search(tail) if name == "judge" else None
        tail = f"{after[now.start() :]}{tail}" if now else tail
        tail = tail[reason.end() :] if reason and reason.start() == 0 else tail
        return f"{head} , ", tail
    word = "possible" if name == "doubt" else "no"
    if before:
        # "AF has resolved and sinus rhythm is back" denies the first alone.
        after = f" , {after}" if name == "turned" else re.sub("^ and ", " , ", after)
        return f"{head}{_each(word, before)}", f"{after}{tail}"
    return f"{head}{_each(word, after)}", tail


def _each(word: str, listed: str) -> str:
    """Every finding of a list with the word before it."""
    listed = re.sub(r" and ", " or ", listed.strip())
    return f"{word} {listed}".replace(" , ", f" , {word} ") + " "


def _segment(text: str, opens: int, before: list[int], found: Found) -> int:
    """Where that begins which a denial behind it denies: "LVH, RVH and infarct are excluded"."""
    ends = [part.end() for part in _PARTS.finditer(text, opens, before[-1])]
    first = ends[-1] if ends else opens
    is_list = re.search(r"\b(?:and|n?or)\b", text[min(before) : before[-1]])
    while first == opens > 0 and is_list:
        earlier, _ = _clause(text, opens - 3, opens - 3)
        kinds = {concept.kind for start, _, concept in found if earlier <= start < opens}
        if not kinds or kinds & _HEADS:
            break
        first = opens = earlier
    return first


def _clause(text: str, start: int, end: int) -> tuple[int, int]:
    """The clause that holds a place of the text."""
    opens = text.rfind(" , ", 0, max(start, 0))
    closes = text.find(" , ", end)
    return (0 if opens < 0 else opens + 3), (len(text) if closes < 0 else closes)


def is_denied(before: str) -> bool:
    """Whether words of its own clause before a concept deny it."""
    certain = wording.CERTAINTY[0][1].sub("", before)
    return bool(wording.NEGATED_BEFORE.search(certain.rpartition(" ,")[2]))


def unread_doubt(text: str, found: Found) -> int | None:
    """Where that begins which a denial, doubt or earlier time not read makes uncertain."""
    ends = [0, *(last for _, last, _ in found)]
    denied = [is_denied(text[ends[i] : start]) for i, (start, _, _) in enumerate(found)]
    spans = [(start, last) for start, last, _ in found]
    spans += [match.span() for match in wording.CERTAINTY[0][1].finditer(text)]
    for hit in UNREAD.finditer(text):
        if any(start <= hit.start() and hit.end() <= last for start, last in spans):
            continue
        opens, closes = _clause(text, hit.start(), hit.end())
        here = [i for i, (start, _, _) in enumerate(found) if opens <= start < closes]
        following = next((i for i in here if found[i][0] >= hit.end()), None)
        if here and all(denied[i] for i in here):
            continue
        if following is not None:
            if wording.NEGATED_BEFORE.match(text, hit.start()):
                continue
            if hit[0] in ("prior", "previous") and found[following][2].kind == "infarct":
                continue
        elif _EMPTY.fullmatch(hit[0]):
            # "AF, no P waves" denies something else, which is no concept.
            words = re.findall(r"[\w']+", text[hit.end() : closes])
            if any(word not in FILLER for word in words):
                continue
        return opens if here else 0
    return None
