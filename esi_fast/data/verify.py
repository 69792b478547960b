"""Checks every byte of a shard folder against what was recorded, and repairs its indices."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.shard_index import (
    BLOCK,
    INDEX_FILE,
    SPLITS,
    ShardEntry,
    build_index,
    index_bytes,
    map_file,
    npy_header,
    read_index_file,
    read_shard_folder,
    sha256_of,
    write_synced,
)
from esi_fast.signal.resample import _core


def verify_shards(
    directory: Path, progress: Callable[[int], object] = lambda num_bytes: None
) -> list[str]:
    """Check every byte of a shard folder against what was recorded when it was written.

    Args:
        directory: a finished shard folder.
        progress: called with the number of bytes just checked.

    Returns:
        One line a problem, naming the file and, for damage within a shard, the sample; empty when
        all is well.

    Raises:
        FileNotFoundError, ValueError: as `read_shard_folder`.
    """
    folder = read_shard_folder(directory)
    problems = []
    shards: list[ShardEntry] = folder["shards"]
    header = npy_header(len(folder["leads"]), folder["num_samples"])
    for shard in shards:
        problems += _verify_shard(directory, shard, header)
        progress(shard["bytes"])
    for name, expected in folder["files"].items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{name}: is absent")
        elif sha256_of(path) != expected:
            problems.append(f"{name}: its bytes have changed since it was written")
    listed = {name for shard in shards for name in (shard["name"], shard["index"])}
    problems += [
        f"{path.name}: is not in {INDEX_FILE}"
        for path in sorted((*directory.glob("*.tar"), *directory.glob("*.idx.npy")))
        if path.name not in listed
    ]
    problems += _repeated_keys(directory, shards)
    for split in SPLITS:
        counted = sum(shard["records"] for shard in shards if shard["split"] == split)
        if counted != folder["counts"][split]:
            problems.append(f"{INDEX_FILE}: its shards hold {counted} {split} records, not "
                            f"{folder['counts'][split]}")  # fmt: skip
    return problems


def repair_indices(directory: Path) -> list[str]:
    """Make lost or damaged index files anew, from the tars that are whole.

    Args:
        directory: a finished shard folder.

    Returns:
        The names of the files that were written.

    Raises:
        FileNotFoundError, ValueError: as `read_shard_folder`; or tars are damaged themselves, so
            that their indices cannot be made again: they are named, and all others are repaired.
    """
    repaired, beyond = [], []
    for shard in read_shard_folder(directory)["shards"]:
        path = directory / shard["index"]
        if read_index_file(path, shard["index_sha256"]) is not None:
            continue
        try:
            content = index_bytes(build_index(directory / shard["name"]))
        except (OSError, ValueError):
            content = b""
        if hashlib.sha256(content).hexdigest() != shard["index_sha256"]:
            beyond.append(shard["name"])
            continue
        partial = path.with_name(f".{path.name}.partial")
        write_synced(partial, content)
        partial.replace(path)
        repaired.append(shard["index"])
    if beyond:
        raise ValueError(
            f"{directory}: not as they were written, so without an index: {', '.join(beyond)}; "
            f"repaired: {', '.join(repaired) or 'none'}"
        )
    return repaired


def _verify_shard(directory: Path, shard: ShardEntry, header: bytes) -> list[str]:
    name = shard["name"]
    path = directory / name
    index = read_index_file(directory / shard["index"], shard["index_sha256"])
    problems = [] if index is not None else [f"{shard['index']}: is absent or damaged"]
    if not path.is_file():
        return [*problems, f"{name}: is absent"]
    if path.stat().st_size != shard["bytes"]:
        problems.append(f"{name}: has {path.stat().st_size} bytes, not {shard['bytes']}")
    if path.stat().st_size == 0:
        return problems
    with path.open("rb") as file, map_file(file, name) as data:
        if hashlib.sha256(data).hexdigest() != shard["sha256"]:
            problems.append(f"{name}: its sha256 is not the recorded one")
            problems += _damaged_samples(data, name, index)
        try:
            rebuilt = build_index(path)
        except ValueError as error:
            return [*problems, str(error)]
        if len(rebuilt) != shard["records"]:
            problems.append(f"{name}: holds {len(rebuilt)} samples, not {shard['records']}")
        if index is not None and len(problems) == 0 and not np.array_equal(index, rebuilt):
            problems.append(f"{shard['index']}: does not describe {name}")
        for row in rebuilt:
            reason = _undecodable(data, row, header)
            if reason:
                problems.append(f"{name}: sample {row['key'].decode()} {reason}")
    return problems


def _repeated_keys(directory: Path, shards: list[ShardEntry]) -> list[str]:
    indices = (read_index_file(directory / one["index"], one["index_sha256"]) for one in shards)
    keys = [index["key"] for index in indices if index is not None]
    found, counts = np.unique(np.concatenate(keys) if keys else [], return_counts=True)
    repeated = found[counts > 1]
    if not len(repeated):
        return []
    return [f"{len(repeated)} keys occur more than once, the first is {repeated[0].decode()}"]


def _damaged_samples(data: mmap.mmap, name: str, index: NDArray[Any] | None) -> list[str]:
    """Samples whose bytes are not those written; the offsets are the index's, not the tar's."""
    if index is None:
        return []
    problems = []
    for row in index:
        start = int(row["ecg_offset"]) - BLOCK
        end = start + int(row["num_bytes"])
        if _core.crc32c(data[start:end]) != row["crc32c"]:
            key = row["key"].decode()
            problems.append(f"{name}: sample {key} is damaged (bytes {start} to {end - 1})")
    return problems


def _undecodable(data: mmap.mmap, row: Any, header: bytes) -> str:
    start = int(row["ecg_offset"])
    if data[start : start + len(header)] != header:
        return f"has another signal shape or type at byte {start}"
    for field in ("json", "txt"):
        start, size = int(row[f"{field}_offset"]), int(row[f"{field}_size"])
        if start < 0:
            continue
        try:
            data[start : start + size].decode("utf-8")
        except UnicodeDecodeError:
            return f"has a .{field} that is not UTF-8 at byte {start}"
    return ""
