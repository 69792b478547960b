"""What a build would give and take: counted from the catalogue, measured on a few records."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.plan import Planned, PlannedShard, plan_shards
from esi_fast.data.samples import SampleMaker
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_job import ShardJob, write_shard
from esi_fast.data.shards import Part
from esi_fast.signal.catalogue import Catalogue

TRIAL_RECORDS = 512


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build is expected to do.

    Attributes:
        records: of each split that are to be read; some may turn out unreadable.
        rejected: records that are rejected unread, by kind.
        shards: number of tar files.
        bytes: size of all tars, by the trial records.
        seconds: wall time on the given number of workers, by the trial records on one.
        trial: rejections among the trial records, by kind.
        num_trial: how many trial records there were.
    """

    records: dict[str, int]
    rejected: dict[str, int]
    shards: int
    bytes: int
    seconds: float
    trial: dict[str, int]
    num_trial: int


def estimate_build(
    catalogue: Catalogue,
    settings: BuildSettings,
    *,
    captions: CaptionDictionary | None = None,
    excluded: Collection[str] = frozenset(),
    part: Part | None = None,
    workers: int = 1,
    progress: Callable[[int], object] = lambda num_records: None,
) -> Estimate:
    """Plan a build and try it on its first records, in a temporary folder.

    Args:
        catalogue, settings, captions, excluded, part: as for `esi_fast.data.shards.write_shards`.
        workers: processes that the build would have.
        progress: called with the number of records just planned.

    Raises:
        ValueError: the catalogue is empty.
    """
    records: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    num_shards = 0
    trial: list[Planned] = []
    for shard in plan_shards(catalogue, settings, excluded):
        progress(len(shard.records))
        if part is not None and not part.has(shard):
            continue
        readable = [one for one in shard.records if one.problem is None]
        num_shards += bool(readable)
        records[shard.split] += len(readable)
        rejected.update(one.problem.kind for one in shard.records if one.problem)
        trial += readable[: TRIAL_RECORDS - len(trial)]
    if not records.total() + rejected.total():
        raise ValueError(f"no records in {catalogue.root}")
    maker = SampleMaker.of(catalogue, settings, captions)
    failures: Counter[str] = Counter()
    num_bytes = seconds = 0.0
    if trial:
        with tempfile.TemporaryDirectory(prefix="esi-fast-") as folder:
            job = ShardJob(
                PlannedShard(0, "trial", "train", trial),
                Path(folder) / "trial.tar",
                Path(folder) / "trial.idx.npy",
            )
            maker.samples(trial[:1])  # what is loaded once takes its time here
            started = time.monotonic()
            written = write_shard(maker, job, lambda num_records: None)
            share = records.total() / len(trial)
            at_once = min(workers, max(1, num_shards), len(os.sched_getaffinity(0)))
            seconds = (time.monotonic() - started) * share / at_once
        num_bytes = written.record["bytes"] * share
        failures.update(str(row[4]) for row in written.rejected_rows)
    return Estimate(
        records=dict(records),
        rejected=dict(rejected.most_common()),
        shards=num_shards,
        bytes=round(num_bytes),
        seconds=seconds,
        trial=dict(failures.most_common()),
        num_trial=len(trial),
    )
