"""Any tree of WFDB headers as a catalogue: who and what is known from their comments."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from esi_fast.signal.catalogue import Catalogue, CatalogueEntry, age_in_years, record_key, sex_of
from esi_fast.signal.resample import _core

SEGMENT = "a segment of"  # what the error of an entry that is one begins with
_RUN = 4096  # names sorted at once


class WfdbFolder(Catalogue):
    """Every ``.hea`` file at any depth, folder by folder, each in the order of its names.

    The segments of a record of several are not records of their own. Links to folders are not
    followed. ``# Age:``, ``# Sex:`` and ``# Dx:`` comments, as the
    PhysioNet/CinC Challenges 2020 and 2021 write them, are read.
    """

    source = "wfdb"
    patients_known = False
    lists_files = True

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        if next(_stems(root), None) is None:
            raise FileNotFoundError(
                f"{root}: no record_list.csv, ptbxl_database.csv or .hea file in it: "
                "give the folder that holds the recordings"
            )

    def _count(self) -> int:
        return sum(1 for _ in _stems(self.root))

    def __iter__(self) -> Iterator[CatalogueEntry]:
        folder = os.path.join(self.root, "")  # noqa: PTH118 (a Path has no trailing slash)
        segments = _segments(self.root)
        for stem in _stems(self.root):
            path = folder + stem
            if stem in segments:
                whole = segments[stem]
                yield CatalogueEntry(key_of_path(stem), path, "", "", error=f"{SEGMENT} {whole}")
                continue
            try:
                comments = _core.read_header(os.fsencode(path), strict=False).comments
            except _core.RecordError as error:
                if error.args[0] == "io":  # the machine's trouble: the notes must not be lost
                    raise OSError(f"{path}.hea could not be read: {error.args[1]}") from None
                # Reading the record will say what is wrong with it; here it only lacks its notes.
                comments = ()
            notes = _notes(comments)
            key = key_of_path(stem)
            codes = (code.strip() for code in notes.get("dx", "").split(","))
            yield CatalogueEntry(
                key=key,
                path=path,
                subject_id=_printable(stem.rpartition("/")[2]),
                study_id=key,
                age=age_in_years(notes.get("age", "")),
                sex=sex_of(notes.get("sex", "")),
                statements=tuple(code for code in codes if code and code.casefold() != "unknown"),
            )


def key_of_path(stem: str) -> str:
    """A key for a relative path: ``--`` for ``/``; a hash makes it one's own where that is not."""
    key = "--".join(map(record_key, stem.split("/")))
    if len(key) <= _LONGEST_KEY and all(map(_PLAIN.fullmatch, stem.split("/"))):
        return key
    digest = hashlib.blake2b(os.fsencode(stem), digest_size=4).hexdigest()
    return f"{key[: _LONGEST_KEY - 9]}-{digest}"


_LONGEST_KEY = 92  # what a shard's tar has room for
_PLAIN = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*")


def _printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 are spelt out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _segments(root: Path) -> dict[str, str]:
    """The headers that are segments of another record in their folder, which is there whole."""
    found: dict[str, str] = {}
    for stem in _stems(root):
        try:
            with open(f"{root}/{stem}.hea", "rb") as file:  # noqa: PTH123 (quicker)
                lines = file.read(4096).splitlines()
        except FileNotFoundError:  # a dangling link
            continue
        words = next((line.split() for line in lines if line.strip() and line[:1] != b"#"), [b""])
        if b"/" not in words[0]:
            continue
        try:
            header = _core.read_header(os.fsencode(f"{root}/{stem}"), strict=False)
        except _core.RecordError:
            continue
        folder = stem.rpartition("/")[0]
        named = {f"{folder}/{name}".lstrip("/") for name in header.segments if name != "~"}
        if stem not in named and all((root / f"{one}.hea").exists() for one in named):
            found |= dict.fromkeys(named, stem)
    return found


def _stems(root: Path) -> Iterator[str]:
    """The paths of all headers below a folder, relative to it and without suffix.

    Compared part by part, they ascend: the same on every machine.
    """
    pending = [("", _ordered(_names(str(root))))]
    while pending:
        folder, names = pending[-1]
        name = next(names, "")
        if not name:
            pending.pop()
        elif name.endswith(_FOLDER):
            inner = folder + name.removesuffix(_FOLDER)
            pending.append((f"{inner}/", _ordered(_names(f"{root}/{inner}"))))
        else:
            yield folder + name.removesuffix(_HEADER)


# Ends of names, of characters that sort before all that a name may hold: the order of the ended
# names is that of the names, and of a header and a folder of the same name, the header is first.
_HEADER, _FOLDER = "\0", "\0\0"


def _names(folder: str) -> Iterator[str]:
    """The names of the headers, without suffix, and of the folders in a folder, each ended."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name + _FOLDER
            elif entry.name.endswith(".hea") and not entry.is_dir():
                yield entry.name.removesuffix(".hea") + _HEADER


def _ordered(names: Iterator[str]) -> Iterator[str]:
    """The names in order, in little more memory than their characters, however many there are."""
    runs: list[str] = []
    while run := "/".join(sorted(islice(names, _RUN))):
        runs.append(run)
    if len(runs) < 2:
        return iter(runs[0].split("/")) if runs else iter(())
    return heapq.merge(*map(_split, runs))


def _split(run: str) -> Iterator[str]:
    return (match[0] for match in re.finditer("[^/]+", run))


def _notes(comments: Sequence[str]) -> dict[str, str]:
    """The comments of the form ``Name: value`` or ``<name>: value``."""
    notes: dict[str, str] = {}
    for comment in comments:
        name, colon, value = comment.partition(":")
        if colon:
            notes.setdefault(name.strip(" <>").casefold(), value.strip())
    return notes
