"""One shard, from its planned records to a tar under a temporary name: the work of a process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from esi_fast.data.plan import PlannedShard
from esi_fast.data.samples import SampleBatch, SampleMaker
from esi_fast.data.shard_index import ShardEntry
from esi_fast.data.shard_writer import ShardWriter
from esi_fast.leads import NUM_LEADS

# Records read and written together: few enough for the cache, enough for reads to overlap.
BATCH_RECORDS = 64
BATCH_BYTES = 16 << 20
RECORD_COLUMNS = ("key", "subject_id", "split", "shard", "position", "concept_key", "quality")
REJECTED_COLUMNS = ("key", "subject_id", "study_id", "split", "kind", "reason")

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False).encode

Rows = Sequence[Sequence[str | int]]


class ShardRecord(ShardEntry):
    """A shard as the journal lists it; one whose records were all rejected has no tar.

    ``sequence`` is its place in the plan and ``entries`` identifies the catalogue's records;
    ``csv_bytes`` are the sizes of the csv files once the shard's rows are in them. ``witness`` is
    that of `SampleMaker`.
    """

    sequence: int
    entries: str
    rejected: int
    quality: dict[str, int]
    csv_bytes: list[int]
    witness: str


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard to write, and where: ``tar`` and ``index`` are temporary names."""

    planned: PlannedShard
    tar: Path
    index: Path


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard on disk under its temporary names, with its rows of the csv files."""

    job: ShardJob
    record: ShardRecord
    record_rows: Rows
    rejected_rows: Rows


def write_shard(
    maker: SampleMaker, job: ShardJob, progress: Callable[[int], object]
) -> WrittenShard:
    """Write one shard.

    Args:
        maker: reads the records.
        job: which records, and where to.
        progress: called with the number of records just done.

    Raises:
        OSError: reading or writing failed, or the recordings have vanished; nothing is left.
    """
    planned = job.planned
    record_rows: list[tuple[str | int, ...]] = []
    rejected_rows: list[tuple[str | int, ...]] = []
    flags: Counter[str] = Counter()
    record_bytes = 2 * NUM_LEADS * maker.settings.num_samples
    at_once = max(1, min(BATCH_RECORDS, BATCH_BYTES // record_bytes))
    with ShardWriter(job.tar, job.index) as writer:
        for start in range(0, len(planned.records), at_once):
            part = planned.records[start : start + at_once]
            batch = maker.samples(part)
            _add(writer, batch)
            for entry, why in batch.rejected:
                ids = (entry.key, entry.subject_id, entry.study_id)
                rejected_rows.append((*ids, planned.split, why.kind, why.reason))
            for entry, meta in zip(batch.entries, batch.metas, strict=True):
                quality = sorted(meta["quality"])
                flags.update(quality)
                if "status" in meta:
                    flags[meta["status"].partition(":")[0]] += 1
                place = (planned.split, f"{planned.name}.tar", len(record_rows))
                said = (meta["concept_key"], ";".join(quality))
                record_rows.append((entry.key, entry.subject_id, *place, *said))
            progress(len(part))
        num_bytes, sha256, index_sha256 = writer.finish() if record_rows else (0, "", "")
    record: ShardRecord = {
        "name": f"{planned.name}.tar",
        "split": planned.split,
        "records": len(record_rows),
        "bytes": num_bytes,
        "sha256": sha256,
        "index": f"{planned.name}.idx.npy",
        "index_sha256": index_sha256,
        "sequence": planned.sequence,
        "entries": planned.digest(),
        "rejected": len(rejected_rows),
        "quality": dict(sorted(flags.items())),
        "csv_bytes": [],
        "witness": maker.witness,
    }
    return WrittenShard(job, record, record_rows, rejected_rows)


def _add(writer: ShardWriter, batch: SampleBatch) -> None:
    if not batch.entries:
        return
    writer.add(
        keys=[entry.key for entry in batch.entries],
        ecg=batch.ecg,
        metas=[_encode(meta).encode() for meta in batch.metas],
        captions=[None if one is None else one.encode() for one in batch.captions],
        concept_keys=[meta["concept_key"] for meta in batch.metas],
    )
