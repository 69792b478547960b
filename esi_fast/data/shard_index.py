"""What a shard is made of: ustar members, and the offset index beside the tar.

A shard ``train-000000.tar`` is a plain WebDataset tar: a sample is ``<key>.ecg.npy`` (int16
``(12, T)``, 1 uV per LSB), ``<key>.json`` and, where a caption was baked in, ``<key>.txt``, one
after the other. Its index ``train-000000.idx.npy`` is a NumPy structured array, one row a sample in
tar order, with the fields of `index_dtype`; `build_index` makes it again from the tar alone.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from esi_fast.signal.record_batch import MISSING_INT16
from esi_fast.signal.resample import _core

INDEX_FILE = "index.json"
FORMAT = "esi_fast shards"
FORMAT_VERSION = 2
SPLITS = ("train", "val", "test")
MISSING = MISSING_INT16
SATURATED = 32767
UNIT_PER_MV = 1000
BLOCK = 512
# A ustar name without a prefix is 100 bytes; the longest suffix, ".ecg.npy", takes 8 of them.
MAX_KEY_LENGTH = 92
_MEMBER_BEFORE = {"json": "ecg.npy", "txt": "json"}


_SHARD_FILE = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{6,}}\.(tar|idx\.npy)")
_FOLDER_FIELDS = {"fs", "num_samples", "leads", "unit", "missing", "counts", "files", "plan"}


class ShardEntry(TypedDict):
    """A shard as index.json lists it."""

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    index: str
    index_sha256: str


def index_dtype(key_length: int) -> np.dtype[Any]:
    """Fields of an index row; offsets and sizes are bytes of member data within the tar.

    ``num_bytes`` and ``crc32c`` (Castagnoli) are those of the whole sample, from its first header,
    at ``ecg_offset - 512``, to the padding of its last member; ``txt_offset`` is -1 without a
    caption; ``concept_key`` is the json's, as `concept_key_number` gives it. ``text_crc32c`` is
    that of the sample from the json's header on, so that texts are checked without the signal.
    """
    return np.dtype(
        [
            ("key", f"S{key_length}"),
            ("ecg_offset", "<i8"),
            ("num_bytes", "<i4"),
            ("json_offset", "<i8"),
            ("json_size", "<i4"),
            ("txt_offset", "<i8"),
            ("txt_size", "<i4"),
            ("concept_key", "<i8"),
            ("crc32c", "<u4"),
            ("text_crc32c", "<u4"),
        ]
    )


def concept_key_number(concept_key: str) -> int:
    """The first 15 hexadecimal digits of a concept key as a number, so that it fits an int64."""
    return int(concept_key[:15], 16)


@functools.cache
def npy_header(num_leads: int, num_samples: int) -> bytes:
    """The bytes before the samples in every ``.ecg.npy`` of (num_leads, num_samples) int16."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<i2", "fortran_order": False, "shape": (num_leads, num_samples)}
    )
    return buffer.getvalue()


def padded(size: int) -> int:
    """Bytes that ``size`` bytes of member data take in a tar."""
    return -(-size // BLOCK) * BLOCK


def walk_tar(data: mmap.mmap | bytes, name: str) -> Iterator[tuple[str, int, int]]:
    """Members of a ustar archive: file name, offset of the data, size.

    Raises:
        ValueError: a header is damaged or a member is cut off; ``name`` and the offset are named.
    """
    offset = 0
    while offset + BLOCK <= len(data):
        header = data[offset : offset + BLOCK]
        if not header.strip(b"\0"):
            return
        try:
            stored = int(header[148:156].strip(b"\0 "), 8)
            size = int(header[124:136].strip(b"\0 "), 8)
            member = header[:100].rstrip(b"\0").decode("ascii")
        except ValueError:
            raise ValueError(f"{name}: damaged tar header at byte {offset}") from None
        if stored != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            raise ValueError(f"{name}: damaged tar header at byte {offset}")
        if offset + BLOCK + size > len(data):
            raise ValueError(f"{name}: {member} at byte {offset} is cut off")
        yield member, offset + BLOCK, size
        offset += BLOCK + padded(size)
    raise ValueError(f"{name}: ends at byte {len(data)} without an end-of-archive mark")


def build_index(tar_path: Path) -> NDArray[Any]:
    """The index of a shard, made from its tar alone; every byte is read.

    Raises:
        ValueError: the tar is damaged or is no shard of this format; shard and byte are named.
        FileNotFoundError: there is no such file.
    """
    rows: list[list[Any]] = []
    ends: list[int] = []
    last = ""
    with tar_path.open("rb") as file, map_file(file, tar_path.name) as data:
        for member, offset, size in walk_tar(data, tar_path.name):
            stem, _, suffix = member.partition(".")
            key = stem.encode("ascii")
            if suffix == "ecg.npy" and last != "ecg.npy":
                rows.append([key, offset, 0, -1, 0, -1, 0, 0, 0, 0])
                ends.append(0)
            elif _MEMBER_BEFORE.get(suffix) != last or rows[-1][0] != key:
                raise ValueError(f"{tar_path.name}: unexpected member {member} at byte {offset}")
            elif suffix == "json":
                rows[-1][3:5] = offset, size
                rows[-1][7] = _concept_key_of_json(data[offset : offset + size], tar_path, member)
            else:
                rows[-1][5:7] = offset, size
            ends[-1] = offset + padded(size)
            last = suffix
        for row, end in zip(rows, ends, strict=True):
            begin = row[1] - BLOCK
            row[2] = end - begin
            row[8] = _core.crc32c(data[begin:end])
            row[9] = _core.crc32c(data[row[3] - BLOCK : end])
    if not rows or last == "ecg.npy":
        raise ValueError(f"{tar_path.name}: ends without a whole sample")
    key_length = max(len(row[0]) for row in rows)
    return np.array([tuple(row) for row in rows], index_dtype(key_length))


def map_file(file: io.BufferedReader, name: str) -> mmap.mmap:
    """A read-only view of an open file; ``name`` is for the ValueError that an empty one raises."""
    if os.fstat(file.fileno()).st_size == 0:
        raise ValueError(f"{name}: is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _concept_key_of_json(text: bytes, tar_path: Path, member: str) -> int:
    try:
        return concept_key_number(json.loads(text)["concept_key"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{tar_path.name}: {member} is no sample description: {error!r}") from None


def index_bytes(rows: NDArray[Any]) -> bytes:
    """The content of an index file."""
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_synced(path: Path, content: bytes) -> None:
    """Write a file that is on disk for good when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_index_file(path: Path, sha256: str) -> NDArray[Any] | None:
    """An index file's rows, or None if it is absent or is not the file that was written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    rows: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return rows


def sealed(folder: dict[str, Any]) -> bytes:
    """The content of index.json, with a checksum of itself."""
    content = {name: value for name, value in folder.items() if name != "sha256"}
    said = json.dumps(content, sort_keys=True).encode()
    content["sha256"] = hashlib.sha256(said).hexdigest()
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def read_shard_folder(directory: Path) -> dict[str, Any]:
    """The content of a finished folder's index.json.

    Raises:
        FileNotFoundError: no such folder, or it has no index.json (an unfinished build).
        ValueError: index.json is not of this format and version.
    """
    path = directory / INDEX_FILE
    if not directory.is_dir():
        raise FileNotFoundError(f"no such folder: {directory}")
    try:
        written = path.read_bytes()
        content: Any = json.loads(written)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{directory} has no {INDEX_FILE}: finish it with tools/shard --resume"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    folder: dict[str, Any] = content if isinstance(content, dict) else {}
    found = folder.get("format"), folder.get("version")
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{path} is {found}, expected {(FORMAT, FORMAT_VERSION)}: build it again")
    if sealed(folder) != written:
        raise ValueError(f"{path} is damaged: its content does not fit its own sha256")
    shards = folder.get("shards")
    entries: list[Any] = shards if isinstance(shards, list) else [None]
    needed = set(ShardEntry.__annotations__)
    if not set(folder) >= _FOLDER_FIELDS or not all(
        isinstance(one, dict) and needed <= set(one) for one in entries
    ):
        raise ValueError(f"{path} is damaged: fields are missing")
    names = {one[field] for one in entries for field in ("name", "index")}
    if len(names) < 2 * len(entries) or not all(map(_SHARD_FILE.fullmatch, map(str, names))):
        raise ValueError(f"{path} is damaged: it lists a shard twice, or one outside the folder")
    return folder
