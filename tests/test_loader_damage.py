from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_fakes import (
    NUM_RECORDS,
    ByteTokenizer,
    built,
    copy_of,
    flat,
    loader_of,
    loader_threads,
    refusal,
    rows_of,
    shard_set,
    state_at,
    tokens,
    tree,
)
from shard_tree import signal_of

from esi_fast.data.loader import LoaderOptions
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens

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
