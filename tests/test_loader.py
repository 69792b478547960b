from __future__ import annotations

import itertools
import json
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import pytest
import torch
from shard_tree import NUM_SAMPLES, SETTINGS, Tree, build, contents, make_tree, signal_of

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data import loader as loader_module
from esi_fast.data.augment import sample_sentences
from esi_fast.data.loader import PREFETCH_BATCHES, Loader, LoaderState
from esi_fast.data.shard_set import ShardSet

ONE_SPLIT = SETTINGS | {"val_fraction": 0.0, "test_fraction": 0.0}
NUM_RECORDS = 24
T = TypeVar("T")


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


def tokenize(captions: list[str]) -> dict[str, torch.Tensor]:
    """One token a byte, zero-padded."""
    longest = max(len(caption.encode()) for caption in captions)
    ids = torch.zeros(len(captions), longest, dtype=torch.int64)
    for row, caption in enumerate(captions):
        ids[row, : len(caption.encode())] = torch.tensor(list(caption.encode()))
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name, content in contents(folder).items():
        (to / name).write_bytes(content)
    return to


def state_at(loader: Loader, samples: int) -> LoaderState:
    state = loader.state_dict()
    state["epoch"], state["samples"] = 0, samples
    return state


def rows_of(loader: Loader, num_batches: int | None = None) -> list[list[int]]:
    return [batch["row"].tolist() for batch in itertools.islice(loader, num_batches)]


def flat(lists: Iterable[list[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(lists))


def global_batches(
    shard_set: ShardSet, world_size: int, num_batches: int | None = None, **options: object
) -> list[list[int]]:
    """What all ranks together see, each batch in the order of the ranks."""
    ranks = [
        rows_of(Loader(shard_set, None, 6 // world_size, rank, world_size, **options), num_batches)
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    return [flat(batches) for batches in zip(*ranks, strict=True)]


# --------------------------------------------------------------------------------- random access


def test_reading_by_row(shard_set: ShardSet, tree: Tree) -> None:
    assert len(shard_set) == NUM_RECORDS
    assert shard_set.fs == 500.0
    assert shard_set.num_samples == NUM_SAMPLES
    assert shard_set.keys == [entry.key for entry in tree.entries]
    rows = [17, 3, 3, 20]
    signal = shard_set.read_ecg(rows)
    assert signal.dtype == np.float32
    expected = np.stack([signal_of(row) / 200 for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(signal, expected)
    assert shard_set.read_ecg([]).shape == (0, 12, NUM_SAMPLES)
    for row in rows:
        assert shard_set.key(row) == f"k{row:03d}"
        meta = shard_set.read_meta(row)
        assert meta["study_id"] == f"s{row}"
        assert shard_set.concept_keys[row] == int(meta["concept_key"][:15], 16)
        assert f"{60 + row}" in str(shard_set.read_caption(row))


def test_missing_samples_become_nan(tmp_path: Path) -> None:
    from shard_tree import entry_of, write_record

    digital = signal_of(0)
    digital[2, 10:20] = -32768
    digital[5, 3] = 32000
    write_record(tmp_path / "rec", digital)
    build(Tree(tmp_path, [entry_of(tmp_path / "rec", 0)]), tmp_path / "out", **ONE_SPLIT)
    signal = ShardSet(tmp_path / "out").read_ecg([0])[0]
    assert np.isnan(signal[2, 10:20]).all()
    assert np.isnan(signal).sum() == 10
    assert signal[5, 3] == np.float32(32.767)


def test_several_folders_follow_each_other(built: Path, bare: Path, tmp_path: Path) -> None:
    both = ShardSet([bare, built])
    assert len(both) == 2 * NUM_RECORDS
    np.testing.assert_array_equal(both.read_ecg([5]), both.read_ecg([5 + NUM_RECORDS]))
    assert both.read_caption(5) is None
    assert both.read_caption(5 + NUM_RECORDS) is not None
    with pytest.raises(ValueError, match="each once"):
        ShardSet([built, built])


def test_folders_that_do_not_fit_together(tree: Tree, built: Path, tmp_path: Path) -> None:
    for name, value in (("fs", 250.0), ("duration", 1.0)):
        out = tmp_path / name
        build(tree, out, **(ONE_SPLIT | {name: value}))
        with pytest.raises(ValueError, match=f"{out} has .* must agree"):
            ShardSet([built, out])


def test_splits(tree: Tree, tmp_path: Path, built: Path) -> None:
    build(tree, tmp_path / "out", **SETTINGS)
    sets = {
        split: set(ShardSet(tmp_path / "out", split).keys) for split in ("train", "val", "test")
    }
    assert sum(map(len, sets.values())) == NUM_RECORDS
    assert set.union(*sets.values()) == set(ShardSet(tmp_path / "out", "all").keys)
    with pytest.raises(ValueError, match="no val records"):
        ShardSet(built, "val")
    with pytest.raises(ValueError, match="'dev'"):
        ShardSet(built, "dev")


def test_unfinished_and_absent_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ShardSet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="--resume"):
        ShardSet(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "other"])
def test_an_index_that_is_lost_is_made_again(
    built: Path, shard_set: ShardSet, tmp_path: Path, damage: str
) -> None:
    out = copy_of(built, tmp_path / "out")
    path = out / "train-000001.idx.npy"
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes((out / "train-000000.idx.npy").read_bytes())
    with pytest.warns(UserWarning, match=r"train-000001\.idx\.npy is absent or damaged"):
        again = ShardSet(out)
    assert again.keys == shard_set.keys
    np.testing.assert_array_equal(again.concept_keys, shard_set.concept_keys)
    np.testing.assert_array_equal(again.read_ecg([7]), shard_set.read_ecg([7]))
    assert again.read_caption(7) == shard_set.read_caption(7)
    assert again.read_meta(7) == shard_set.read_meta(7)


def test_a_lost_or_cut_shard_is_refused(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    path = out / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"train-000002\.tar has \d+ bytes"):
        ShardSet(out)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000002\.tar is missing"):
        ShardSet(out)


def test_few_files_stay_open(
    built: Path, shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esi_fast.data.shard_set.MAX_OPEN_SHARDS", 2)
    few = ShardSet(built)
    rows = [0, 23, 10, 1, 15, 22]
    np.testing.assert_array_equal(few.read_ecg(rows), shard_set.read_ecg(rows))
    assert len(few._open_files) == 2
    few.close()
    assert not few._open_files
    np.testing.assert_array_equal(few.read_ecg([4]), shard_set.read_ecg([4]))


# -------------------------------------------------------------------------------------- captions


def test_overlay(built: Path, bare: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "captions.jsonl"
    lines = [{"key": "k003", "caption": "neu"}, {"key": "of-another-split", "caption": "x"}]
    overlay.write_text("".join(json.dumps(line) + "\n" for line in lines))
    over_baked = ShardSet(built, captions=overlay)
    assert over_baked.read_caption(3) == "neu"
    assert over_baked.read_caption(4) == ShardSet(built).read_caption(4)
    assert len(over_baked.rows_without_caption()) == 0
    over_bare = ShardSet(bare, captions=overlay)
    assert over_bare.read_caption(3) == "neu"
    assert over_bare.read_caption(4) is None
    assert over_bare.rows_without_caption().tolist() == [r for r in range(NUM_RECORDS) if r != 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"key": "k001", "caption": "a"}\n{"key": "k001"}\n', "line 2"),
        ("k001,caption\n", "line 1"),
        ('{"key": "k001", "caption": "a"}\n{"key": "k001", "caption": "b"}\n', "occurs twice"),
        ('{"key": "elsewhere", "caption": "a"}\n', "no caption for any"),
    ],
)
def test_a_wrong_overlay_is_refused(built: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "captions.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        ShardSet(built, captions=tmp_path / "captions.jsonl")


def test_a_sample_without_caption_is_named(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="24 of 24 records have no caption, the first is k000"):
        Loader(ShardSet(bare), tokenize, 4)
    overlay = tmp_path / "captions.jsonl"
    overlay.write_text(
        "".join(f'{{"key": "k{row:03d}", "caption": "c"}}\n' for row in range(24) if row != 9)
    )
    with pytest.raises(ValueError, match=r"1 of 24 .* k009"):
        Loader(ShardSet(bare, captions=overlay), tokenize, 4)


# --------------------------------------------------------------------------------------- batches


def test_a_batch(shard_set: ShardSet) -> None:
    batch = next(iter(Loader(shard_set, tokenize, 4, seed=3)))
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
        mask = batch["attention_mask"][position].bool()
        ids = batch["input_ids"][position][mask]
        assert bytes(ids.tolist()).decode() == shard_set.read_caption(row)
        concept_key = shard_set.read_meta(row)["concept_key"]
        assert batch["concept_key"][position] == int(concept_key[:15], 16)
    assert set(next(iter(Loader(shard_set, None, 4)))) == {"ecg", "concept_key", "row"}


def test_sampled_texts_are_a_part_of_the_caption_and_resume_exactly(shard_set: ShardSet) -> None:
    loader = Loader(shard_set, tokenize, 4, seed=3, sentence_sampling=1.0)
    batches = iter(loader)
    first, second = next(batches), next(batches)
    again = Loader(shard_set, tokenize, 4, seed=3, sentence_sampling=1.0)
    again.load_state_dict(state_at(again, samples=4))
    resumed = next(iter(again))
    assert torch.equal(resumed["text_ids"], second["text_ids"])
    assert torch.equal(resumed["input_ids"], second["input_ids"])
    for position, row in enumerate(first["row"].tolist()):
        ids = first["text_ids"][position][first["text_mask"][position].bool()]
        expected = sample_sentences(
            shard_set.read_caption(row) or "", seed=3, epoch=0, row=row, share=1.0
        )
        assert bytes(ids.tolist()).decode() == expected


def test_world_size_does_not_change_the_global_batches(shard_set: ShardSet) -> None:
    one = global_batches(shard_set, 1, seed=5)
    assert len(one) == 4
    assert sorted(flat(one)) == list(range(NUM_RECORDS))
    assert global_batches(shard_set, 2, seed=5) == one
    assert global_batches(shard_set, 3, seed=5) == one
    assert global_batches(shard_set, 6, seed=5) == one


def test_order_depends_on_seed_and_epoch_only(shard_set: ShardSet) -> None:
    loader = Loader(shard_set, None, 6, seed=1)
    epochs = [rows_of(loader) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    assert all(sorted(flat(epoch)) == list(range(NUM_RECORDS)) for epoch in epochs)
    again = Loader(shard_set, None, 6, seed=1)
    assert [rows_of(again) for _ in range(3)] == epochs
    assert rows_of(Loader(shard_set, None, 6, seed=2)) != epochs[0]
    unshuffled = Loader(shard_set, None, 6, shuffle=False)
    assert flat(rows_of(unshuffled)) == list(range(NUM_RECORDS))
    assert flat(rows_of(unshuffled)) == list(range(NUM_RECORDS))


def test_the_order_stays_what_it_was(shard_set: ShardSet) -> None:
    # A run begun with an earlier version must resume in its own order.
    assert Loader(shard_set, None, 1, seed=7).order(2).tolist() == [
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
    whole = Loader(shard_set, None, 6, seed=4)
    expected = rows_of(whole) + rows_of(whole)
    interrupted = [Loader(shard_set, None, 3, rank, 2, seed=4) for rank in range(2)]
    for loader in interrupted:
        for _ in range(-(-consumed // 4)):
            rows_of(loader, min(4, consumed - 4 * loader.state_dict()["epoch"]))
    states = [json.loads(json.dumps(loader.state_dict())) for loader in interrupted]
    assert states[0] == states[1]
    assert states[0]["epoch"] * NUM_RECORDS + states[0]["samples"] == 6 * consumed
    rest = []
    for rank in range(world_size):
        loader = Loader(shard_set, None, 6 // world_size, rank, world_size, seed=4)
        loader.load_state_dict(states[0])
        rest.append(rows_of(loader) + rows_of(loader))
    joined = [flat(batches) for batches in zip(*rest, strict=True)]
    assert joined[: 8 - consumed] == expected[consumed:]


def test_state_counts_what_was_consumed(shard_set: ShardSet) -> None:
    loader = Loader(shard_set, None, 6, seed=4)
    assert loader.state_dict() == {
        "seed": 4,
        "epoch": 0,
        "samples": 0,
        "data": shard_set.digest,
        "sentence_sampling": 0.0,
    }
    states = []
    for _ in loader:
        time.sleep(0.02)  # long enough for batches to be made ahead
        states.append(loader.state_dict())
    assert [(one["epoch"], one["samples"]) for one in states] == [(0, 6), (0, 12), (0, 18), (1, 0)]


def test_resume_at_another_global_batch_size(shard_set: ShardSet) -> None:
    order = Loader(shard_set, None, 6, seed=4).order(0).tolist()
    loader = Loader(shard_set, None, 10, seed=4)
    loader.load_state_dict(state_at(loader, samples=6))
    assert rows_of(loader) == [order[6:16]]
    loader.load_state_dict(state_at(loader, samples=18))  # 6 left, too few for a batch
    assert rows_of(loader) == [
        loader.order(1).tolist()[start : start + 10] for start in (0, 10)
    ]  # so the next epoch begins


def test_wrong_states_are_refused(shard_set: ShardSet) -> None:
    loader = Loader(shard_set, None, 6)
    with pytest.raises(ValueError, match="no loader state"):
        loader.load_state_dict({"epoch": 1})  # type: ignore[typeddict-item]
    with pytest.raises(ValueError, match="at sample 25 of 24"):
        loader.load_state_dict(state_at(loader, samples=25))


def refusal(loader: Loader, state: LoaderState) -> str:
    before = loader.state_dict()
    with pytest.raises(ValueError, match="the loader state has other") as raised:
        loader.load_state_dict(state)
    assert "\n" not in str(raised.value)
    assert loader.state_dict() == before
    return str(raised.value)


def test_a_state_of_other_options_is_refused(shard_set: ShardSet) -> None:
    state = Loader(shard_set, tokenize, 6, seed=3, sentence_sampling=0.5).state_dict()
    assert "seed: 3, not 4" in refusal(
        Loader(shard_set, tokenize, 6, seed=4, sentence_sampling=0.5), state
    )
    assert "sentence_sampling: 0.5, not 0.25" in refusal(
        Loader(shard_set, tokenize, 6, seed=3, sentence_sampling=0.25), state
    )
    other_world = Loader(shard_set, tokenize, 2, 1, 4, seed=3, sentence_sampling=0.5)
    other_world.load_state_dict(state)
    assert other_world.state_dict() == state


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
        state = Loader(saved_set, None, 6).state_dict()
        for name, shards in saved.items():
            if name == saved_name:
                continue
            message = refusal(Loader(shards, None, 6), state)
            assert "other data (the shards and their order, the split, or the caption" in message
            assert f"{saved_set.digest}, not {shards.digest}" in message
    Loader(ShardSet(moved), None, 6).load_state_dict(
        Loader(saved["one folder"], None, 6).state_dict()
    )


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
        Loader(shard_set, None, 9 // world_size, rank, world_size, drop_last=False)
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
    loader = Loader(shard_set, None, 9)
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
        assert len(rows_of(Loader(shard_set, None, **options))) == 2
    else:
        with pytest.raises(ValueError, match=message):
            Loader(shard_set, None, **options)


# ---------------------------------------------------------------------------------------- thread


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "esi_fast loader"]


def test_leaving_early_ends_the_thread(shard_set: ShardSet) -> None:
    loader = Loader(shard_set, None, 2, seed=8)
    order = loader.order(0).tolist()
    for number, _ in enumerate(loader):
        assert len(loader_threads()) <= 1
        if number == 2:
            break
    assert loader_threads() == []
    assert loader.state_dict()["samples"] == 6
    assert flat(rows_of(loader)) == order[6:]  # goes on, losing nothing that was made ahead


def test_batches_made_ahead_are_bounded(shard_set: ShardSet) -> None:
    calls = []

    def counting(captions: list[str]) -> dict[str, torch.Tensor]:
        calls.append(len(captions))
        return tokenize(captions)

    iterator = iter(Loader(shard_set, counting, 1))
    next(iterator)
    # One handed out, a queue full of others, and one in the thread's hand.
    full = 1 + PREFETCH_BATCHES + 1
    deadline = time.monotonic() + 20
    while len(calls) < full and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # one too many would come now
    assert len(calls) == full
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

    def slow(captions: list[str]) -> dict[str, torch.Tensor]:
        assert asked.acquire(timeout=30)
        now[0] += 1.0
        return tokenize(captions)

    monkeypatch.setattr(loader_module, "time", SimpleNamespace(perf_counter=perf_counter))
    loader = Loader(shard_set, slow, 8)
    assert loader.wait_s == 0
    for num_batches, _ in enumerate(loader, start=1):
        assert loader.wait_s == num_batches
        now[0] += 10.0
    assert loader.wait_s == 3.0


def test_a_damaged_sample_stops_the_run_with_its_place(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    index = np.load(out / "train-000002.idx.npy")
    tar = bytearray((out / "train-000002.tar").read_bytes())
    offset = int(index["ecg_offset"][1])  # row 11
    tar[offset] ^= 0xFF
    (out / "train-000002.tar").write_bytes(tar)
    loader = Loader(ShardSet(out), tokenize, 4, shuffle=False)
    seen = []
    with pytest.raises(ValueError, match=rf"train-000002\.tar: sample k011 at byte {offset} is no"):
        seen += [batch["row"].tolist() for batch in loader]
    assert loader.state_dict()["samples"] == 8
    assert loader_threads() == []


def test_an_error_of_the_tokenizer_is_raised_here(shard_set: ShardSet) -> None:
    def broken(captions: list[str]) -> dict[str, torch.Tensor]:
        raise RuntimeError("no vocabulary")

    with pytest.raises(RuntimeError, match="no vocabulary"):
        next(iter(Loader(shard_set, broken, 4)))
