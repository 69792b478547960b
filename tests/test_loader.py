from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_fakes import (
    NUM_RECORDS,
    ONE_SPLIT,
    bare,
    bare_text,
    built,
    flat,
    global_batches,
    loader_of,
    refusal,
    rows_of,
    shard_set,
    state_at,
    text_of,
    tokens,
    tree,
)
from shard_tree import Tree, build, signal_of

from esi_fast.data import loader as loader_module
from esi_fast.data.augment import sample_sentences
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens

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
