"""Random access to the samples of shard folders, through the offset indices."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.shard_index import (
    BLOCK,
    SPLITS,
    ShardEntry,
    build_index,
    index_dtype,
    npy_header,
    read_index_file,
    read_shard_folder,
)
from esi_fast.signal.resample import _core

Normalize = Literal["mv", "zscore"]
NanPolicy = Literal["nan", "zero", "mean"]
# Files kept open at once; the usual limit of a process is 1,024.
MAX_OPEN_SHARDS = 512
# What must be equal in all folders that are read together.
_SHARED_FIELDS = ("fs", "num_samples", "leads", "unit", "missing")


class ShardSet:
    """The samples of one split of one or several shard folders, by row number.

    Rows follow the folders as given, the shards by name, and the order within them.

    Attributes:
        fs: sampling rate in Hz.
        num_samples: samples per lead, T.
        leads: names of a signal's rows.
        concept_keys: (len,) int64; equal numbers mean equal findings.
        shard_of_row: (len,) int64, number of the shard that each row is in, ascending.
    """

    fs: float
    num_samples: int
    leads: tuple[str, ...]
    concept_keys: NDArray[np.int64]
    shard_of_row: NDArray[np.int64]

    def __init__(
        self,
        dirs: Path | Sequence[Path],
        split: str = "train",
        *,
        captions: Path | None = None,
        allow_damage: bool = False,
    ) -> None:
        """Open the folders; no signal is read yet.

        Args:
            dirs: finished shard folders (`esi_fast.data.shards.write_shards`).
            split: "train", "val", "test", or "all" for the three after each other.
            captions: JSON lines of ``{"key": ..., "caption": ...}`` that take the place of the
                captions in the shards.
            allow_damage: a shard that is missing or has another size than recorded is a warning,
                and its samples are found damaged when they are read. Its index must be sound.

        Raises:
            FileNotFoundError: a folder, its index.json, a shard or ``captions`` is missing.
            ValueError: the split is unknown or has no record, the folders differ in sampling rate,
                duration or leads, a shard is damaged, or ``captions`` is malformed or fits no key.
        """
        self._dirs = [Path(dirs)] if isinstance(dirs, str | Path) else [Path(one) for one in dirs]
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}, all")
        if not self._dirs or len({one.resolve() for one in self._dirs}) < len(self._dirs):
            raise ValueError(f"shard folders must be named, each once: {_names(self._dirs)}")
        folders = [read_shard_folder(one) for one in self._dirs]
        for directory, folder in zip(self._dirs, folders, strict=True):
            for field in _SHARED_FIELDS:
                if folder[field] != folders[0][field]:
                    raise ValueError(
                        f"{directory} has {field} {folder[field]}, {self._dirs[0]} has "
                        f"{folders[0][field]}: shards read together must agree"
                    )
        self.fs = float(folders[0]["fs"])
        self.num_samples = int(folders[0]["num_samples"])
        self.leads = tuple(folders[0]["leads"])
        self._paths: list[Path] = []
        sources: list[Any] = [split]
        indices = []
        for directory, folder in zip(self._dirs, folders, strict=True):
            for shard in folder["shards"]:
                if split in (shard["split"], "all"):
                    self._paths.append(directory / shard["name"])
                    indices.append(_open_index(directory, shard, allow_damage))
                    sources.append((shard["name"], shard["sha256"]))
        if not indices:
            raise ValueError(f"no {split} records in {_names(self._dirs)}")
        widest = index_dtype(max(index.dtype["key"].itemsize for index in indices))
        self._rows = np.concatenate([index.astype(widest) for index in indices])
        self.shard_of_row = np.repeat(np.arange(len(indices)), [len(index) for index in indices])
        self.concept_keys = self._rows["concept_key"].astype(np.int64)
        self._keys: list[str] | None = None
        self._open_files: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        self._overlay: dict[int, str] = {}
        if captions is not None:
            self._overlay, sha256 = self._read_overlay(Path(captions))
            sources.append(sha256)
        self._digest = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the shards in their order, the split and the caption overlay.

        Equal digests mean equal rows, signals and captions, wherever the folders lie.
        """
        return self._digest

    @property
    def keys(self) -> list[str]:
        """The key of every row; the list is made on first use."""
        if self._keys is None:
            self._keys = [key.decode("ascii") for key in self._rows["key"].tolist()]
        return self._keys

    def key(self, row: int) -> str:
        """The key of one row."""
        return bytes(self._rows["key"][row]).decode("ascii")

    def read_ecg(
        self,
        rows: Sequence[int] | NDArray[np.integer[Any]],
        *,
        normalize: Normalize = "mv",
        nan_policy: NanPolicy = "nan",
    ) -> NDArray[np.float32]:
        """Signals of some rows.

        Args:
            rows: which, in this order.
            normalize, nan_policy: as in `read_batch`.

        Returns:
            (len(rows), leads, num_samples) float32.

        Raises:
            ValueError: a sample is damaged, or its shard cannot be read; the shard, the sample and
                the byte are named.
        """
        out = np.empty((len(rows), len(self.leads), self.num_samples), np.float32)
        errors = self.read_batch(rows, out, normalize=normalize, nan_policy=nan_policy)
        if errors:
            raise ValueError(next(iter(errors.values())))
        return out

    def read_batch(
        self,
        rows: Sequence[int] | NDArray[np.integer[Any]],
        out: NDArray[np.float32],
        *,
        starts: NDArray[np.int64] | None = None,
        normalize: Normalize = "mv",
        nan_policy: NanPolicy = "nan",
    ) -> dict[int, str]:
        """Read signals into an array, checking every byte of each sample; the GIL is released.

        Args:
            rows: (n,) which.
            out: (n, leads, T) float32, C-contiguous, T up to ``num_samples``.
            starts: (n,) where in the record T samples are taken; None: at its beginning.
            normalize: ``"mv"``, millivolt; ``"zscore"``, one mean and one unbiased standard
                deviation (plus 1e-6 mV) over all that is taken of the record.
            nan_policy: what missing samples become: ``"nan"``; ``"zero"``, 0 of the output;
                ``"mean"``, the mean of the lead's other samples, which then counts for the z-score.

        Returns:
            What is wrong, by position in ``rows``, for samples that are damaged or cannot be read;
            their part of ``out`` is undefined.

        Raises:
            ValueError: ``rows``, ``out``, ``starts`` or a name does not fit.
            OSError: the process has no file descriptor left.
        """
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise ValueError(f"rows must be integers of shape (n,), not {wanted.dtype}")
        wanted = wanted.astype(np.int64)
        if out.ndim != 3 or out.shape[:2] != (len(wanted), len(self.leads)):
            raise ValueError(f"out must be ({len(wanted)}, {len(self.leads)}, T), not {out.shape}")
        chosen, shards = self._rows[wanted], self.shard_of_row[wanted]
        begins = chosen["ecg_offset"] - BLOCK
        files: dict[int, _OpenFile] = {}  # kept alive while they are read
        unreadable: dict[int, str] = {}
        for shard in map(int, np.unique(shards)):
            try:
                files[shard] = self._file(shard)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing of the shard
                    raise
                unreadable[shard] = f"cannot be read: {error.strerror}"
        found = _core.read_samples(
            np.array(
                [files[s].descriptor if s in files else -1 for s in shards.tolist()], np.int64
            ),
            begins,
            chosen["num_bytes"],
            chosen["crc32c"],
            np.zeros(len(chosen), np.int64) if starts is None else starts,
            out,
            npy_header=npy_header(len(self.leads), self.num_samples),
            num_samples=self.num_samples,
            normalize=normalize,
            nan_policy=nan_policy,
            threads=1,
        )
        return {
            position: self._damage(
                int(wanted[position]), int(begins[position]), unreadable.get(shards[position], what)
            )
            for position, what in enumerate(found)
            if what
        }

    def read_meta(self, row: int) -> dict[str, Any]:
        """The json of one row: ids, age, sex, statements, findings, measurements, quality.

        Raises:
            ValueError: the texts of the sample are damaged or cannot be read; shard, sample and
                byte are named.
        """
        meta: dict[str, Any] = json.loads(self._read_member(row, "json"))
        return meta

    def read_caption(self, row: int) -> str | None:
        """The caption of one row: the overlay's, else the shard's, else None.

        Raises:
            ValueError: as `read_meta`.
        """
        if int(row) in self._overlay:
            return self._overlay[int(row)]
        if self._rows["txt_offset"][row] < 0:
            return None
        return self._read_member(row, "txt").decode("utf-8")

    def rows_without_caption(self) -> NDArray[np.int64]:
        """Rows for which `read_caption` gives None, ascending."""
        rows = np.flatnonzero(self._rows["txt_offset"] < 0)
        return rows[[int(row) not in self._overlay for row in rows]] if self._overlay else rows

    def _read_member(self, row: int, field: str) -> bytes:
        """The content of a text member, once the texts of the sample have proved sound."""
        index = self._rows[row]
        begin = int(index["json_offset"]) - BLOCK
        end = int(index["ecg_offset"]) - BLOCK + int(index["num_bytes"])
        try:
            file = self._file(int(self.shard_of_row[row]))
            content = os.pread(file.descriptor, end - begin, begin)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing of the shard
                raise
            what = f"cannot be read: {error.strerror}"
            raise ValueError(self._damage(row, begin, what)) from None
        if len(content) < end - begin:
            raise ValueError(self._damage(row, begin, "is cut off"))
        if _core.crc32c(content) != index["text_crc32c"]:
            raise ValueError(self._damage(row, begin, "is damaged"))
        first = int(index[f"{field}_offset"]) - begin
        return content[first : first + int(index[f"{field}_size"])]

    def _file(self, shard: int) -> _OpenFile:
        with self._lock:
            if shard in self._open_files:
                self._open_files.move_to_end(shard)
            else:
                if len(self._open_files) >= MAX_OPEN_SHARDS:
                    self._open_files.popitem(last=False)
                self._open_files[shard] = self._open(self._paths[shard])
            return self._open_files[shard]

    def _open(self, path: Path) -> _OpenFile:
        while True:
            try:
                return _OpenFile(path)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open_files:
                    raise
                self._open_files.popitem(last=False)

    def _damage(self, row: int, offset: int, what: str) -> str:
        path = self._paths[int(self.shard_of_row[row])]
        return (
            f"{path}: sample {self.key(row)} at byte {offset} {what}: "
            f"run tools/shard verify {path.parent}"
        )

    def _read_overlay(self, path: Path) -> tuple[dict[int, str], str]:
        """Captions by row, and the sha256 of the file that they are from."""
        row_of_key = {key: row for row, key in enumerate(self.keys)}
        if len(row_of_key) < len(self):
            raise ValueError(f"{path} cannot be used: keys occur twice in {_names(self._dirs)}")
        overlay: dict[int, str] = {}
        sha = hashlib.sha256()
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                sha.update(line)
                try:
                    entry = json.loads(line)
                    key, caption = entry["key"], entry["caption"]
                except (ValueError, KeyError, TypeError):
                    key = caption = None
                if not isinstance(key, str) or not isinstance(caption, str):
                    raise ValueError(f'{path} line {number} is not {{"key": ..., "caption": ...}}')
                if not caption.strip() or _has_surrogates(caption):
                    raise ValueError(f"{path} line {number}: the caption of {key} is no text")
                row = row_of_key.get(key)
                if row is None:  # a caption of another split
                    continue
                if row in overlay:
                    raise ValueError(f"{path} line {number}: {key} occurs twice")
                overlay[row] = caption
        if not overlay:
            raise ValueError(f"{path} holds no caption for any record of {_names(self._dirs)}")
        if len(overlay) < len(self):
            warnings.warn(
                f"{path} has captions of {len(overlay)} of {len(self)} records: the others keep "
                "theirs",
                stacklevel=3,
            )
        return overlay, sha.hexdigest()

    def close(self) -> None:
        """Close the shards' files; they are opened again when needed."""
        with self._lock:
            self._open_files.clear()


class _OpenFile:
    """A file that is closed when nobody refers to it any more: not while another thread reads."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "none given"


def _open_index(directory: Path, shard: ShardEntry, allow_damage: bool) -> NDArray[Any]:
    tar = directory / shard["name"]
    index = read_index_file(directory / shard["index"], shard["index_sha256"])
    allow_damage = allow_damage and index is not None
    if not tar.is_file():
        if not allow_damage:
            raise FileNotFoundError(f"{tar} is missing, though index.json lists it")
        warnings.warn(f"{tar} is missing: its samples count as damaged", stacklevel=3)
    elif tar.stat().st_size != shard["bytes"]:
        size = f"{tar} has {tar.stat().st_size} bytes, not {shard['bytes']}"
        if not allow_damage:
            raise ValueError(f"{size}: damaged")
        warnings.warn(
            f"{size}: its samples count as damaged where they cannot be read", stacklevel=3
        )
    if index is None:
        warnings.warn(
            f"{directory / shard['index']} is absent or damaged: made again in memory from the "
            f"tar; tools/shard verify {directory} --repair-index makes it last",
            stacklevel=3,
        )
        index = build_index(tar)
    if len(index) != shard["records"]:
        raise ValueError(f"{tar} holds {len(index)} samples, not {shard['records']}: damaged")
    return index
