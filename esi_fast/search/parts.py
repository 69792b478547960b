"""Embeddings in parts with a journal: a job that was killed goes on where it was.

The folder holds ``journal.jsonl`` (the settings, then one line a finished part) and of each part
``part-000000.npy`` (its embeddings) and ``part-000000.jsonl`` (a line of JSON an embedding). A part
counts once its line is on disk; on the way back each is read again and must have its sha256.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from esi_fast.cqa.file_lock import lock_file
from esi_fast.data.journal import sync_path
from esi_fast.data.shard_index import sha256_of, write_synced

JOURNAL = "journal.jsonl"


class Part(NamedTuple):
    """A finished part, as its line in the journal has it.

    Attributes:
        num_rows: rows of the source that it took.
        num_kept: of them, those that were embedded.
        keys: digest of the keys of all its rows.
        rejected: key and reason of each of the others.
        sha256: of the embeddings' file and of the lines' file.
    """

    num_rows: int
    num_kept: int
    keys: str
    rejected: list[tuple[str, str]]
    sha256: tuple[str, str]


class Parts:
    """The open folder of one job; use as a context manager.

    Attributes:
        done: the finished parts in their order.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
        """Begin a job, or go on with the one that is there.

        Args:
            folder: for the parts; made if absent.
            settings: all that decides what the embeddings are; JSON.
            resume: go on with what an earlier job of the same settings has finished.

        Raises:
            FileExistsError: there is an unfinished job and no ``resume``, it is one of other
                settings, or another process is at it.
            ValueError: the journal is damaged.
        """
        self.folder = folder
        self.done: list[Part] = []
        path = folder / JOURNAL
        if path.is_file() and not resume:
            raise FileExistsError(
                f"{folder} holds an unfinished job: go on with --resume, or remove it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._lock()
            self._load(settings)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(
        self,
        keys: Sequence[str],
        embeddings: NDArray[Any],
        lines: Sequence[dict[str, Any]],
        rejected: Sequence[tuple[str, str]],
    ) -> None:
        """Put a finished part on disk: embeddings (m, D), as many lines, and what was rejected."""
        array, text = self._paths(len(self.done))
        stored = io.BytesIO()
        np.save(stored, embeddings, allow_pickle=False)
        write_synced(array, stored.getvalue())
        write_synced(text, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        sync_path(self.folder)
        sums = (sha256_of(array), sha256_of(text))
        part = Part(len(keys), len(lines), digest_of_keys(keys), list(rejected), sums)
        self._append(part._asdict())
        self.done.append(part)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """The embeddings (m, D) of every part, one part at a time."""
        for number in range(len(self.done)):
            yield np.load(self._paths(number)[0], allow_pickle=False)

    def lines(self) -> Iterator[list[dict[str, Any]]]:
        """The lines of every part, one part at a time."""
        for number in range(len(self.done)):
            with self._paths(number)[1].open(encoding="utf-8") as file:
                yield [json.loads(line) for line in file]

    @property
    def num_kept(self) -> int:
        """Embeddings of all parts."""
        return sum(part.num_kept for part in self.done)

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """Key and reason of every row that has no embedding."""
        return [row for part in self.done for row in part.rejected]

    def remove(self) -> None:
        """Take the folder away: what is in it is elsewhere for good."""
        shutil.rmtree(self.folder)

    def _paths(self, number: int) -> tuple[Path, Path]:
        stem = self.folder / f"part-{number:06d}"
        return stem.with_suffix(".npy"), stem.with_suffix(".jsonl")

    def _lock(self) -> None:
        try:
            lock_file(self._file.fileno())
        except BlockingIOError:
            raise FileExistsError(f"{self.folder} is being written by another process") from None

    def _load(self, settings: dict[str, Any]) -> None:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")[:-1]  # what follows the last newline was cut short
        if not lines:
            self._file.truncate(0)
            self._append({"settings": settings})
            return
        try:
            begun_with = json.loads(lines[0])["settings"]
            parts = [Part(**json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self.folder / JOURNAL} is damaged: remove {self.folder} and begin again"
            ) from None
        # As JSON, in which a tuple is a list.
        wanted = json.loads(json.dumps(settings))
        for name in sorted(wanted.keys() | begun_with.keys()):
            if begun_with.get(name) != wanted.get(name):
                raise FileExistsError(
                    f"{self.folder} was begun with {name} {begun_with.get(name)}, not "
                    f"{wanted.get(name)}: choose another --out, or remove it"
                )
        end = len(lines[0]) + 1
        for number, (line, part) in enumerate(zip(lines[1:], parts, strict=True)):
            paths = self._paths(number)
            if not all(map(Path.is_file, paths)) or [*map(sha256_of, paths)] != [*part.sha256]:
                break  # made again, with all after it
            pairs = [(key, reason) for key, reason in part.rejected]
            self.done.append(part._replace(rejected=pairs))
            end += len(line) + 1
        self._file.truncate(end)

    def _append(self, line: dict[str, Any]) -> None:
        self._file.seek(0, 2)
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def digest_of_keys(keys: Sequence[str]) -> str:
    """Tells whether a source still has the same rows in the same order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
