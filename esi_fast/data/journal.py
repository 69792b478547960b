"""The unfinished state of a shard folder: which shards are complete, and how the build ends.

While a build runs, its folder holds ``.progress.jsonl`` (the settings, then one line a finished
shard) and the two csv files under temporary names. A shard is renamed to its own name when it is
whole and on disk, then its csv rows are appended, then its line is written: whatever is cut short
is not in the journal, and the next run truncates it away. Everything here is ordered for that.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_origin, get_type_hints

from esi_fast.cqa.file_lock import lock_file
from esi_fast.data.plan import PlannedShard
from esi_fast.data.shard_index import (
    INDEX_FILE,
    ShardEntry,
    read_index_file,
    sealed,
    write_synced,
)
from esi_fast.data.shard_job import Rows, ShardJob, ShardRecord, WrittenShard

JOURNAL_FILE = ".progress.jsonl"
CSV_FILES = ("records.csv", "rejected.csv")


class Journal:
    """The open build of one folder; use as a context manager.

    Attributes:
        shards: the finished shards, in the order in which they were written.
    """

    def __init__(
        self,
        out: Path,
        settings: dict[str, Any],
        columns: tuple[Sequence[str], Sequence[str]],
        *,
        resume: bool,
    ) -> None:
        """Begin a build in an absent or empty folder, or go on with the one that is there.

        Raises:
            FileExistsError: the folder is not empty, or (``resume``) holds no unfinished build, one
                of other settings, or one that another process is writing.
            ValueError: the journal is damaged.
        """
        self._out = out
        self.shards: list[ShardRecord] = []
        journal_path = out / JOURNAL_FILE
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"{out} is a file: choose another folder")
        if out.is_dir() and any(out.iterdir()):
            if not resume:
                raise FileExistsError(
                    f"{out} is not empty: choose another, or --resume to go on with its build"
                )
            if not journal_path.is_file():
                raise FileExistsError(f"{out} holds no unfinished build to resume")
        out.mkdir(parents=True, exist_ok=True)
        self._file = journal_path.open("a+b")
        try:
            self._lock()
            self._load(settings)
            self._csv_files: list[io.BufferedRandom] = [
                self._open_csv(i, columns[i]) for i in range(len(CSV_FILES))
            ]
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
        for file in (*self._csv_files, self._file):
            file.close()

    def _lock(self) -> None:
        try:
            lock_file(self._file.fileno())
        except BlockingIOError:
            raise FileExistsError(f"{self._out} is being written by another process") from None

    def _load(self, settings: dict[str, Any]) -> None:
        self._remove_partial_shards()
        self._file.seek(0)
        lines = self._file.read().split(b"\n")[:-1]  # what follows the last newline was cut short
        if not lines:
            self._file.truncate(0)
            self._append({"settings": settings})
            return
        try:
            first, *shards = (json.loads(line) for line in lines)
            begun_with = dict(first["settings"])
            if not all(map(_is_shard_record, shards)):
                raise ValueError("a line is no shard")
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self._out / JOURNAL_FILE} is damaged: remove {self._out} and build again"
            ) from None
        compare_settings(self._out, begun_with, settings)
        end = len(lines[0]) + 1
        for line, shard in zip(lines[1:], shards, strict=True):
            if shard["records"] and not is_whole(self._out, shard):
                break
            self.shards.append(shard)
            end += len(line) + 1
        self._file.truncate(end)

    def _remove_partial_shards(self) -> None:
        for stale in self._out.glob(".*-[0-9]*.partial"):
            stale.unlink(missing_ok=True)

    def _open_csv(self, number: int, columns: Sequence[str]) -> io.BufferedRandom:
        name = CSV_FILES[number]
        path = self._temporary(name)
        if (self._out / name).exists():  # cut short between this file's last step and index.json
            (self._out / name).replace(path)
        size = self.shards[-1]["csv_bytes"][number] if self.shards else 0
        file = path.open("r+b" if path.exists() else "w+b")
        if file.seek(0, os.SEEK_END) < size:
            file.close()
            raise ValueError(f"{path} has lost rows: remove {self._out} and build again")
        file.truncate(size)
        file.seek(size)
        if not size:
            file.write(csv_bytes([columns]))
        return file

    def _temporary(self, name: str) -> Path:
        return self._out / f".{name}.partial"

    def job(self, planned: PlannedShard) -> ShardJob:
        """Where to write a shard until `commit` renames it; no other process uses these names."""
        own = f"{planned.name}.{os.getpid()}"
        tar, index = self._temporary(f"{own}.tar"), self._temporary(f"{own}.idx.npy")
        return ShardJob(planned, tar, index)

    def check(self, number: int, planned: PlannedShard) -> None:
        """Make sure that a finished shard is still what the catalogue asks for.

        Raises:
            ValueError: it is not; the shard is named.
        """
        shard = self.shards[number]
        if (shard["name"], shard["entries"]) != (f"{planned.name}.tar", planned.digest()):
            raise ValueError(
                f"the catalogue has changed since {shard['name']} of {self._out} was written: "
                "build into another folder"
            )

    def commit(self, written: WrittenShard) -> None:
        """Give a shard, written and synced under its temporary names, its place in the build."""
        shard = written.record
        for name, temporary in ((shard["name"], written.job.tar),
                                (shard["index"], written.job.index)):  # fmt: skip
            if shard["records"]:
                temporary.replace(self._out / name)
            else:
                (self._out / name).unlink(missing_ok=True)
        sync_path(self._out)
        shard["csv_bytes"] = []
        for file, rows in zip(
            self._csv_files, (written.record_rows, written.rejected_rows), strict=True
        ):
            with naming(file.name):
                file.write(csv_bytes(rows))
                _sync(file)
            shard["csv_bytes"].append(file.tell())
        self._append(shard)
        self.shards.append(shard)

    def finish(self, folder: dict[str, Any]) -> None:
        """Give the csv files their names, write index.json, last of all, and drop the journal."""
        self._remove_partial_shards()  # of a process that outlived a build that was killed
        sha256 = {name: self._rename_csv(number) for number, name in enumerate(CSV_FILES)}
        sync_path(self._out)
        write_index_file(self._out, folder | {"files": sha256})
        remove_journal(self._out)

    def give_up(self) -> None:
        """End a build that has written no record: only rejected.csv is left."""
        self._rename_csv(CSV_FILES.index("rejected.csv"))
        self._temporary("records.csv").unlink()
        remove_journal(self._out)

    def _rename_csv(self, number: int) -> str:
        name = CSV_FILES[number]
        with self._csv_files[number] as file:
            return finish_csv(file, self._temporary(name), self._out / name)

    def _append(self, line: Any) -> None:
        with naming(self._file.name):
            self._file.write(json.dumps(line).encode() + b"\n")
            _sync(self._file)


def is_whole(directory: Path, shard: ShardEntry) -> bool:
    """Whether a shard has its size and its index; `verify` looks at every byte."""
    tar = directory / shard["name"]
    if not tar.is_file() or tar.stat().st_size != shard["bytes"]:
        return False
    return read_index_file(directory / shard["index"], shard["index_sha256"]) is not None


def _is_shard_record(line: Any) -> bool:
    """Whether a line of the journal has the fields of a `ShardRecord`, each of its type."""
    fields = get_type_hints(ShardRecord)
    return (
        isinstance(line, dict)
        and line.keys() == fields.keys()
        and all(isinstance(line[name], get_origin(kind) or kind) for name, kind in fields.items())
        and [type(size) for size in line["csv_bytes"]] == [int] * len(CSV_FILES)
    )


def remove_journal(out: Path) -> None:
    """Drop the journal of a finished folder, where an interrupted run has left it."""
    (out / JOURNAL_FILE).unlink(missing_ok=True)
    sync_path(out)


def compare_settings(out: Path, begun_with: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse to go on with a build of other settings.

    Raises:
        FileExistsError: a setting differs; it is named with both values.
    """
    for name in sorted(begun_with | settings):
        before, now = begun_with.get(name), settings.get(name)
        if before != now:
            raise FileExistsError(
                f"{out} was begun with {name}={before}, not {now}: use the same, or another folder"
            )


def write_index_file(out: Path, folder: dict[str, Any]) -> None:
    """Write index.json, whole or not at all."""
    path = out / f".{INDEX_FILE}.partial"
    write_synced(path, sealed(folder))
    path.replace(out / INDEX_FILE)
    sync_path(out)


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Name the file in an OSError that does not, such as "No space left on device"."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def csv_bytes(rows: Rows) -> bytes:
    """Rows as the csv files hold them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def finish_csv(file: io.BufferedRandom, temporary: Path, path: Path) -> str:
    """Put a csv file on disk for good, under its own name; returns its sha256."""
    _sync(file)
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    temporary.replace(path)
    return sha256


def _sync(file: io.BufferedRandom | io.BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Put a closed file, or the new names in a folder, on disk for good."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
