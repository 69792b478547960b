from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loader_fakes import (
    NUM_RECORDS,
    built,
    flat,
    loader_of,
    loader_threads,
    rows_of,
    shard_set,
    tokens,
    tree,
)
from shard_tree import signal_of

from esi_fast.data import loader as loader_module
from esi_fast.data.loader import PREFETCH_BATCHES
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens

# --------------------------------------------------------------------------------------- threads


def test_leaving_early_ends_the_threads(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 2, seed=8)
    order = loader.order(0).tolist()
    for number, _ in enumerate(loader):
        assert len(loader_threads()) <= 2
        if number == 2:
            break
    gc.collect()
    assert loader_threads() == []
    assert loader.state_dict()["samples"] == 6
    assert flat(rows_of(loader)) == order[6:]  # goes on, losing nothing that was made ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_batches(
    shard_set: ShardSet, tokens: CaptionTokens, threads: int
) -> None:
    options = {"seed": 2, "sentence_sampling": 0.5, "crop": 300, "tokens": tokens}
    one = [*loader_of(shard_set, 4, threads=1, **options)]
    many = [*loader_of(shard_set, 4, threads=threads, **options)]
    assert len(one) == len(many) == 6
    for first, second in zip(one, many, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


class CountedSet:
    """A shard set that counts and can hold up what is read."""

    def __init__(self, shard_set: ShardSet, wait: Callable[[], object] = lambda: None) -> None:
        self._shard_set, self._wait = shard_set, wait
        self.num_batches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard_set, name)

    def __len__(self) -> int:
        return len(self._shard_set)

    def read_batch(self, *args: Any, **options: Any) -> dict[int, str]:
        self.num_batches += 1
        self._wait()
        return self._shard_set.read_batch(*args, **options)


def test_batches_made_ahead_are_bounded(shard_set: ShardSet) -> None:
    counted = CountedSet(shard_set)
    iterator = iter(loader_of(counted, 1))  # type: ignore[arg-type]
    next(iterator)
    full = 1 + PREFETCH_BATCHES  # one handed out, the others waiting
    deadline = time.monotonic() + 20
    while counted.num_batches < full and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # one too many would come now
    assert counted.num_batches == full
    iterator.close()
    assert loader_threads() == []


def test_waiting_is_measured(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that only this test moves: a batch takes a second once it has been asked for, and the
    # consumer, which takes ten, waits for nothing meanwhile.
    now = [0.0]
    asked = threading.Semaphore(0)
    is_asking = itertools.cycle([True, False])

    def perf_counter() -> float:
        if next(is_asking):
            asked.release()
        return now[0]

    def slow() -> None:
        assert asked.acquire(timeout=30)
        now[0] += 1.0

    monkeypatch.setattr(loader_module, "time", SimpleNamespace(perf_counter=perf_counter))
    loader = loader_of(CountedSet(shard_set, slow), 8, threads=1)  # type: ignore[arg-type]
    assert loader.wait_s == 0
    for num_batches, _ in enumerate(loader, start=1):
        assert loader.wait_s == num_batches
        now[0] += 10.0
    assert loader.wait_s == 3.0


def test_memory_is_used_again_but_never_under_a_batch_that_is_kept(shard_set: ShardSet) -> None:
    kept = [*loader_of(shard_set, 1)]
    assert len({batch["ecg"].data_ptr() for batch in kept}) == NUM_RECORDS
    for batch in kept:
        expected = torch.from_numpy((signal_of(int(batch["row"])) / 200).astype(np.float32))
        assert torch.equal(batch["ecg"][0], expected)
    places = [batch["ecg"].data_ptr() for batch in loader_of(shard_set, 1)]
    assert len(set(places)) <= 2 * PREFETCH_BATCHES
    views = [batch["ecg"][0, 3, 5:9] for batch in loader_of(shard_set, 1, shuffle="none")]
    for row, view in enumerate(views):
        np.testing.assert_array_equal(view, (signal_of(row)[3, 5:9] / 200).astype(np.float32))
