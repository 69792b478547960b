from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_fakes import (
    NUM_RECORDS,
    ONE_SPLIT,
    ByteTokenizer,
    copy_of,
)
from shard_tree import NUM_SAMPLES, SETTINGS, Tree, build, make_tree, signal_of

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.shard_index import sealed
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
    with pytest.warns(UserWarning, match="captions of 1 of 24 records: the others keep theirs"):
        over_baked = ShardSet(built, captions=overlay)
    assert over_baked.read_caption(3) == "neu"
    assert over_baked.read_caption(4) == ShardSet(built).read_caption(4)
    assert len(over_baked.rows_without_caption()) == 0
    with pytest.warns(UserWarning, match="captions of 1 of 24 records"):
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
        ('{"key": "k001", "caption": " \\n"}\n', "line 1: the caption of k001 is no text"),
        ('{"key": "k001", "caption": "\\ud800"}\n', "line 1: the caption of k001 is no text"),
    ],
)
def test_a_wrong_overlay_is_refused(built: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "captions.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        ShardSet(built, captions=tmp_path / "captions.jsonl")


def test_what_does_not_fit_the_array_is_refused(built: Path) -> None:
    shards = ShardSet(built)
    out = np.empty((1, 12, shards.num_samples), np.float32)
    with pytest.raises(ValueError, match=r"out must be \(1, 12, T\), not \(1, 13, 1000\)"):
        shards.read_batch([0], np.empty((1, 13, 1000), np.float32))
    with pytest.raises(ValueError, match="rows must be integers"):
        shards.read_batch(np.array([0.5]), out)  # type: ignore[arg-type]
    shifted = np.frombuffer(bytearray(out.nbytes + 1), np.float32, offset=1).reshape(out.shape)
    with pytest.raises(ValueError, match="aligned"):
        shards.read_batch([0], shifted)
    for start in (-1, 1, 2**63 - 1):
        with pytest.raises(ValueError, match="a crop lies outside its record"):
            shards.read_batch([0], out, starts=np.array([start]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: folder.pop("fs"), "fields are missing"),
        (lambda folder: folder.update(shards=[1]), "fields are missing"),
        (lambda folder: folder["shards"][0].pop("bytes"), "fields are missing"),
        (lambda folder: folder["shards"].append(folder["shards"][0]), "lists a shard twice"),
    ],
)
def test_a_damaged_index_json_is_named(
    built: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    out = shutil.copytree(built, tmp_path / "out")
    folder = json.loads((out / "index.json").read_text())
    change(folder)
    (out / "index.json").write_bytes(sealed(folder))
    with pytest.raises(ValueError, match=rf"index\.json is damaged: .*{message}"):
        ShardSet(out)
