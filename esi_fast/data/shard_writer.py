"""Writes a shard: the tar through the compiled core, and its index."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from esi_fast.data.shard_index import (
    BLOCK,
    concept_key_number,
    index_bytes,
    index_dtype,
    npy_header,
    padded,
    write_synced,
)
from esi_fast.signal.resample import _core


class ShardWriter:
    """Writes one tar and its index under temporary names, which the caller renames.

    Use as a context manager: without `finish`, nothing is left.
    """

    def __init__(self, tar_path: Path, index_path: Path) -> None:
        self._tar_path, self._index_path = tar_path, index_path
        self._file = tar_path.open("wb", buffering=0)
        self._sha = hashlib.sha256()
        self._rows: list[tuple[bytes | int, ...]] = []
        self._end = self._key_length = 0
        self._finished = False

    def add(
        self,
        keys: Sequence[str],
        ecg: NDArray[np.int16],
        metas: Sequence[bytes],
        captions: Sequence[bytes | None],
        concept_keys: Sequence[str],
    ) -> None:
        """Append samples.

        Args:
            keys: (n,) of `MAX_KEY_LENGTH` ASCII characters at most.
            ecg: (n, leads, T) int16, 1 uV per LSB.
            metas: (n,) the jsons' bytes.
            captions: (n,) the captions' bytes; None writes none.
            concept_keys: (n,) the jsons' concept keys.

        Raises:
            OSError: writing failed.
        """
        encoded = [key.encode("ascii") for key in keys]
        self._key_length = max(self._key_length, *map(len, encoded))
        ecg = np.ascontiguousarray(ecg, dtype="<i2")
        frames = _core.append_samples(
            self._file.fileno(),
            keys=encoded,
            ecg=ecg,
            npy_header=npy_header(*ecg.shape[1:]),
            jsons=metas,
            captions=captions,
        )
        for number, (head, tail, crc) in enumerate(frames):
            for piece in (head, ecg[number].data, tail):
                self._sha.update(piece)
            num_bytes = len(head) + ecg[number].nbytes + len(tail)
            meta, caption = metas[number], captions[number]
            end = self._end + num_bytes
            txt_offset = -1
            if caption is not None:
                txt_offset = end - padded(len(caption))
                end = txt_offset - BLOCK
            json_offset = end - padded(len(meta))
            row = (encoded[number], self._end + BLOCK, num_bytes, json_offset, len(meta))
            self._end += num_bytes
            text_crc = _core.crc32c(tail[json_offset - BLOCK - self._end :])
            txt = (txt_offset, len(caption or b""))
            self._rows.append((*row, *txt, concept_key_number(concept_keys[number]), crc, text_crc))

    def finish(self) -> tuple[int, str, str]:
        """Close both files, on disk for good; returns tar bytes, tar sha256, index sha256."""
        end_of_archive = bytes(2 * BLOCK)
        self._file.write(end_of_archive)
        self._sha.update(end_of_archive)
        os.fsync(self._file.fileno())
        self._file.close()
        rows = np.array(self._rows, index_dtype(self._key_length))
        index = index_bytes(rows)
        write_synced(self._index_path, index)
        self._finished = True
        index_sha256 = hashlib.sha256(index).hexdigest()
        return self._end + len(end_of_archive), self._sha.hexdigest(), index_sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and remove it unless `finish` has made it whole."""
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(self._tar_path)  # "No space left on device" says where
        if not self._finished:
            self._file.close()
            self._tar_path.unlink(missing_ok=True)
            self._index_path.unlink(missing_ok=True)
