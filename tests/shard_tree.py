"""Small trees of random format-16 records, for the tests of shards, loader and tools/shard."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shards import Part, ShardSummary, write_shards
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.catalogue import CatalogueEntry

FS = 500.0
DURATION = 2.0
NUM_SAMPLES = 1000
ADC_PER_MV = 200
# aVF before aVL, as MIMIC-IV-ECG stores them.
FILE_ORDER = (*STANDARD_LEADS[:4], "aVF", "aVL", *STANDARD_LEADS[6:])
REPORTS = (
    ("Sinus rhythm", "Normal ECG"),
    ("Atrial fibrillation", "Left axis deviation"),
    ("Sinus rhythm", "Left bundle branch block"),
)
SETTINGS = {
    "fs": FS,
    "duration": DURATION,
    "samples_per_shard": 5,
    "val_fraction": 0.25,
    "test_fraction": 0.25,
    "measure": False,
}


@dataclass
class Tree:
    """A catalogue of given entries."""

    root: Path
    entries: list[CatalogueEntry]
    source: str = "wfdb"
    patients_known: bool = True
    adc_units_per_mv: float | None = None
    lists_files: bool = False

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[CatalogueEntry]:
        return iter(self.entries)


def write_record(stem: Path, digital: np.ndarray) -> None:
    """Write (12, T) ADC units, rows in the standard order, as a WFDB record of 200 units a mV."""
    ordered = digital[[STANDARD_LEADS.index(lead) for lead in FILE_ORDER]].astype("<i2")
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".dat").write_bytes(np.ascontiguousarray(ordered.T).tobytes())
    lines = [f"{stem.name} 12 {FS:g} {digital.shape[1]}"]
    for lead, row in zip(FILE_ORDER, ordered, strict=True):
        checksum = np.int64(row.astype(np.int64).sum()).astype(np.int16)
        lines.append(f"{stem.name}.dat 16 {ADC_PER_MV}(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    stem.with_suffix(".hea").write_text("\n".join(lines) + "\n")


def entry_of(stem: Path, number: int) -> CatalogueEntry:
    """The catalogue's entry of record ``number``: two records a patient."""
    return CatalogueEntry(
        key=f"k{number:03d}",
        path=stem,
        subject_id=f"p{number // 2}",
        study_id=f"s{number}",
        ecg_time=None,
        age=40.0 + number,
        sex=("male", "female", None)[number % 3],
        statements=REPORTS[number % len(REPORTS)],
        measurements={"heart_rate": 60.0 + number},
        fold=None,
    )


def signal_of(number: int) -> np.ndarray:
    """The (12, T) ADC units of record ``number``, within +-5 mV."""
    random = np.random.default_rng(number)
    return random.integers(-1000, 1001, (12, NUM_SAMPLES), dtype=np.int16)


def make_tree(root: Path, num_records: int = 24) -> Tree:
    """Write ``num_records`` random records below ``root``."""
    entries = []
    for number in range(num_records):
        stem = root / f"r{number:03d}" / f"rec{number}"
        write_record(stem, signal_of(number))
        entries.append(entry_of(stem, number))
    return Tree(root, entries)


def build(
    catalogue: Any,
    out: Path,
    *,
    workers: int = 1,
    captions: CaptionDictionary | None = None,
    resume: bool = False,
    excluded: Collection[str] = frozenset(),
    part: Part | None = None,
    **settings: Any,
) -> ShardSummary:
    """`write_shards` on one worker unless told otherwise, with `BuildSettings` by name."""
    return write_shards(
        catalogue,
        out,
        BuildSettings(**settings),
        workers=workers,
        captions=captions,
        resume=resume,
        excluded=excluded,
        part=part,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def samples_in(folder: Path) -> dict[str, dict[str, bytes]]:
    """All samples of a folder as Python's own tarfile reads them."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                assert (member.mode, member.uid, member.gid, member.mtime) == (0o644, 0, 0, 0)
                key, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                found.setdefault(key, {})[suffix] = content.read()
    return found
