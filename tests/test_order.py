from __future__ import annotations

import numpy as np
import pytest

from esi_fast.data.order import Buckets, Order

NUM_ROWS, NUM_SHARDS = 1000, 23
SHARDS = np.sort(np.random.default_rng(0).integers(0, NUM_SHARDS, NUM_ROWS))
LENGTHS = np.random.default_rng(1).integers(10, 200, NUM_ROWS).astype(np.int32)


def order(**options: object) -> Order:
    return Order(SHARDS, **({"seed": 5} | options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": "block", "window_shards": 4},
        {"shuffle": "none"},
        {"buckets": Buckets(LENGTHS, 8)},
        {"shuffle": "block", "buckets": Buckets(LENGTHS, 3)},
    ],
)
def test_every_row_comes_once_and_depends_on_seed_and_epoch_alone(
    options: dict[str, object],
) -> None:
    one = order(**options)
    epochs = [one.rows(epoch, 64) for epoch in range(3)]
    for epoch, rows in enumerate(epochs):
        assert sorted(rows) == [*range(NUM_ROWS)]
        np.testing.assert_array_equal(order(**options).rows(epoch, 64), rows)
    if options.get("shuffle") != "none":
        other_seed = order(**(options | {"seed": 6})).rows(0, 64)
        assert len({rows.tobytes() for rows in (*epochs, other_seed)}) == 4


def test_block_shuffle_stays_within_a_window_of_shards() -> None:
    rows = order(shuffle="block", window_shards=4).rows(2, 64)
    shards = SHARDS[rows]
    windows = []
    start = 0
    while start < NUM_ROWS:
        here = set(shards[start:]) if NUM_SHARDS - 4 * len(windows) <= 4 else None
        window: set[int] = set()
        end = start
        while end < NUM_ROWS and (len(window) < 4 or shards[end] in window):
            window.add(int(shards[end]))
            end += 1
        assert here is None or here == window
        assert end - start == np.isin(SHARDS, [*window]).sum()  # all rows of those shards
        assert np.any(np.diff(shards[start:end]) < 0)  # mixed
        windows.append(window)
        start = end
    assert len(windows) == -(-NUM_SHARDS // 4)
    assert windows != [set(range(first, min(first + 4, NUM_SHARDS))) for first in range(0, 23, 4)]


def test_the_orders_stay_what_they_were() -> None:
    # A run begun with an earlier version must resume in its own order.
    shards = np.repeat(np.arange(4), 3)
    lengths = np.arange(12, dtype=np.int32)[::-1].copy()
    assert Order(shards, 7).rows(1, 4).tolist() == FULL
    assert Order(shards, 7, "block", 2).rows(1, 4).tolist() == BLOCK
    assert Order(shards, 7, buckets=Buckets(lengths, 2)).rows(1, 4).tolist() == BUCKETS


FULL = [11, 1, 3, 2, 10, 7, 8, 4, 5, 9, 0, 6]
BLOCK = [3, 4, 11, 5, 10, 9, 7, 6, 0, 1, 8, 2]
BUCKETS = [1, 3, 2, 4, 11, 10, 7, 8, 5, 9, 0, 6]


def padding(rows: np.ndarray, world_size: int, batch: int) -> float:
    """Tokens that the ranks' batches take, over those that are text."""
    batches = rows[: len(rows) // (world_size * batch) * world_size * batch]
    lengths = LENGTHS[batches].reshape(-1, batch)
    return float(lengths.max(axis=1).sum() * batch / lengths.sum())


def test_buckets_pad_less_and_keep_pools_and_random_order_within_batches() -> None:
    global_batch, pool = 32, 8
    plain = order().rows(0, global_batch)
    bucketed = order(buckets=Buckets(LENGTHS, pool)).rows(0, global_batch)
    assert padding(plain, 4, 8) / padding(bucketed, 4, 8) > 1.4
    size = global_batch * pool
    for start in range(0, NUM_ROWS, size):
        assert sorted(plain[start : start + size]) == sorted(bucketed[start : start + size])
    rest = NUM_ROWS % global_batch
    np.testing.assert_array_equal(plain[-rest:], bucketed[-rest:])
    place = np.argsort(plain)
    shortest = []
    for start in range(0, NUM_ROWS - rest, global_batch):
        batch = bucketed[start : start + global_batch]
        assert np.all(np.diff(place[batch]) > 0)
        shortest.append(LENGTHS[batch].min())
    assert np.any(np.diff(shortest[:pool]) < 0)  # batches of a pool are not in order of length


def test_ranks_share_the_longest_texts() -> None:
    rows = order(buckets=Buckets(LENGTHS, 8)).rows(0, 64)
    longest = LENGTHS[rows[: NUM_ROWS // 64 * 64]].reshape(-1, 4, 16).max(axis=2)
    plain = LENGTHS[order().rows(0, 64)[: NUM_ROWS // 64 * 64]].reshape(-1, 4, 16).max(axis=2)
    assert np.mean(longest.max(axis=1) - longest.min(axis=1)) < np.mean(
        plain.max(axis=1) - plain.min(axis=1)
    )


def test_what_a_state_must_share() -> None:
    said = {
        order(**options).describe(batch)
        for options in (
            {}, {"shuffle": "none"}, {"shuffle": "block"},
            {"shuffle": "block", "window_shards": 9}, {"buckets": Buckets(LENGTHS, 8)},
            {"buckets": Buckets(LENGTHS, 9)},
        )
        for batch in (32, 64)
    }  # fmt: skip
    assert len(said) == 8  # only buckets depend on the size of the global batch


def test_senseless_orders_are_refused() -> None:
    with pytest.raises(ValueError, match="shuffle is 'half'"):
        order(shuffle="half")
    with pytest.raises(ValueError, match="window_shards is 0"):
        order(window_shards=0)
    with pytest.raises(ValueError, match="pool_batches is 0"):
        Buckets(LENGTHS, 0)
