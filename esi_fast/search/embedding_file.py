"""Embeddings as one file: Parquet, or npy beside a csv of keys; it appears whole or not at all."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from esi_fast.data.journal import sync_path
from esi_fast.search.embed import Dtype
from esi_fast.search.parts import Parts

SUFFIXES = (".parquet", ".npy")
_COLUMNS = ("key", "subject_id", "split")


def beside(out: Path, suffix: str) -> Path:
    """The file of another kind that goes with an embeddings file: ``x.rejected.csv``."""
    return out.with_name(f"{out.name}{suffix}")


def write_embeddings(
    parts: Parts, out: Path, *, dtype: Dtype, dimension: int, about: dict[str, str]
) -> None:
    """Write what finished parts hold as one file, and what they rejected beside it.

    ``.parquet``: columns ``key``, ``subject_id``, ``split`` (text) and ``embedding`` (a list of
    ``dimension`` numbers), a row group a part, ``about`` in the file's metadata. ``.npy``:
    ``(rows, dimension)``, and ``OUT.keys.csv`` has the three columns. Either way
    ``OUT.rejected.csv`` lists key and reason of every record without an embedding.

    Args:
        parts: all done.
        out: ends in one of ``SUFFIXES``.
        dtype: of the embeddings.
        dimension: D.
        about: the model, and how the embeddings were made.

    Raises:
        ModuleNotFoundError: ``.parquet``, and pyarrow is not installed.
        ValueError: another suffix.
        FileExistsError: ``out`` is there, perhaps since a moment ago; the parts are kept.
    """
    if out.exists():
        raise FileExistsError(f"{out} has appeared meanwhile: move it away, and --resume")
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out} must end in {' or '.join(SUFFIXES)}")
    rejected = [("key", "reason"), *parts.rejected]
    _whole(beside(out, ".rejected.csv"), lambda path: _write_csv(path, rejected))
    if out.suffix == ".parquet":
        _whole(out, lambda path: _write_parquet(path, parts, dtype, dimension, about))
        return
    rows = ([line[name] for name in _COLUMNS] for lines in parts.lines() for line in lines)
    _whole(beside(out, ".keys.csv"), lambda path: _write_csv(path, chain([_COLUMNS], rows)))
    _whole(out, lambda path: _write_npy(path, parts, dtype, dimension))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_path(path.parent)


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_npy(path: Path, parts: Parts, dtype: Dtype, dimension: int) -> None:
    with path.open("wb") as file:
        shape = (parts.num_kept, dimension)
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for array in parts.arrays():
            file.write(array.tobytes())


def _write_parquet(
    path: Path, parts: Parts, dtype: Dtype, dimension: int, about: dict[str, str]
) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    numbers: Any = pa.float16() if dtype == "float16" else pa.float32()
    fields = [(name, pa.string()) for name in _COLUMNS]
    schema = pa.schema([*fields, ("embedding", pa.list_(numbers, dimension))], metadata=about)
    with pq.ParquetWriter(path, schema) as writer:
        for array, lines in zip(parts.arrays(), parts.lines(), strict=True):
            columns = [pa.array([line[name] for line in lines], pa.string()) for name in _COLUMNS]
            flat = pa.array(array.reshape(-1), numbers)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, dimension))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
