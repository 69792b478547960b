"""Where ECGs come from, row by row: folders of records, and shard sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from esi_fast.data.shard_index import INDEX_FILE, SPLITS, read_shard_folder
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.signals import Signals, fit_signals, read_shards, read_wfdb
from esi_fast.leads import NUM_LEADS
from esi_fast.search.parts import digest_of_keys
from esi_fast.signal.catalogues import is_database, open_catalogue
from esi_fast.signal.inputs import FILE_SUFFIXES, read_ecg

# What an index tells of a record beside its key, its patient and its split.
_TOLD = ("age", "sex", "statements", "findings")


class Row(NamedTuple):
    """One recording of a source.

    Attributes:
        key: its name.
        where: the record's path, or the row in its split's shards.
        subject_id: the patient; of a shard's row, `Source.line` reads it.
        split: of a shard set; "" in a folder of records.
        error: why there is nothing to read; "" if there is.
    """

    key: str
    where: Any
    subject_id: str = ""
    split: str = ""
    error: str = ""


class Source(Protocol):
    """Recordings in a fixed order."""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON that differs where the recordings differ."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Row]: ...

    def read(self, rows: Sequence[Row]) -> tuple[Signals, list[str]]:
        """Signals (n, 12, T) in mV, NaN where missing, and of each what is wrong or ""."""

    def line(self, row: Row) -> dict[str, Any]:
        """What is kept beside a row's embedding; ValueError if it cannot be read."""


class RecordSource:
    """The recordings of a folder, as `esi_fast.signal.catalogues.open_catalogue` lists them.

    Args:
        root: the folder.
        fs: rate in Hz of the signals wanted.
        num_samples: their length; longer records are cut, shorter ones end in missing samples.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no folder of recordings, or lists none.
    """

    def __init__(self, root: Path, fs: float, num_samples: int) -> None:
        self._catalogue = open_catalogue(root)
        self._fs, self._num_samples = fs, num_samples
        if len(self._catalogue) == 0:
            raise ValueError(f"{root} lists no recordings")

    @property
    def identity(self) -> dict[str, Any]:
        """As `Source`."""
        return {"records": self._catalogue.source, "root": str(self._catalogue.root.resolve())}

    def __len__(self) -> int:
        return len(self._catalogue)

    def __iter__(self) -> Iterator[Row]:
        for entry in self._catalogue:
            yield Row(entry.key, entry.path, entry.subject_id, error=entry.error)

    def read(self, rows: Sequence[Row]) -> tuple[Signals, list[str]]:
        """As `Source`."""
        sound = [at for at, row in enumerate(rows) if not row.error]
        signals = np.full((len(rows), NUM_LEADS, self._num_samples), np.nan, np.float32)
        errors = [row.error for row in rows]
        paths, gain = [rows[at].where for at in sound], self._catalogue.adc_units_per_mv
        signals[sound], found = read_wfdb(paths, self._fs, self._num_samples, gain)
        for at, error in zip(sound, found, strict=True):
            errors[at] = error
        return signals, errors

    def line(self, row: Row) -> dict[str, Any]:
        """As `Source`."""
        return {"key": row.key, "subject_id": row.subject_id, "split": row.split}


class FileSource:
    """Files of one recording each, of every format but WFDB that `read_ecg` takes, by their names.

    Args:
        root: the folder; files may lie in folders of it.
        fs, num_samples: as `RecordSource`.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, root: Path, fs: float, num_samples: int) -> None:
        self._root, self._fs, self._num_samples = root, fs, num_samples
        files = (path for path in root.rglob("*") if path.suffix.lower() in FILE_SUFFIXES)
        self._names = sorted(path.relative_to(root).as_posix() for path in files if path.is_file())
        if not self._names:
            raise ValueError(
                f"{root} holds no recordings: neither shards, nor a database, nor WFDB headers, "
                f"nor {', '.join(FILE_SUFFIXES)}"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """As `Source`."""
        return {"files": digest_of_keys(self._names), "root": str(self._root.resolve())}

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Row]:
        for name in self._names:
            yield Row(name, self._root / name)

    def read(self, rows: Sequence[Row]) -> tuple[Signals, list[str]]:
        """As `Source`."""
        found = [_read_file(row.where, self._fs, self._num_samples) for row in rows]
        return np.stack([signal for signal, _ in found]), [error for _, error in found]

    def line(self, row: Row) -> dict[str, Any]:
        """As `Source`; whose recording it is, is not known."""
        return {"key": row.key, "subject_id": row.subject_id, "split": row.split}


class ShardSource:
    """The samples of shard folders: train, then val, then test.

    Args:
        dirs: finished shard folders.
        fs, num_samples: as `RecordSource`.
        told: keep captions, statements, findings, age and sex as well.

    Raises:
        FileNotFoundError: a folder or a shard is missing.
        ValueError: a shard is damaged, or there is no record.
    """

    def __init__(
        self, dirs: Sequence[Path], fs: float, num_samples: int, *, told: bool = False
    ) -> None:
        folders = [read_shard_folder(Path(one)) for one in dirs]
        self._sets = {
            split: ShardSet(dirs, split)
            for split in SPLITS
            if any(folder["counts"][split] for folder in folders)
        }
        if not self._sets:
            raise ValueError(f"no records in {', '.join(map(str, dirs))}")
        self._fs, self._num_samples, self._told = fs, num_samples, told

    @property
    def identity(self) -> dict[str, Any]:
        """As `Source`."""
        return {"shards": {split: one.digest for split, one in self._sets.items()}}

    def __len__(self) -> int:
        return sum(map(len, self._sets.values()))

    def __iter__(self) -> Iterator[Row]:
        for split, shards in self._sets.items():
            for row in range(len(shards)):
                yield Row(shards.key(row), row, split=split)

    def read(self, rows: Sequence[Row]) -> tuple[Signals, list[str]]:
        """As `Source`."""
        signals = np.full((len(rows), NUM_LEADS, self._num_samples), np.nan, np.float32)
        errors = [""] * len(rows)
        for split, shards in self._sets.items():
            places = [at for at, row in enumerate(rows) if row.split == split]
            if not places:
                continue
            wanted = [rows[at].where for at in places]
            signals[places], found = read_shards(shards, wanted, self._fs, self._num_samples)
            for at, error in zip(places, found, strict=True):
                errors[at] = error
        return signals, errors

    def line(self, row: Row) -> dict[str, Any]:
        """As `Source`."""
        shards = self._sets[row.split]
        meta = shards.read_meta(row.where)
        line = {"key": row.key, "subject_id": meta["subject_id"], "split": row.split}
        if self._told:
            line |= {name: meta[name] for name in _TOLD}
            line["caption"] = shards.read_caption(row.where)
        return line


def open_source(root: Path, fs: float, num_samples: int) -> Source:
    """Shards where the folder has an index.json; a database or WFDB's records; or single files."""
    if (root / INDEX_FILE).is_file():
        return ShardSource([root], fs, num_samples)
    if is_database(root) or next(root.rglob("*.hea"), None) is not None:
        return RecordSource(root, fs, num_samples)
    return FileSource(root, fs, num_samples)


def _read_file(path: Any, fs: float, num_samples: int) -> tuple[Signals, str]:
    """One recording (12, T) by the rules of `read_ecg`, and what is wrong or ""."""
    try:
        record = read_ecg(path)
    except (ValueError, OSError) as error:
        return np.full((NUM_LEADS, num_samples), np.nan, np.float32), str(error)
    return fit_signals(record.signal[None], record.fs, fs, num_samples)[0], ""
