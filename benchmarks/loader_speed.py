"""Loading shards as batches, beside webdataset's usual pipe and an index read by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.comparison import Comparison, time_in_turn
from esi_fast.data.loader import Loader, LoaderOptions
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.shards import write_shards
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.simulate_tree import write_tree

PACKAGES = ("numpy", "torch", "webdataset")
BATCH_SIZE = 64
VERIFIED = "ours checks every byte and shuffles all records; the rival does neither"


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does: simulated records of 10 s at 500 Hz, and timed rounds."""

    num_records: int
    num_rounds: int


FULL = Size(2048, 9)
QUICK = Size(128, 2)


def measure(
    folder: Path, size: Size, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Comparison]:
    """All rows, each timed after its samples were found equal.

    Args:
        folder: where to write records and shards.
        size: how much to do.
        progress: called with the rows done and their number.

    Raises:
        ValueError: the rival's samples differ from ours.
    """
    torch.set_num_threads(1)
    write_tree(folder / "tree", size.num_records, seed=1)
    settings = BuildSettings(
        measure=False, val_fraction=0, test_fraction=0, samples_per_shard=size.num_records // 4
    )
    write_shards(open_catalogue(folder / "tree"), folder / "shards", settings, workers=1)
    shards = ShardSet(folder / "shards")
    names = shards.keys[: len(shards) // BATCH_SIZE * BATCH_SIZE]
    urls = [str(path) for path in sorted((folder / "shards").glob("*.tar"))]
    rows = []
    contests = [
        (
            Comparison("z-score, batches of 64", "Loader", "webdataset", bar=10, aim=20),
            "zscore",
            partial(webdataset_pipe, urls),
        ),
        (
            Comparison("mV, batches of 64", "Loader", "webdataset"),
            "mv",
            partial(webdataset_pipe, urls, normalize=False),
        ),
        (
            Comparison("z-score, batches of 64", "Loader", "index + pread + numpy by hand"),
            "zscore",
            partial(by_hand, shards),
        ),
    ]
    for done, (row, normalize, rival) in enumerate(contests):
        progress(done, len(contests) + 1)
        row.note = VERIFIED
        row.num_compared = compare(ours(shards, normalize, shuffle="none"), rival())
        loader = ours(shards, normalize)
        time_in_turn(row, partial(_exhaust, loader), partial(_exhaust_call, rival), [names],
                     size.num_rounds)  # fmt: skip
        rows.append(row)
    progress(len(contests), len(contests) + 1)
    rows.append(_main_thread(shards, urls, names, size))
    progress(len(contests) + 1, len(contests) + 1)
    return rows


def ours(shards: ShardSet, normalize: Any, shuffle: Any = "full") -> Loader:
    """The loader as it comes, but for one thread."""
    return Loader(
        shards, None, BATCH_SIZE, options=LoaderOptions(normalize=normalize, shuffle=shuffle,
                                                        threads=1)
    )  # fmt: skip


def webdataset_pipe(urls: Sequence[str], *, normalize: bool = True) -> Any:
    """webdataset's usual pipe: decode, float32, z-score of the record, batch."""
    import webdataset

    def prepare(ecg: NDArray[np.int16]) -> NDArray[np.float32]:
        signal = ecg.astype(np.float32) / np.float32(1000)
        if not normalize:
            return signal
        return (signal - signal.mean()) / (signal.std() + np.float32(1e-6))

    dataset = webdataset.WebDataset(list(urls), shardshuffle=False).decode().to_tuple("ecg.npy")
    return dataset.map_tuple(prepare).batched(BATCH_SIZE, partial=False)


def by_hand(shards: ShardSet) -> Any:
    """What a careful user writes with the index at hand: pread and numpy into one array."""
    rows = np.random.default_rng(0).permutation(len(shards))
    index, of_row, paths = shards._rows, shards.shard_of_row, shards._paths
    files = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        batch = np.empty((BATCH_SIZE, 12, shards.num_samples), np.float32)
        for start in range(0, len(rows) - BATCH_SIZE + 1, BATCH_SIZE):
            for position, row in enumerate(rows[start : start + BATCH_SIZE]):
                content = os.pread(
                    files[of_row[row]], 24 * shards.num_samples, int(index["ecg_offset"][row]) + 128
                )
                signal = np.frombuffer(content, "<i2").reshape(12, -1).astype(np.float32)
                signal /= np.float32(1000)
                signal -= signal.mean()
                np.divide(signal, signal.std() + np.float32(1e-6), out=batch[position])
            yield batch, rows[start : start + BATCH_SIZE]
    finally:
        for file in files:
            os.close(file)


def compare(loader: Loader, rival: Any) -> int:
    """The number of samples, all equal to within float32's rounding.

    Raises:
        ValueError: one differs, or there are fewer of one than of the other.
    """
    expected = {int(row): ecg.numpy().copy() for batch in loader
                for row, ecg in zip(batch["row"], batch["ecg"], strict=True)}  # fmt: skip
    count = 0
    for item in rival:
        batch, rows = item if len(item) == 2 else (item[0], range(count, count + BATCH_SIZE))
        for row, ecg in zip(rows, batch, strict=True):
            # The standard deviations differ in one degree of freedom of 60,000.
            if not np.allclose(expected[int(row)], ecg, rtol=2e-5, atol=2e-5, equal_nan=True):
                raise ValueError(f"sample {row} differs")
            count += 1
    if count != len(expected):
        raise ValueError(f"{count} samples, not {len(expected)}")
    return count


def _main_thread(
    shards: ShardSet, urls: Sequence[str], names: Sequence[str], size: Size
) -> Comparison:
    row = Comparison(
        "the consumer's own time", "Loader", "webdataset in DataLoader, 2 workers",
        clock="thread", bar=3, note="of the thread that trains; wanted: at most 10 us",
    )  # fmt: skip
    loader = ours(shards, "zscore")
    workers = torch.utils.data.DataLoader(
        webdataset_pipe(urls), batch_size=None, num_workers=2, persistent_workers=True
    )
    _exhaust(workers, names)  # whose processes start
    time_in_turn(row, partial(_exhaust, loader), partial(_exhaust, workers), [names],
                 size.num_rounds)  # fmt: skip
    return row


def _exhaust(batches: Any, _: Sequence[str]) -> None:
    for _batch in batches:
        pass


def _exhaust_call(make: Callable[[], Any], _: Sequence[str]) -> None:
    _exhaust(make(), _)
