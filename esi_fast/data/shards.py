"""Builds shards from recordings: one pass, split by patient, resumable to the byte.

The catalogue is streamed once. Each record goes to the split that its patient's hash names; a shard
is a run of ``samples_per_shard`` consecutive records of a split, so its content depends on those
records and the settings alone, never on workers, memory or interruptions. A journal lists the
shards that are complete; index.json is written last, so a folder without it is unfinished.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.journal import (
    Journal,
    Rows,
    ShardRecord,
    compare_settings,
    remove_journal,
)
from esi_fast.data.samples import Planned, Rejection, SampleMaker
from esi_fast.data.shard_index import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_FILE,
    MAX_KEY_LENGTH,
    MISSING,
    SPLITS,
    ShardEntry,
    ShardWriter,
    read_shard_folder,
)
from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.catalogue import Catalogue

# Records read and resampled at once: bounds the memory (256 x 12 x 5000 int16 = 31 MB).
BATCH_RECORDS = 256
RECORD_COLUMNS = ("key", "subject_id", "split", "shard", "position", "concept_key", "quality")
REJECTED_COLUMNS = ("key", "subject_id", "study_id", "split", "kind", "reason")
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a finished build holds.

    Attributes:
        records: written records of each split.
        shards: number of tar files.
        rejected: number of records not written, by kind: one of the reader's (``missing``,
            ``truncated``, ``checksum``...), or ``row`` (of the catalogue's csv files), ``key``,
            ``duplicate``, ``empty``, ``description``.
        quality: number of written records with each of
            :class:`~esi_fast.signal.quality.QualityFlags`, and of those whose reader had
            something to say (``read through wfdb``).
        bytes: size of all tars.
        captions: whether captions are baked in.
        resumed: shards that an earlier run had finished.
        seconds: wall time of this run.
    """

    records: dict[str, int]
    shards: int
    rejected: dict[str, int]
    quality: dict[str, int]
    bytes: int
    captions: bool
    resumed: int
    seconds: float


def split_of(subject_id: str, val_fraction: float, test_fraction: float) -> str:
    """The split of a patient: a pure function of the id, uniform over patients.

    Test patients are taken from the low end of the hash and validation patients from the high one,
    so that changing one fraction moves nobody in or out of the other.
    """
    digest = hashlib.sha256(subject_id.encode("utf-8")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "val" if position >= 1 - val_fraction else "train"


def write_shards(
    catalogue: Catalogue,
    out: Path,
    *,
    fs: float = 500.0,
    duration: float = 10.0,
    samples_per_shard: int = 2048,
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    captions: CaptionDictionary | None = None,
    measure: bool = True,
    workers: int = 0,
    resume: bool = False,
    progress: Callable[[int], object] = lambda num_records: None,
) -> ShardSummary:
    """Write every readable record of a catalogue into WebDataset shards with an index.

    Same records and settings give the same bytes, whatever ``workers`` and whether or not the build
    was killed and resumed. A record that cannot be read or described, and a damaged row of the
    catalogue's csv files, is listed in rejected.csv.

    Args:
        catalogue: the records, from `esi_fast.signal.catalogues.open_catalogue`.
        out: folder to make; must be absent or empty unless ``resume``.
        fs: sampling rate of the shards in Hz.
        duration: seconds of each record; longer ones are cropped, shorter ones padded as missing.
        samples_per_shard: records a tar.
        val_fraction: share of patients in the validation split.
        test_fraction: share of patients in the test split.
        captions: dictionary from which captions are composed and baked in; None writes none.
        measure: fill in from the signal the measurements that the catalogue lacks.
        workers: reader threads; 0 takes all cores.
        resume: continue an interrupted build of the same records and settings.
        progress: called with the number of records just done.

    Raises:
        ValueError: a setting is out of range, the catalogue is empty, every record was rejected, or
            the catalogue has changed since the build began.
        FileExistsError: ``out`` is not empty, or (``resume``) is no build of these settings.
        FileNotFoundError: the folder of the records has vanished.
        OSError: writing failed; finished shards stay valid and ``resume`` goes on.
    """
    started = time.monotonic()
    check_settings(
        fs=fs,
        duration=duration,
        samples_per_shard=samples_per_shard,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        workers=workers,
    )
    settings = {
        "source": catalogue.source,
        "adc_units_per_mv": catalogue.adc_units_per_mv,
        "fs": float(fs),
        "duration": float(duration),
        "samples_per_shard": samples_per_shard,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "measure": measure,
        "captions": None if captions is None else _captions_digest(captions),
    }
    if resume and (out / INDEX_FILE).is_file():
        folder = read_shard_folder(out)
        compare_settings(out, folder["settings"], settings)
        remove_journal(out)
        return _summary(out, folder, len(folder["shards"]), started)
    maker = SampleMaker(catalogue.root, settings, captions, workers)
    with Journal(out, settings, (RECORD_COLUMNS, REJECTED_COLUMNS), resume=resume) as journal:
        kept = len(journal.shards)
        num_planned = 0
        for number, (name, split, planned) in enumerate(_plan(catalogue, settings)):
            num_planned += len(planned)
            entries = _digest(planned)
            if number < kept:
                journal.check(number, name, entries)
                progress(len(planned))
                continue
            journal.commit(*_write_shard(journal, maker, name, split, planned, entries, progress))
        if num_planned == 0:
            raise ValueError(f"no records in {catalogue.root}")
        folder = _folder(journal.shards, settings, maker.num_samples, catalogue.patients_known)
        if not folder["shards"]:
            journal.give_up()
            raise ValueError(
                f"all {num_planned} records of {catalogue.root} were rejected, "
                f"see {out / 'rejected.csv'}"
            )
        journal.finish(folder)
    return _summary(out, folder, kept, started)


def check_settings(
    *,
    fs: float,
    duration: float,
    samples_per_shard: int,
    val_fraction: float,
    test_fraction: float,
    workers: int,
) -> None:
    """Refuse settings of `write_shards` that make no sense.

    Raises:
        ValueError: one is out of range; it is named.
    """
    for name, value in (
        ("fs", fs),
        ("duration", duration),
        ("samples_per_shard", samples_per_shard),
    ):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}, it must be positive")
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} must be >= 0 and leave "
            "patients for training"
        )
    if workers < 0:
        raise ValueError(f"workers is {workers}, it must be 0 (all cores) or more")


def _captions_digest(captions: CaptionDictionary) -> str:
    said = sorted((one.statement, one.text, one.sources) for one in captions)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _plan(
    catalogue: Catalogue, settings: dict[str, Any]
) -> Iterator[tuple[str, str, list[Planned]]]:
    """Shards in the order in which they are written: name, split, records."""
    pending: dict[str, list[Planned]] = {split: [] for split in SPLITS}
    numbers: Counter[str] = Counter()
    # 64-bit hashes, as 800,000 keys of a few words each would take several times their memory.
    seen: set[int] = set()

    def shard(split: str) -> tuple[str, str, list[Planned]]:
        planned, pending[split] = pending[split], []
        numbers[split] += 1
        return f"{split}-{numbers[split] - 1:06d}", split, planned

    for entry in catalogue:
        problem = None
        key_hash = int.from_bytes(hashlib.blake2b(entry.key.encode(), digest_size=8).digest())
        if entry.error:
            problem = Rejection("row", entry.error)
        elif not _KEY.fullmatch(entry.key) or len(entry.key) > MAX_KEY_LENGTH:
            problem = Rejection("key", f"the key is not 1 to {MAX_KEY_LENGTH} of A-Z a-z 0-9 _ -")
        elif key_hash in seen:
            problem = Rejection("duplicate", "the key occurs twice in the catalogue")
        if not entry.error:  # else a sound row may still bring the record
            seen.add(key_hash)
        split = split_of(entry.subject_id, settings["val_fraction"], settings["test_fraction"])
        pending[split].append(Planned(entry, problem))
        if len(pending[split]) == settings["samples_per_shard"]:
            yield shard(split)
    for split in SPLITS:
        if pending[split]:
            yield shard(split)


def _digest(planned: list[Planned]) -> str:
    """Identity of a shard's records, without their path: a moved tree is still the same tree."""
    sha = hashlib.sha256()
    for one in planned:
        entry = one.entry
        fields = (entry.key, entry.subject_id, entry.study_id, entry.age, entry.sex, entry.error)
        sha.update(repr((fields, entry.statements, sorted(entry.measurements.items()))).encode())
    return sha.hexdigest()


def _write_shard(
    journal: Journal,
    maker: SampleMaker,
    name: str,
    split: str,
    planned: list[Planned],
    entries: str,
    progress: Callable[[int], object],
) -> tuple[ShardRecord, Rows, Rows]:
    """Write one shard under its temporary names; returns its journal record and its csv rows."""
    record_rows: list[tuple[str | int, ...]] = []
    rejected_rows: list[tuple[str | int, ...]] = []
    flags: Counter[str] = Counter()
    with ShardWriter(*journal.temporary(name)) as writer:
        for start in range(0, len(planned), BATCH_RECORDS):
            batch = planned[start : start + BATCH_RECORDS]
            for entry, sample in maker.samples(batch):
                if isinstance(sample, Rejection):
                    ids = (entry.key, entry.subject_id, entry.study_id)
                    rejected_rows.append((*ids, split, sample.kind, sample.reason))
                    continue
                meta = sample.meta
                text = json.dumps(meta, sort_keys=True, ensure_ascii=False, allow_nan=False)
                caption = None if sample.caption is None else sample.caption.encode()
                writer.add(sample.key, sample.ecg, text.encode(), caption, meta["concept_key"])
                flags.update(meta["quality"].keys())
                if "status" in meta:
                    flags[meta["status"].partition(":")[0]] += 1
                position = len(record_rows)
                row = (sample.key, entry.subject_id, split, f"{name}.tar", position)
                record_rows.append((*row, meta["concept_key"], ";".join(sorted(meta["quality"]))))
            progress(len(batch))
        num_bytes, sha256, index_sha256 = writer.finish() if record_rows else (0, "", "")
    record: ShardRecord = {
        "name": f"{name}.tar",
        "split": split,
        "records": len(record_rows),
        "bytes": num_bytes,
        "sha256": sha256,
        "index": f"{name}.idx.npy",
        "index_sha256": index_sha256,
        "csv_bytes": [],
        "entries": entries,
        "rejected": len(rejected_rows),
        "quality": dict(sorted(flags.items())),
    }
    return record, record_rows, rejected_rows


def _folder(
    shards: list[ShardRecord], settings: dict[str, Any], num_samples: int, patients_known: bool
) -> dict[str, Any]:
    """What index.json says, less the csv files' checksums; a shard without records has no tar.

    ``patients_known`` false: each record counts as its own patient, so the split is by record.
    """
    listed = [shard for shard in shards if shard["records"]]
    listed.sort(key=lambda shard: (SPLITS.index(shard["split"]), shard["name"]))
    counts = {
        split: sum(shard["records"] for shard in listed if shard["split"] == split)
        for split in SPLITS
    }
    quality: Counter[str] = Counter()
    for shard in listed:
        quality.update(shard["quality"])
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "settings": settings,
        "leads": list(STANDARD_LEADS),
        "fs": settings["fs"],
        "num_samples": num_samples,
        "unit": "uV",
        "missing": MISSING,
        "patients_known": patients_known,
        "counts": counts | {"rejected": sum(shard["rejected"] for shard in shards)},
        "quality": dict(sorted(quality.items())),
        "shards": [
            {name: value for name, value in shard.items() if name in ShardEntry.__annotations__}
            for shard in listed
        ],
    }


def _summary(out: Path, folder: dict[str, Any], resumed: int, started: float) -> ShardSummary:
    with (out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        kinds = Counter(row["kind"] for row in csv.DictReader(file))
    return ShardSummary(
        records={split: folder["counts"][split] for split in SPLITS},
        shards=len(folder["shards"]),
        rejected=dict(kinds.most_common()),
        quality=folder["quality"],
        bytes=sum(shard["bytes"] for shard in folder["shards"]),
        captions=folder["settings"]["captions"] is not None,
        resumed=resumed,
        seconds=time.monotonic() - started,
    )
