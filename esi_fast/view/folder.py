"""The recordings of a folder by name, whatever it holds: shards, a database, or loose files."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from esi_fast.signal.catalogues import is_database, open_catalogue
from esi_fast.signal.inputs import FILE_SUFFIXES, read_ecg
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.records import ECGRecord

_WFDB_DATA = (".dat", ".mat")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recording, and what its source says of it.

    Attributes:
        name: what it is called in its folder.
        record: the twelve standard leads, mV.
        said: statements or a caption of the source; "" where there are none.
    """

    name: str
    record: ECGRecord
    said: str = ""


class Folder(ABC):
    """Recordings by name.

    Attributes:
        names: of all, in their source's order.
    """

    names: Sequence[str]

    @abstractmethod
    def read(self, name: str) -> Chosen:
        """One recording.

        Raises:
            ValueError: there is none of that name, or it is damaged.
            OSError: it cannot be read.
            ModuleNotFoundError: the package that reads its format is not installed.
        """

    def find(self, text: str, limit: int) -> list[str]:
        """The first ``limit`` names that hold every word of the text, in any case."""
        words = text.casefold().split()
        found: list[str] = []
        for name in self.names:
            if all(word in name.casefold() for word in words):
                found.append(name)
                if len(found) == limit:
                    break
        return found


def open_folder(path: Path) -> Folder:
    """The recordings of a folder.

    Args:
        path: shards (with ``index.json``); MIMIC-IV-ECG, PTB-XL or LUDB; or any tree of WFDB
            records and files of `FILE_SUFFIXES`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no recording, or what describes it is damaged.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if (path / "index.json").is_file():
        return _Shards(path)
    return _Files(path)


class _Shards(Folder):
    def __init__(self, path: Path) -> None:
        from esi_fast.data.shard_set import ShardSet

        self._shards = ShardSet([path], "all")
        self.names = self._shards.keys
        self._row = {name: row for row, name in enumerate(self.names)}

    def read(self, name: str) -> Chosen:
        row = _known(self._row, name)
        signal = self._shards.read_ecg([row])[0]
        record = read_ecg(_Stored(signal, self._shards.fs, self._shards.leads))
        said = self._shards.read_caption(row)
        if said is None:
            said = "; ".join(self._shards.read_meta(row)["statements"])
        return Chosen(name, replace(record, path=name), said)


class _Files(Folder):
    """A catalogue's recordings, and loose files where the folder is no database."""

    def __init__(self, path: Path) -> None:
        self._path_of: dict[str, tuple[str, str]] = {}
        has_tables = is_database(path)
        self._adc_units_per_mv = None
        if has_tables or next(path.rglob("*.hea"), None) is not None:
            catalogue = open_catalogue(path)
            self._adc_units_per_mv = catalogue.adc_units_per_mv
            for entry in catalogue:
                if not entry.error:
                    said = "; ".join(entry.statements)
                    self._path_of[entry.key] = (str(entry.path), said)
        if not has_tables:  # else its csv files are no recordings
            for file in sorted(path.rglob("*")):
                if file.suffix.lower() in FILE_SUFFIXES and file.is_file():
                    self._path_of[str(file.relative_to(path))] = (str(file), "")
        if not self._path_of:
            raise ValueError(
                f"{path} holds no recording: neither shards, nor WFDB headers, nor "
                f"{', '.join(FILE_SUFFIXES)}"
            )
        self.names = list(self._path_of)

    def read(self, name: str) -> Chosen:
        path, said = _known(self._path_of, name)
        if self._adc_units_per_mv is None:
            return Chosen(name, read_ecg(path), said)
        # A database whose headers hold no calibration: read with the gain that it is known by.
        batch = read_records([path], required_leads=(), adc_units_per_mv=self._adc_units_per_mv)
        if batch.errors[0]:
            raise ValueError(batch.errors[0])
        record = read_ecg(_Stored(batch.signal[0], batch.fs))
        return Chosen(name, replace(record, path=path), said)


@dataclass(frozen=True)
class _Stored:
    """Signals in memory, as `read_ecg` takes them."""

    signal: object
    fs: float
    leads: tuple[str, ...] | None = None


def read_uploaded(paths: Sequence[str | Path], fs: float | None, unit: str | None) -> Chosen:
    """The one recording that was uploaded.

    Args:
        paths: a single file of `FILE_SUFFIXES`, or a WFDB header with the data files it names,
            wherever each of them lies.
        fs: rate in Hz, of a file that does not say it.
        unit: ``"mV"`` or ``"uV"``, of a file that does not say it.

    Raises:
        ValueError: no file, more than one recording, or one that cannot be understood.
        OSError: a file cannot be read, or one that the header names is absent.
        ModuleNotFoundError: the package that reads the format is not installed.
    """
    files = [Path(path) for path in paths]
    headers = [file for file in files if file.suffix.lower() == ".hea"]
    if not files:
        raise ValueError("nothing was uploaded")
    if not headers and files[0].suffix.lower() in _WFDB_DATA:
        raise ValueError(f"{files[0].name} needs its WFDB header: upload its .hea file with it")
    if len(headers) > 1 or (not headers and len(files) > 1):
        raise ValueError(f"{len(files)} files are more than one recording: upload one at a time")
    with tempfile.TemporaryDirectory() as together:
        for file in files:
            shutil.copyfile(file, Path(together) / file.name)
        name = (headers or files)[0].name
        try:
            record = read_ecg(Path(together) / name, fs=fs, unit=unit)
        except (ValueError, OSError) as error:
            # The folder says nothing to who uploaded the file.
            raise type(error)(str(error).replace(f"{together}/", "")) from None
    stem = name.removesuffix(".hea")
    return Chosen(stem, replace(record, path=stem))


def _known(table: Mapping[str, _Value], name: str) -> _Value:
    if name not in table:
        raise ValueError(f"there is no recording {name!r} in this folder")
    return table[name]
