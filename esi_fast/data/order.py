"""In which order an epoch visits the rows: pure functions of seed and epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Shuffle = Literal["full", "block", "none"]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Batches of texts of like length: within a pool of global batches, rows are sorted by length.

    Attributes:
        lengths: (rows,) tokens of each row's text.
        pool_batches: global batches a pool.
    """

    lengths: NDArray[np.int32]
    pool_batches: int

    def __post_init__(self) -> None:
        """Raises ValueError for a pool of no batches."""
        if self.pool_batches < 1:
            raise ValueError(f"pool_batches is {self.pool_batches}, it must be positive")


@dataclass(frozen=True, slots=True)
class Order:
    """How epochs are ordered.

    Attributes:
        shard_of_row: (rows,) which shard each row is in.
        seed: of all permutations.
        shuffle: ``"full"``, a permutation of all rows; ``"block"``, of the shards, and of the rows
            within each ``window_shards`` of them, for disks on which seeking is slow; ``"none"``.
        window_shards: shards whose rows are mixed, of ``"block"``.
        buckets: sort by length within pools; None does not.
    """

    shard_of_row: NDArray[np.int64]
    seed: int
    shuffle: Shuffle = "full"
    window_shards: int = 8
    buckets: Buckets | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown ``shuffle`` or an empty window."""
        if self.shuffle not in get_args(Shuffle):
            raise ValueError(
                f"shuffle is {self.shuffle!r}, it must be one of {', '.join(get_args(Shuffle))}"
            )
        if self.window_shards < 1:
            raise ValueError(f"window_shards is {self.window_shards}, it must be positive")

    def describe(self, global_batch: int) -> str:
        """What a resumed run must have in common with the one that was saved."""
        said: str = self.shuffle
        if self.shuffle == "block":
            said += f" of {self.window_shards} shards"
        if self.buckets is not None:
            lengths = hashlib.sha256(self.buckets.lengths.tobytes()).hexdigest()[:8]
            said += (
                f", buckets of {self.buckets.pool_batches} x {global_batch} rows by the lengths "
                f"{lengths}"
            )
        return said

    def rows(self, epoch: int, global_batch: int) -> Rows:
        """All rows in the order of an epoch; batches are runs of ``global_batch`` of them."""
        num_rows = len(self.shard_of_row)
        if self.shuffle == "none":
            order = np.arange(num_rows)
        elif self.shuffle == "full":
            order = np.argsort(self._draws(epoch, num_rows), kind="stable")
        else:
            num_shards = int(self.shard_of_row[-1]) + 1
            draws = self._draws(epoch, num_shards + num_rows)
            place = np.argsort(np.argsort(draws[:num_shards], kind="stable"), kind="stable")
            window = place[self.shard_of_row] // self.window_shards
            order = np.lexsort((draws[num_shards:], window))
        if self.buckets is None:
            return order
        return self._bucketed(order, epoch, global_batch, self.buckets)

    def _draws(self, epoch: int, count: int, *more: int) -> NDArray[np.uint64]:
        # NumPy keeps raw bit streams stable between versions, which it does not promise of
        # Generator.permutation; a resumed run must see the order with which it began.
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch, *more]))
        draws: NDArray[np.uint64] = bits.random_raw(count)
        return draws

    def _bucketed(self, order: Rows, epoch: int, global_batch: int, buckets: Buckets) -> Rows:
        """Each pool cut anew into batches: of like length, in random order.

        Within a batch rows keep their random order, so that every rank has its share of the longest
        and steps take equal time; what does not fill a batch stays at the end.
        """
        order = order.copy()
        num_batches = len(order) // global_batch
        batch_draws = self._draws(epoch, num_batches, 1)
        for first in range(0, num_batches, buckets.pool_batches):
            last = min(first + buckets.pool_batches, num_batches)
            pool = order[first * global_batch : last * global_batch]
            by_length = np.argsort(buckets.lengths[pool], kind="stable")
            batches = np.sort(by_length.reshape(last - first, global_batch), axis=1)
            turn = np.argsort(batch_draws[first:last], kind="stable")
            pool[:] = pool[batches[turn].reshape(-1)]
        return order
