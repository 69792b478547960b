from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loader_fakes import (
    NUM_RECORDS,
    ONE_SPLIT,
    ByteTokenizer,
    bare_text,
    copy_of,
    flat,
    loader_of,
    rows_of,
    text_of,
)
from shard_tree import Tree, build, make_tree, signal_of

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data import loader as loader_module
from esi_fast.data.augment import sample_sentences
from esi_fast.data.loader import PREFETCH_BATCHES, Loader, LoaderOptions, LoaderState
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def built(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    build(tree, out, captions=CaptionDictionary([]), **ONE_SPLIT)
    return out


@pytest.fixture(scope="module")
def bare(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records without captions."""
    out = tmp_path_factory.mktemp("bare") / "out"
    build(tree, out, **ONE_SPLIT)
    return out


@pytest.fixture(scope="module")
def shard_set(built: Path) -> ShardSet:
    return ShardSet([built])


@pytest.fixture(scope="module")
def tokens(shard_set: ShardSet) -> CaptionTokens:
    return CaptionTokens(shard_set, ByteTokenizer(), 2000)


def state_at(loader: Loader, samples: int) -> LoaderState:
    state = loader.state_dict()
    state["epoch"], state["samples"] = 0, samples
    return state


def global_batches(
    shard_set: ShardSet, world_size: int, num_batches: int | None = None, **options: object
) -> list[list[int]]:
    """What all ranks together see, each batch in the order of the ranks."""
    ranks = [
        rows_of(loader_of(shard_set, 6 // world_size, rank, world_size, **options), num_batches)
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    return [flat(batches) for batches in zip(*ranks, strict=True)]


# --------------------------------------------------------------------------------------- batches


def test_a_batch(shard_set: ShardSet, tokens: CaptionTokens) -> None:
    batch = next(iter(loader_of(shard_set, 4, seed=3, tokens=tokens)))
    rows = batch["row"].tolist()
    assert {name: (value.dtype, value.shape[0]) for name, value in batch.items()} == {
        "ecg": (torch.float32, 4),
        "concept_key": (torch.int64, 4),
        "row": (torch.int64, 4),
        "input_ids": (torch.int64, 4),
        "attention_mask": (torch.int64, 4),
        "text_ids": (torch.int64, 4),
        "text_mask": (torch.int64, 4),
    }
    assert torch.equal(batch["text_ids"], batch["input_ids"])
    for position, row in enumerate(rows):
        expected = torch.from_numpy((signal_of(row) / 200).astype(np.float32))
        assert torch.equal(batch["ecg"][position], expected)
        text = text_of(batch["input_ids"][position], batch["attention_mask"][position])
        assert text == bare_text(shard_set.read_caption(row) or "")
        concept_key = shard_set.read_meta(row)["concept_key"]
        assert batch["concept_key"][position] == int(concept_key[:15], 16)
    assert set(next(iter(loader_of(shard_set, 4)))) == {"ecg", "concept_key", "row"}


def test_sampled_texts_are_a_part_of_the_caption_and_resume_exactly(
    shard_set: ShardSet, tokens: CaptionTokens
) -> None:
    loader = loader_of(shard_set, 4, seed=3, sentence_sampling=1.0, tokens=tokens)
    batches = iter(loader)
    first, second = next(batches), next(batches)
    again = loader_of(shard_set, 4, seed=3, sentence_sampling=1.0, tokens=tokens)
    again.load_state_dict(state_at(again, samples=4))
    resumed = next(iter(again))
    assert torch.equal(resumed["text_ids"], second["text_ids"])
    assert torch.equal(resumed["input_ids"], second["input_ids"])
    for position, row in enumerate(first["row"].tolist()):
        text = text_of(first["text_ids"][position], first["text_mask"][position])
        expected = sample_sentences(
            shard_set.read_caption(row) or "", seed=3, epoch=0, row=row, share=1.0
        )
        assert text == bare_text(expected)


def test_world_size_does_not_change_the_global_batches(shard_set: ShardSet) -> None:
    one = global_batches(shard_set, 1, seed=5)
    assert len(one) == 4
    assert sorted(flat(one)) == list(range(NUM_RECORDS))
    assert global_batches(shard_set, 2, seed=5) == one
    assert global_batches(shard_set, 3, seed=5) == one
    assert global_batches(shard_set, 6, seed=5) == one


def test_order_depends_on_seed_and_epoch_only(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 6, seed=1)
    epochs = [rows_of(loader) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    assert all(sorted(flat(epoch)) == list(range(NUM_RECORDS)) for epoch in epochs)
    again = loader_of(shard_set, 6, seed=1)
    assert [rows_of(again) for _ in range(3)] == epochs
    assert rows_of(loader_of(shard_set, 6, seed=2)) != epochs[0]
    unshuffled = loader_of(shard_set, 6, shuffle="none")
    assert flat(rows_of(unshuffled)) == list(range(NUM_RECORDS))
    assert flat(rows_of(unshuffled)) == list(range(NUM_RECORDS))


def test_the_order_stays_what_it_was(shard_set: ShardSet) -> None:
    # A run begun with an earlier version must resume in its own order.
    assert loader_of(shard_set, 1, seed=7).order(2).tolist() == [
        14,
        10,
        21,
        8,
        6,
        11,
        4,
        0,
        5,
        20,
        7,
        1,
        12,
        22,
        23,
        3,
        18,
        15,
        17,
        9,
        19,
        13,
        2,
        16,
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("consumed", [1, 3, 4, 5])
def test_resume_is_exact_at_any_world_size(
    shard_set: ShardSet, world_size: int, consumed: int
) -> None:
    whole = loader_of(shard_set, 6, seed=4)
    expected = rows_of(whole) + rows_of(whole)
    interrupted = [loader_of(shard_set, 3, rank, 2, seed=4) for rank in range(2)]
    for loader in interrupted:
        for _ in range(-(-consumed // 4)):
            rows_of(loader, min(4, consumed - 4 * loader.state_dict()["epoch"]))
    states = [json.loads(json.dumps(loader.state_dict())) for loader in interrupted]
    assert states[0] == states[1]
    assert states[0]["epoch"] * NUM_RECORDS + states[0]["samples"] == 6 * consumed
    rest = []
    for rank in range(world_size):
        loader = loader_of(shard_set, 6 // world_size, rank, world_size, seed=4)
        loader.load_state_dict(states[0])
        rest.append(rows_of(loader) + rows_of(loader))
    joined = [flat(batches) for batches in zip(*rest, strict=True)]
    assert joined[: 8 - consumed] == expected[consumed:]


def test_state_counts_what_was_consumed(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 6, seed=4)
    assert loader.state_dict() == {
        "seed": 4,
        "epoch": 0,
        "samples": 0,
        "data": shard_set.digest,
        "order": "full",
        "content": "sentence_sampling 0, mv, missing samples nan, crop 0, drop_last True",
    }
    states = []
    for _ in loader:
        time.sleep(0.02)  # long enough for batches to be made ahead
        states.append(loader.state_dict())
    assert [(one["epoch"], one["samples"]) for one in states] == [(0, 6), (0, 12), (0, 18), (1, 0)]


def test_resume_at_another_global_batch_size(shard_set: ShardSet) -> None:
    order = loader_of(shard_set, 6, seed=4).order(0).tolist()
    loader = loader_of(shard_set, 10, seed=4)
    loader.load_state_dict(state_at(loader, samples=6))
    assert rows_of(loader) == [order[6:16]]
    loader.load_state_dict(state_at(loader, samples=18))  # 6 left, too few for a batch
    assert rows_of(loader) == [
        loader.order(1).tolist()[start : start + 10] for start in (0, 10)
    ]  # so the next epoch begins


def test_wrong_states_are_refused(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 6)
    with pytest.raises(ValueError, match="no loader state"):
        loader.load_state_dict({"epoch": 1})  # type: ignore[typeddict-item]
    with pytest.raises(ValueError, match="at sample 25 of 24"):
        loader.load_state_dict(state_at(loader, samples=25))


def refusal(loader: Loader, state: LoaderState) -> str:
    before = loader.state_dict()
    with pytest.raises(ValueError, match=r"the loader state|the last") as raised:
        loader.load_state_dict(state)
    assert "\n" not in str(raised.value)
    assert loader.state_dict() == before
    return str(raised.value)


def test_a_state_of_other_options_is_refused(shard_set: ShardSet, tokens: CaptionTokens) -> None:
    state = loader_of(shard_set, 6, seed=3, sentence_sampling=0.5, tokens=tokens).state_dict()
    assert "seed: 3, not 4" in refusal(
        loader_of(shard_set, 6, seed=4, sentence_sampling=0.5, tokens=tokens), state
    )
    for changed in (
        {"sentence_sampling": 0.25}, {"crop": 100}, {"normalize": "zscore"},
        {"nan_policy": "zero"}, {"drop_last": False},
    ):  # fmt: skip
        options: dict[str, Any] = {"sentence_sampling": 0.5} | changed
        assert "other content: sentence_sampling 0.5, mv" in refusal(
            loader_of(shard_set, 6, seed=3, tokens=tokens, **options), state
        )
    other_world = loader_of(shard_set, 2, 1, 4, seed=3, sentence_sampling=0.5, tokens=tokens)
    other_world.load_state_dict(state)
    assert other_world.state_dict() == state


@pytest.mark.filterwarnings("ignore:.* has captions of 1 of 24 records:UserWarning")
def test_a_state_of_other_data_is_refused(built: Path, bare: Path, tmp_path: Path) -> None:
    for name, caption in (("a", "one"), ("b", "another")):
        (tmp_path / name).write_text(json.dumps({"key": "k003", "caption": caption}) + "\n")
    moved = shutil.copytree(built, tmp_path / "moved")
    saved = {
        "one folder": ShardSet(built),
        "another folder": ShardSet(bare),
        "two folders": ShardSet([built, bare]),
        "in another order": ShardSet([bare, built]),
        "all splits": ShardSet(built, "all"),
        "an overlay": ShardSet(built, captions=tmp_path / "a"),
        "another overlay": ShardSet(built, captions=tmp_path / "b"),
    }
    assert len({shards.digest for shards in saved.values()}) == len(saved)
    assert all(int(shards.digest, 16) < 16**16 for shards in saved.values())
    assert {len(shards.digest) for shards in saved.values()} == {16}
    for saved_name, saved_set in saved.items():
        state = loader_of(saved_set, 6).state_dict()
        for name, shards in saved.items():
            if name == saved_name:
                continue
            message = refusal(loader_of(shards, 6), state)
            assert "other data (the shards and their order, the split, or the caption" in message
            assert f"{saved_set.digest}, not {shards.digest}" in message
    loader_of(ShardSet(moved), 6).load_state_dict(loader_of(saved["one folder"], 6).state_dict())


def test_records_that_changed_change_the_digest(tree: Tree, bare: Path, tmp_path: Path) -> None:
    first, *others = tree.entries
    changed = Tree(tree.root, [replace(first, age=77.0), *others])
    build(changed, tmp_path / "changed", **ONE_SPLIT)
    build(tree, tmp_path / "same", **ONE_SPLIT)
    assert ShardSet(tmp_path / "same").digest == ShardSet(bare).digest
    assert ShardSet(tmp_path / "changed").digest != ShardSet(bare).digest


def test_shard_set_has_one_import_path() -> None:
    assert not hasattr(loader_module, "ShardSet")


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_without_drop_last_every_row_comes_once(shard_set: ShardSet, world_size: int) -> None:
    ranks = [
        loader_of(shard_set, 9 // world_size, rank, world_size, drop_last=False)
        for rank in range(world_size)
    ]
    assert [len(loader) for loader in ranks] == [
        -(-24 // (9 // world_size * world_size))
    ] * world_size
    batches = [rows_of(loader) for loader in ranks]
    assert sorted(flat(flat(batches))) == list(range(NUM_RECORDS))
    sizes = [len(one[-1]) for one in batches]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


def test_drop_last_leaves_out_the_rest(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 9)
    assert len(loader) == 2
    assert [len(rows) for rows in rows_of(loader)] == [9, 9]
    assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank 2"),
        ({"batch_size": 4, "seed": -1}, "seed -1"),
        ({"batch_size": 25}, "lower batch_size"),
        ({"batch_size": 13, "world_size": 2}, "lower batch_size"),
        ({"batch_size": 11, "rank": 1, "world_size": 2, "drop_last": False}, None),
        ({"batch_size": 23, "world_size": 1, "drop_last": False}, None),
        ({"batch_size": 1, "world_size": 23, "drop_last": False}, "last 1 of 24"),
    ],
)
def test_impossible_batches(
    shard_set: ShardSet, options: dict[str, int], message: str | None
) -> None:
    if message is None:
        assert len(rows_of(loader_of(shard_set, **options))) == 2
    else:
        with pytest.raises(ValueError, match=message):
            loader_of(shard_set, **options)


# --------------------------------------------------------------------------------------- threads


def loader_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("esi_fast loader")]


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


# ---------------------------------------------------------------------------------------- damage


def damaged_copy(built: Path, to: Path, *rows: int) -> Path:
    """A byte in the middle of the signals of some rows is another; five rows are in a shard."""
    out = copy_of(built, to)
    for row in rows:
        tar = out / f"train-{row // 5:06d}.tar"
        index = np.load(tar.with_suffix(".idx.npy"))
        content = bytearray(tar.read_bytes())
        content[int(index["ecg_offset"][row % 5]) + 9999] ^= 1
        tar.write_bytes(content)
    return out


def test_a_damaged_sample_stops_the_run_with_its_place(built: Path, tmp_path: Path) -> None:
    out = damaged_copy(built, tmp_path / "out", 11)
    offset = int(np.load(out / "train-000002.idx.npy")["ecg_offset"][1]) - 512
    loader = loader_of(ShardSet(out), 4, shuffle="none")
    place = rf"train-000002\.tar: sample k011 at byte {offset} is damaged: run tools/shard verify"
    with pytest.raises(ValueError, match=place):
        rows_of(loader)
    assert loader.state_dict()["samples"] == 8
    assert loader_threads() == []


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_damaged_sample_is_replaced_and_counted(
    built: Path, tmp_path: Path, world_size: int
) -> None:
    out = damaged_copy(built, tmp_path / "out", 11, 3)
    shards = ShardSet(out)
    sound = loader_of(ShardSet(built), 6, seed=4)
    order = sound.order(0).tolist()
    expected = [[*batch] for batch in rows_of(sound)]
    for batch in expected:
        for place, row in enumerate(batch):
            if row in (3, 11):
                candidates = (order[(order.index(row) + 15 * step) % 24] for step in range(1, 17))
                batch[place] = next(one for one in candidates if one not in (3, 11))
    ranks = []
    skipped: dict[str, str] = {}
    for rank in range(world_size):
        loader = loader_of(shards, 6 // world_size, rank, world_size, seed=4, on_error="skip")
        batches = [*loader]
        for batch in batches:
            for ecg, row in zip(batch["ecg"], batch["row"].tolist(), strict=True):
                np.testing.assert_array_equal(ecg, (signal_of(row) / 200).astype(np.float32))
        ranks.append([batch["row"].tolist() for batch in batches])
        skipped |= loader.skipped
    assert [flat(batches) for batches in zip(*ranks, strict=True)] == expected
    assert sorted(skipped) == ["k003", "k011"]
    assert "is damaged" in skipped["k011"]


def test_a_lost_shard_stops_or_is_skipped(built: Path, tmp_path: Path) -> None:
    shards = ShardSet(copy_of(built, tmp_path / "out"))
    (tmp_path / "out" / "train-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"train-000001\.tar: sample k005 .* cannot be read: No"):
        rows_of(loader_of(shards, 5, shuffle="none"))
    loader = loader_of(shards, 5, shuffle="none", on_error="skip")
    assert not set(flat(rows_of(loader))) & {5, 6, 7, 8, 9}
    assert sorted(loader.skipped) == [f"k{row:03d}" for row in range(5, 10)]


def test_skipping_ends_where_nothing_is_sound(built: Path, tmp_path: Path) -> None:
    out = damaged_copy(built, tmp_path / "out", *range(NUM_RECORDS))
    with pytest.raises(ValueError, match=r"16 records that were tried .* are damaged"):
        next(iter(loader_of(ShardSet(out), 4, on_error="skip")))


@pytest.mark.parametrize("shuffle", ["none", "block", "full"])
def test_whole_shards_may_be_damaged(built: Path, tmp_path: Path, shuffle: str) -> None:
    out = shutil.copytree(built, tmp_path / "out")
    tars = sorted(out.glob("*.tar"))
    assert len(tars) > 3
    tars[0].unlink()
    os.truncate(tars[2], 5000)
    with pytest.warns(UserWarning, match="its samples count as damaged") as caught:
        shards = ShardSet(out, allow_damage=True)
    assert len(caught) == 2
    loader = loader_of(shards, 6, shuffle=shuffle, window_shards=1, on_error="skip")
    bad = np.isin(shards.shard_of_row, (0, 2))
    for batch in loader:
        assert not bad[batch["row"].numpy()].any()
    assert loader.num_skipped == bad.sum()
    assert "No such file" in loader.skipped[shards.key(0)]
    with pytest.raises(FileNotFoundError, match=r"is missing, though index\.json lists it"):
        ShardSet(out)


def test_a_lack_of_descriptors_is_no_damage(
    shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open, limit = os.open, 2

    def scarce(path: str, flags: int) -> int:
        if len(fresh._open_files) >= limit:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really_open(path, flags)

    fresh = ShardSet(shard_set._dirs)
    monkeypatch.setattr("esi_fast.data.shard_set.os.open", scarce)
    for row in range(NUM_RECORDS):
        fresh.read_ecg([row])
    limit = 0
    fresh.close()
    with pytest.raises(OSError, match="Too many open files"):
        next(iter(loader_of(fresh, 6, on_error="skip")))


def test_the_rest_of_an_epoch_must_be_dealt_to_every_rank(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 5, drop_last=False)
    next(iter(loader))
    state = loader.state_dict()
    assert state["samples"] == 5
    message = refusal(loader_of(shard_set, 2, 0, 8, drop_last=False), state)
    assert "the last 3 records of the epoch are too few for 8 ranks" in message


@pytest.mark.parametrize(
    "changed", [{"epoch": -1}, {"epoch": "0"}, {"samples": 1.5}, {"samples": -1}, {"samples": 999}]
)
def test_a_damaged_state_is_refused(shard_set: ShardSet, changed: dict[str, Any]) -> None:
    loader = loader_of(shard_set, 6)
    assert "it is damaged" in refusal(loader, loader.state_dict() | changed)


@pytest.mark.parametrize(
    "options",
    [{"normalize": "x"}, {"nan_policy": "x"}, {"on_error": "x"}, {"sentence_sampling": 1.5}],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        LoaderOptions(**options)


def test_buckets_of_other_lengths_are_another_order(shard_set: ShardSet) -> None:
    options = {"pool_batches": 2, "seed": 3}
    tokens = [CaptionTokens(shard_set, ByteTokenizer(), most) for most in (2000, 10)]
    state = loader_of(shard_set, 6, tokens=tokens[0], **options).state_dict()
    loader_of(shard_set, 6, tokens=tokens[0], **options).load_state_dict(state)
    assert "other order" in refusal(loader_of(shard_set, 6, tokens=tokens[1], **options), state)


# -------------------------------------------------------------------------- normalisation, crops


def test_crops_move_with_the_epoch_and_resume_exactly(shard_set: ShardSet) -> None:
    loader = loader_of(shard_set, 4, seed=1, crop=200)
    epochs = [[*loader], [*loader]]
    places = []
    for batches in epochs:
        found = {}
        for batch in batches:
            assert batch["ecg"].shape == (4, 12, 200)
            for ecg, row in zip(batch["ecg"].numpy(), batch["row"].tolist(), strict=True):
                whole = (signal_of(row) / 200).astype(np.float32)
                found[row] = next(
                    t for t in range(801) if np.array_equal(whole[:, t : t + 200], ecg)
                )
        places.append(found)
    assert len(set(places[0].values())) > 15
    assert places[0] != places[1]
    resumed = loader_of(shard_set, 4, seed=1, crop=200)
    resumed.load_state_dict(state_at(resumed, samples=8))
    for first, second in zip([*resumed], epochs[0][2:], strict=True):
        assert torch.equal(first["ecg"], second["ecg"])
    with pytest.raises(ValueError, match="crop is 1001 samples, the records have 1000"):
        loader_of(shard_set, 4, crop=1001)


def test_normalised_batches(shard_set: ShardSet) -> None:
    batch = next(iter(loader_of(shard_set, 4, normalize="zscore", nan_policy="mean")))
    for ecg, row in zip(batch["ecg"].numpy(), batch["row"].tolist(), strict=True):
        whole = signal_of(row) / 200
        np.testing.assert_allclose(
            ecg, (whole - whole.mean()) / (whole.std(ddof=1) + 1e-6), atol=2e-6
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": "some"}, "shuffle is 'some'"),
        ({"shuffle": "block", "window_shards": 0}, "window_shards is 0"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"threads": 0}, "threads 0 positive"),
        ({"crop": -1}, "crop -1"),
    ],
)
def test_senseless_options_are_refused(
    shard_set: ShardSet, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loader_of(shard_set, 4, **options)
    with pytest.raises(ValueError, match="normalize is 'none'"):
        next(iter(loader_of(shard_set, 4, normalize="none")))
