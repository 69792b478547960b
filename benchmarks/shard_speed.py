"""Building shards, beside what people write for it: wfdb, numpy and webdataset's TarWriter."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from benchmarks.comparison import Comparison, time_in_turn
from benchmarks.record_files import MIMIC_ORDER
from esi_fast import _core
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_index import npy_header
from esi_fast.data.shard_writer import ShardWriter
from esi_fast.data.shards import write_shards
from esi_fast.signal.catalogue import CatalogueEntry
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.simulate_tree import write_tree

PACKAGES = ("numpy", "wfdb", "webdataset")
QUALITY = "ours judges quality, verifies checksums and hashes; the rival does not"


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does.

    Attributes:
        num_records: of the tree at 500 Hz.
        num_repeats: of that tree for the rows of two workers.
        num_many: records of the large tree at 100 Hz; the small one has a tenth.
        num_rounds: timed rounds.
        num_worker_rounds: of the rows of two workers: others' work disturbs wall time most.
    """

    num_records: int
    num_repeats: int
    num_many: int
    num_rounds: int
    num_worker_rounds: int


FULL = Size(1000, 32, 50_000, 9, 5)
QUICK = Size(48, 2, 400, 2, 2)


def measure(
    folder: Path, size: Size, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Comparison]:
    """All rows, each timed after its results were found equal.

    Args:
        folder: where to write records and shards; on a disk, as users have it.
        size: how much to do.
        progress: called with the rows done and their number.

    Raises:
        ValueError: the rival's samples differ from ours.
    """
    tree = folder / "tree"
    write_tree(tree, size.num_records, seed=1)
    jobs = [
        partial(_builds, tree, folder, size),
        partial(_writers, folder, size),
        partial(_two_workers, tree, folder, size),
        partial(_many, folder, size),
    ]
    rows: list[Comparison] = []
    for done, job in enumerate(jobs):
        progress(done, len(jobs))
        rows += job()
    progress(len(jobs), len(jobs))
    return rows


def build(records: Path | _Repeated, out: Path, fs: float = 500.0, workers: int = 1) -> None:
    """Ours, without measuring; into a folder made anew."""
    shutil.rmtree(out, ignore_errors=True)
    catalogue: Any = open_catalogue(records) if isinstance(records, Path) else records
    write_shards(catalogue, out, BuildSettings(fs=fs, measure=False), workers=workers)


def build_by_hand(records: Path, out: Path) -> None:
    """What people write: each record through wfdb, leads put in order, into a TarWriter."""
    import webdataset

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with (
        (records / "record_list.csv").open(newline="") as file,
        webdataset.TarWriter(str(out / "shard.tar")) as writer,
    ):
        for row in csv.DictReader(file):
            record = wfdb.rdrecord(str(records / row["path"]), physical=False)
            stored = record.d_signal.T[MIMIC_ORDER]
            ecg = (stored * round(1000 / record.adc_gain[0])).astype(np.int16)  # 200 a mV: 5 uV
            ecg[stored == -32768] = -32768
            meta = {"subject_id": row["subject_id"], "study_id": row["study_id"], "fs": 500}
            writer.write({"__key__": row["study_id"], "ecg.npy": ecg, "json": meta})


def samples_in(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every signal of a folder of tars."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".ecg.npy"):
                    content = tar.extractfile(member)
                    assert content is not None
                    yield member.name.partition(".")[0], np.load(io.BytesIO(content.read()))


def compare(ours: Path, rival: Path) -> int:
    """The number of records, all equal.

    Raises:
        ValueError: one differs, or is in one folder only.
    """
    expected = dict(samples_in(rival))
    found = dict(samples_in(ours))
    if found.keys() != expected.keys():
        raise ValueError("the shards hold different records")
    for key, ecg in found.items():
        if not np.array_equal(ecg, expected[key]):
            raise ValueError(f"the samples of {key} differ")
    return len(found)


def _builds(tree: Path, folder: Path, size: Size) -> list[Comparison]:
    row = Comparison(
        "build, 500 Hz", "write_shards", "wfdb + numpy + TarWriter", bar=10, aim=20, note=QUALITY
    )
    build(tree, folder / "ours")
    build_by_hand(tree, folder / "rival")
    row.num_compared = compare(folder / "ours", folder / "rival")
    names = [str(number) for number in range(size.num_records)]
    time_in_turn(
        row,
        lambda _: build(tree, folder / "ours"),
        lambda _: build_by_hand(tree, folder / "rival"),
        [names],
        size.num_rounds,
    )
    return [row]


def _writers(folder: Path, size: Size) -> list[Comparison]:
    """The tar alone, from samples in memory, 120 KB each."""
    import webdataset

    random = np.random.default_rng(0)
    ecg = random.integers(-2000, 2000, (64, 12, 5000)).astype(np.int16)
    keys = [f"{40_000_000 + number}" for number in range(len(ecg))]
    meta = json.dumps({"study_id": "40000000", "findings": ["sinus_rhythm"] * 20}).encode()
    header = npy_header(12, 5000)
    many = max(1, size.num_records // len(ecg))

    def ours(_: Sequence[str]) -> None:
        with ShardWriter(folder / "w.tar", folder / "w.idx") as writer:
            for _ in range(many):
                writer.add(keys, ecg, [meta] * 64, [None] * 64, ["0" * 16] * 64)
            writer.finish()

    def core(_: Sequence[str]) -> None:
        (folder / "c.tar").unlink(missing_ok=True)
        with (folder / "c.tar").open("wb") as file:
            for _ in range(many):
                _core.append_samples(
                    file.fileno(), keys=[key.encode() for key in keys], ecg=ecg, npy_header=header,
                    jsons=[meta] * 64, captions=[None] * 64,
                )  # fmt: skip
            file.write(bytes(1024))
            os.fsync(file.fileno())

    def rival(_: Sequence[str]) -> None:
        (folder / "r.tar").unlink(missing_ok=True)
        with webdataset.TarWriter(str(folder / "r.tar")) as writer:
            for _ in range(many):
                for key, one in zip(keys, ecg, strict=True):
                    writer.write({"__key__": key, "ecg.npy": one, "json": meta})

    rows = []
    for name, write, target, note in (
        ("append_samples", core, "c.tar", "ours with a CRC-32C of each sample and fsync"),
        ("ShardWriter", ours, "w.tar", "the same with the tar's sha256 and an index"),
    ):
        row = Comparison("tar, 120 KB a sample", name, "TarWriter", note=note)
        if name == "append_samples":
            row.bar, row.aim = 3, 4.5
        write([])
        rival([])
        (folder / "one").mkdir(exist_ok=True)
        (folder / "other").mkdir(exist_ok=True)
        shutil.copy(folder / target, folder / "one" / "a.tar")
        shutil.copy(folder / "r.tar", folder / "other" / "a.tar")
        row.num_compared = compare(folder / "one", folder / "other")
        time_in_turn(row, write, rival, [keys * many], size.num_rounds)
        rows.append(row)
    return rows


class _Repeated:
    """A tree several times over, under keys of its own each time."""

    def __init__(self, root: Path, num_repeats: int) -> None:
        self._catalogue = open_catalogue(root)
        self._num_repeats = num_repeats
        self.root = root
        self.source = self._catalogue.source
        self.patients_known = True
        self.adc_units_per_mv = None
        self.lists_files = False

    def __len__(self) -> int:
        return self._num_repeats * len(self._catalogue)

    def __iter__(self) -> Iterator[CatalogueEntry]:
        for number in range(self._num_repeats):
            for entry in self._catalogue:
                yield replace(
                    entry,
                    key=f"{entry.key}-{number}",
                    subject_id=f"{entry.subject_id}-{number}",
                )


def _two_workers(tree: Path, folder: Path, size: Size) -> list[Comparison]:
    row = Comparison(
        "build, 500 Hz", "2 workers", "1 worker", clock="wall", bar=1.7, aim=1.95,
        note="starting the processes included",
    )  # fmt: skip
    if len(os.sched_getaffinity(0)) < 2:
        row.note = "not measured: one usable CPU"
        return [row]
    repeated = _Repeated(tree, size.num_repeats)
    names = [str(number) for number in range(len(repeated))]
    # Each into its own folder: what one removes is not the other's to wait for.
    one, two = folder / "one-worker", folder / "two-workers"
    build(repeated, one, workers=1)
    build(repeated, two, workers=2)
    for path in one.iterdir():
        if path.read_bytes() != (two / path.name).read_bytes():
            raise ValueError(f"{path.name} depends on the number of workers")
    row.num_compared = len(repeated)

    def clear() -> None:
        for out in (one, two):
            shutil.rmtree(out, ignore_errors=True)
        os.sync()  # neither writes while the other's pages go to the disk

    time_in_turn(
        row,
        lambda _: build(repeated, two, workers=2),
        lambda _: build(repeated, one, workers=1),
        [names],
        size.num_worker_rounds,
        before=clear,
    )
    clear()
    return [row]


def _many(folder: Path, size: Size) -> list[Comparison]:
    """Whether a record takes longer among many."""
    row = Comparison(
        "build, 100 Hz, time a record",
        f"among {size.num_many:,}",
        f"among {size.num_many // 10:,}",
        bar=round(1 / 1.15, 3),
        aim=round(1 / 1.05, 3),
        note="1 is no growth; the bar is 1.15 times as long",
    )
    trees = []
    for count in (size.num_many, size.num_many // 10):
        trees.append(folder / f"tree-{count}")
        write_tree(trees[-1], count, seed=2, fs=100)
    times: list[float] = []
    for number in range(min(size.num_rounds, 5)):
        for which in (0, 1) if number % 2 else (1, 0):
            one = Comparison("", "", "")
            count = size.num_many // (10 if which else 1)
            names = [str(n) for n in range(count)]
            time_in_turn(
                one, partial(_build_at_100, trees[which], folder / "out"), _nothing, [names], 1
            )
            times.append(one.ours_us)
        pair = times[-2:] if number % 2 else times[-2:][::-1]
        row.rounds.append((pair[0], pair[1]))
    return [row]


def _build_at_100(tree: Path, out: Path, _: Sequence[str]) -> None:
    build(tree, out, fs=100)


def _nothing(_: Sequence[str]) -> None:
    pass
