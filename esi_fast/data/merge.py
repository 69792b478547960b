"""Joins the parts of a build into the folder that one build of everything would have made."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from esi_fast.data.journal import (
    CSV_FILES,
    finish_csv,
    is_whole,
    naming,
    sync_path,
    write_index_file,
)
from esi_fast.data.shard_index import INDEX_FILE, SPLITS, read_shard_folder, sha256_of


def merge_parts(
    parts: Sequence[Path],
    out: Path,
    progress: Callable[[int], object] = lambda num_bytes: None,
) -> dict[str, Any]:
    """Join the parts of one build (``part`` of `esi_fast.data.shards.write_shards`).

    Shards are linked where the file systems allow it and copied elsewhere; the parts stay as they
    are. The result equals a build of everything, byte for byte. index.json is written last: a merge
    that is cut short can be begun again into the same folder.

    Args:
        parts: the finished folders of all parts, in any order.
        out: folder to make; absent, empty, or what an interrupted merge has left.
        progress: called with the bytes of each shard that has its place.

    Returns:
        The content of the new index.json.

    Raises:
        FileNotFoundError: a folder is absent or unfinished.
        FileExistsError: ``out`` holds something else.
        ValueError: the folders are not all parts of one build.
    """
    folders = _in_order(parts)
    _check_out(out, folders)
    out.mkdir(parents=True, exist_ok=True)
    for directory, folder in folders:
        for shard in folder["shards"]:
            if not is_whole(directory, shard):
                raise ValueError(
                    f"{directory / shard['name']} or its index is not as it was built: run "
                    f"tools/shard verify {directory}"
                )
            for name in (shard["name"], shard["index"]):
                _place(directory / name, out / name)
            progress(shard["bytes"])
    plan = sorted(
        (*shard, number)
        for number, (_, folder) in enumerate(folders)
        for shard in folder["part"]["shards"]
    )
    sha256 = {}
    for column, name in enumerate(CSV_FILES, start=2):
        for directory, folder in folders:
            if sha256_of(directory / name) != folder["files"][name]:
                raise ValueError(f"{directory / name} has changed since it was written")
        counts = [(shard[-1], shard[column]) for shard in plan]
        sha256[name] = _join_csv([directory / name for directory, _ in folders], counts, out / name)
    sync_path(out)
    merged = _merged(folders) | {"files": sha256}
    write_index_file(out, merged)
    return merged


def _in_order(parts: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """The folders by their number, proved to be all parts of one build."""
    found: dict[int, tuple[Path, dict[str, Any]]] = {}
    first: tuple[Path, dict[str, Any]] | None = None
    for directory in parts:
        folder = read_shard_folder(directory)
        if "part" not in folder:
            raise ValueError(f"{directory} is a whole build, not a part: there is nothing to merge")
        first = first or (directory, folder)
        for name in ("settings", "patients_known", "plan"):
            if folder[name] != first[1][name]:
                raise ValueError(f"{directory} and {first[0]} are not of one build: {name} differ")
        for name in ("of", "num_shards"):
            if folder["part"][name] != first[1]["part"][name]:
                raise ValueError(
                    f"{directory} has {name} {folder['part'][name]}, {first[0]} has "
                    f"{first[1]['part'][name]}: they are not parts of one build"
                )
        number = folder["part"]["number"]
        if number in found:
            raise ValueError(f"{directory} and {found[number][0]} are both part {number}")
        found[number] = directory, folder
    if first is None:
        raise ValueError("no parts were named")
    of = first[1]["part"]["of"]
    if absent := [str(number) for number in range(1, of + 1) if number not in found]:
        raise ValueError(f"part(s) {', '.join(absent)} of {of} are missing")
    folders = [found[number] for number in sorted(found)]
    sequences = sorted(shard[0] for _, folder in folders for shard in folder["part"]["shards"])
    if sequences != list(range(first[1]["part"]["num_shards"])):
        raise ValueError("the parts do not make up one build: were the records changed between?")
    return folders


def _check_out(out: Path, folders: list[tuple[Path, dict[str, Any]]]) -> None:
    expected = {name for _, folder in folders for one in folder["shards"]
                for name in (one["name"], one["index"])}  # fmt: skip
    expected |= {f".{name}.partial" for name in (*expected, *CSV_FILES, INDEX_FILE)} | {*CSV_FILES}
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose another folder")
    if out.is_dir() and {path.name for path in out.iterdir()} - expected:
        raise FileExistsError(f"{out} is not empty: choose another folder")


# Another disk, or a file system without hard links; FUSE's say ENOSYS.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def _place(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as original, naming(partial), partial.open("wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
    partial.replace(target)


def _join_csv(sources: Sequence[Path], counts: Sequence[tuple[int, int]], target: Path) -> str:
    """Take rows of the sources in turn, ``(source, number of rows)``; returns the sha256."""
    files = [path.open(encoding="utf-8", newline="") for path in sources]
    partial = target.with_name(f".{target.name}.partial")
    try:
        readers = [_records(file) for file in files]
        header, *_ = [next(reader) for reader in readers]
        with naming(partial), partial.open("w+b") as out:
            out.write(header.encode())
            for source, count in counts:
                for _ in range(count):
                    out.write(next(readers[source]).encode())
            if any(next(reader, None) is not None for reader in readers):
                raise ValueError(f"{target.name} of a part has more rows than its shards")
            return finish_csv(out, partial, target)
    except StopIteration:
        raise ValueError(f"{target.name} of a part has fewer rows than its shards") from None
    finally:
        for file in files:
            file.close()


def _records(file: TextIO) -> Iterator[str]:
    """The rows of a csv file as they are, each with its line breaks."""
    text: list[str] = []

    def lines() -> Iterator[str]:
        for line in file:
            text.append(line)
            yield line

    for _ in csv.reader(lines()):
        yield "".join(text)
        text.clear()


def _merged(folders: list[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    every = [folder for _, folder in folders]
    shards = [shard for folder in every for shard in folder["shards"]]
    shards.sort(key=lambda shard: (SPLITS.index(shard["split"]), shard["name"]))
    quality: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for folder in every:
        quality.update(folder["quality"])
        counts.update(folder["counts"])
    merged = {name: value for name, value in every[0].items() if name not in ("part", "files")}
    return merged | {
        "counts": {name: counts[name] for name in every[0]["counts"]},
        "quality": dict(sorted(quality.items())),
        "shards": shards,
    }
