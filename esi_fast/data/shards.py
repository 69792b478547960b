"""Builds shards from recordings: one pass, split by patient, resumable to the byte.

What goes into a shard is a pure function of the catalogue and the settings (`plan`), never of
workers, memory or interruptions. Processes write shards under temporary names (`workers`); this one
gives them their place, in the order of the plan, and notes it in a journal. index.json is written
last, so a folder without it is unfinished.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.journal import Journal, compare_settings, is_whole, remove_journal
from esi_fast.data.plan import PlannedShard, plan_shards
from esi_fast.data.samples import SampleMaker, compile_measuring
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_index import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_FILE,
    MISSING,
    SPLITS,
    ShardEntry,
    read_shard_folder,
)
from esi_fast.data.shard_job import RECORD_COLUMNS, REJECTED_COLUMNS, ShardRecord, WrittenShard
from esi_fast.data.workers import Workers
from esi_fast.signal.catalogue import Catalogue

_KIND, _REASON = map(REJECTED_COLUMNS.index, ("kind", "reason"))


@dataclass(frozen=True, slots=True)
class Part:
    """One of several builds that share the work: it writes every ``of``-th shard of the plan.

    Attributes:
        number: which one, from 1.
        of: how many there are.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        """Raises ValueError if there is no such part."""
        if not 1 <= self.number <= self.of:
            raise ValueError(
                f"part is {self.number}/{self.of}: there must be 1 part or more, and it one of them"
            )

    def has(self, planned: PlannedShard) -> bool:
        """Whether a shard is this part's."""
        return planned.sequence % self.of == self.number - 1


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a finished build holds.

    Attributes:
        records: written records of each split.
        shards: number of tar files.
        rejected: number of records not written, by kind: one of the reader's (``missing``,
            ``truncated``, ``checksum``...), or ``row`` (of the catalogue's csv files),
            ``segment`` (of another record), ``key``,
            ``duplicate``, ``excluded``, ``length``, ``empty``, ``description``.
        quality: number of written records with each of
            :class:`~esi_fast.signal.quality.QualityFlags`, with ``kept``, and of those whose reader
            had something to say (``read through wfdb``).
        excluded: how many of the excluded patients have records here.
        bytes: size of all tars.
        captions: whether captions are baked in.
        resumed: shards that an earlier run had finished.
        seconds: wall time of this run.
    """

    records: dict[str, int]
    shards: int
    rejected: dict[str, int]
    quality: dict[str, int]
    excluded: int
    bytes: int
    captions: bool
    resumed: int
    seconds: float


def write_shards(
    catalogue: Catalogue,
    out: Path,
    settings: BuildSettings,
    *,
    captions: CaptionDictionary | None = None,
    excluded: Collection[str] = frozenset(),
    part: Part | None = None,
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
        settings: how samples are made, and how they are split.
        captions: dictionary from which captions are composed and baked in; None writes none.
        excluded: patients (``subject_id``) whose records are rejected unread.
        part: write this part of the shards only; `esi_fast.data.merge` joins the parts.
        workers: processes that write shards; 0 is one a core.
        resume: continue an interrupted build of the same records and settings.
        progress: called with the number of records just done, written or not.

    Raises:
        ValueError: a setting is out of range, the catalogue is empty, every record was rejected, or
            the catalogue has changed since the build began.
        FileExistsError: ``out`` is not empty, or (``resume``) is no build of these settings.
        FileNotFoundError: the recordings have vanished, or none of them was ever there.
        OSError: reading or writing failed, or a worker was killed; finished shards stay valid and
            ``resume`` goes on.
    """
    started = time.monotonic()
    if workers < 0:
        raise ValueError(f"workers is {workers}, it must be 0 (all cores) or more")
    described = _described(catalogue, settings, captions, excluded, part)
    if resume and (out / INDEX_FILE).is_file():
        folder = read_shard_folder(out)
        compare_settings(out, folder["settings"] | {"part": _part_of(folder)}, described)
        _require_finished(out, folder, plan_shards(catalogue, settings, excluded))
        remove_journal(out)
        return _summary(out, folder, len(folder["shards"]), started)
    maker = SampleMaker.of(catalogue, settings, captions)
    with Journal(out, described, (RECORD_COLUMNS, REJECTED_COLUMNS), resume=resume) as journal:
        kept = len(journal.shards)
        witnesses = (one["witness"] for one in reversed(journal.shards))
        maker.witness = next(filter(None, witnesses), "")
        plan = _Counted(plan_shards(catalogue, settings, excluded))
        ours = (shard for shard in plan if part is None or part.has(shard))
        num_workers = workers or len(os.sched_getaffinity(0))
        if settings.measure and num_workers > 1:
            compile_measuring()
        with Workers(maker, num_workers, progress) as pool:
            _write(journal, maker, pool, ours, progress)
        if plan.num_records == 0:
            raise ValueError(f"no records in {catalogue.root}")
        shards = journal.shards
        folder = _folder(shards, described, settings, catalogue.patients_known)
        folder["plan"] = plan.digest()
        if not folder["shards"] and part is None:
            journal.give_up()
            raise ValueError(
                f"all {plan.num_records} records of {catalogue.root} were rejected, "
                f"see {out / 'rejected.csv'}"
            )
        if part is not None:
            folder["part"] = _part_entry(part, plan.num_shards, shards)
        journal.finish(folder)
    return _summary(out, folder, kept, started)


class _Counted:
    """A plan, counted and summed up as it goes by."""

    def __init__(self, plan: Iterable[PlannedShard]) -> None:
        self._plan = plan
        self.num_shards = 0
        self.num_records = 0
        self._sha = hashlib.sha256()

    def __iter__(self) -> Iterator[PlannedShard]:
        for shard in self._plan:
            self.num_shards += 1
            self.num_records += len(shard.records)
            self._sha.update(f"{shard.name} {shard.digest()}\n".encode())
            yield shard

    def digest(self) -> str:
        """Identity of all records of the catalogue and of their shards."""
        return self._sha.hexdigest()


def _require_finished(out: Path, folder: dict[str, Any], plan: Iterator[PlannedShard]) -> None:
    """Make sure that a finished folder is whole, and still what its catalogue asks for."""
    counted = _Counted(plan)
    for _ in counted:
        pass
    if counted.digest() != folder["plan"]:
        raise ValueError(
            f"the catalogue has changed since {out} was built: build into another folder"
        )
    for shard in folder["shards"]:
        if not is_whole(out, shard):
            raise ValueError(
                f"{out / shard['name']} or its index is not as it was built: run tools/shard "
                f"verify {out}"
            )


def _write(
    journal: Journal,
    maker: SampleMaker,
    pool: Workers,
    plan: Iterable[PlannedShard],
    progress: Callable[[int], object],
) -> None:
    """Have the shards of a plan written, and commit them in its order."""
    kept, number = len(journal.shards), -1
    pending: deque[Future[WrittenShard]] = deque()
    held: deque[WrittenShard] = deque()

    def commit() -> None:
        written = pending.popleft().result()
        held.append(written)
        maker.witness = written.record["witness"] or maker.witness
        if any(row[_KIND] == "missing" for one in held for row in one.rejected_rows):
            if not maker.witness:
                return  # until a record was read, they may be missing because the source is
            maker.require_source()
        while held:
            journal.commit(held.popleft())

    for number, planned in enumerate(plan):
        if number < kept:
            journal.check(number, planned)
            progress(len(planned.records))
            continue
        pending.append(pool.submit(journal.job(planned)))
        # As many again wait, so that no worker does; more would only take memory.
        while pending and (pending[0].done() or len(pending) >= 2 * pool.num_workers):
            commit()
    if number + 1 < kept:
        raise ValueError(
            f"the catalogue has changed: {kept} shards were written, and now it fills "
            f"{number + 1}: build into another folder"
        )
    while pending:
        commit()
    # A record may lack its data alone: where its header is, the source is.
    records = (planned for one in held for planned in one.job.planned.records)
    if held and not any(os.path.lexists(f"{planned.entry.path}.hea") for planned in records):
        missing = [row for one in held for row in one.rejected_rows if row[_KIND] == "missing"]
        raise FileNotFoundError(
            "the recordings have vanished, or were never there: none could be read under "
            f"{maker.root}, and {len(missing)} are missing, such as {missing[0][_REASON]}"
        )
    while held:
        journal.commit(held.popleft())


def _described(
    catalogue: Catalogue,
    settings: BuildSettings,
    captions: CaptionDictionary | None,
    excluded: Collection[str],
    part: Part | None,
) -> dict[str, Any]:
    """All that decides on the bytes of a build, as index.json and the journal hold it."""
    return {
        "source": catalogue.source,
        "adc_units_per_mv": catalogue.adc_units_per_mv,
        **settings.as_json(),
        "captions": None if captions is None else _captions_digest(captions),
        "excluded": _digest(sorted(excluded)) if excluded else None,
        "part": None if part is None else [part.number, part.of],
    }


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _captions_digest(captions: CaptionDictionary) -> str:
    return _digest(
        sorted((one.statement, one.text, one.paraphrases, one.sources) for one in captions)
    )


def _part_of(folder: dict[str, Any]) -> list[int] | None:
    part = folder.get("part")
    return None if part is None else [part["number"], part["of"]]


def _part_entry(part: Part, num_shards: int, shards: list[ShardRecord]) -> dict[str, Any]:
    """What merging needs to know of a part: its shards' places among all of the plan."""
    listed = [[one["sequence"], one["name"], one["records"], one["rejected"]] for one in shards]
    return {"number": part.number, "of": part.of, "num_shards": num_shards, "shards": listed}


def _folder(
    shards: list[ShardRecord],
    described: dict[str, Any],
    settings: BuildSettings,
    patients_known: bool,
) -> dict[str, Any]:
    """What index.json says, less the csv files' checksums; a shard without records has no tar.

    ``patients_known`` false: each record counts as its own patient, so the split is by record.
    """
    listed = [shard for shard in shards if shard["records"]]
    listed.sort(key=lambda shard: (SPLITS.index(shard["split"]), shard["name"]))
    quality: Counter[str] = Counter()
    for shard in listed:
        quality.update(shard["quality"])
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "settings": {name: value for name, value in described.items() if name != "part"},
        "leads": list(settings.leads),
        "fs": float(settings.fs),
        "num_samples": settings.num_samples,
        "unit": "uV",
        "missing": MISSING,
        "patients_known": patients_known,
        "counts": {
            split: sum(shard["records"] for shard in listed if shard["split"] == split)
            for split in SPLITS
        }
        | {"rejected": sum(shard["rejected"] for shard in shards)},
        "quality": dict(sorted(quality.items())),
        "shards": [
            {name: value for name, value in shard.items() if name in ShardEntry.__annotations__}
            for shard in listed
        ],
    }


def _summary(out: Path, folder: dict[str, Any], resumed: int, started: float) -> ShardSummary:
    kinds: Counter[str] = Counter()
    patients: set[str] = set()
    with (out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kinds[row["kind"]] += 1
            if row["kind"] == "excluded":
                patients.add(row["subject_id"])
    return ShardSummary(
        records={split: folder["counts"][split] for split in SPLITS},
        shards=len(folder["shards"]),
        rejected=dict(kinds.most_common()),
        quality=folder["quality"],
        excluded=len(patients),
        bytes=sum(shard["bytes"] for shard in folder["shards"]),
        captions=folder["settings"]["captions"] is not None,
        resumed=resumed,
        seconds=time.monotonic() - started,
    )
