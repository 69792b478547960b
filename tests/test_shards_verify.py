from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from shard_tree import (
    SETTINGS,
    Tree,
    build,
    contents,
    make_tree,
)

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.shard_index import build_index, read_index_file, sealed
from esi_fast.data.verify import repair_indices, verify_shards


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def captions() -> CaptionDictionary:
    return CaptionDictionary([])


@pytest.fixture(scope="module")
def built(
    tree: Tree, captions: CaptionDictionary, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    build(tree, out, captions=captions, **SETTINGS)
    return out


# ------------------------------------------------------------------------------------ verification


def test_verify_finds_nothing_in_sound_shards(built: Path) -> None:
    checked: list[int] = []
    assert verify_shards(built, checked.append) == []
    assert sum(checked) == sum(path.stat().st_size for path in built.glob("*.tar"))


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name, content in contents(folder).items():
        (to / name).write_bytes(content)
    return to


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_verify_names_the_sample_of_any_flipped_byte(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    tar = sorted(out.glob("train-*.tar"))[1]
    index = np.load(tar.with_suffix(".idx.npy"))
    starts = [*(index["ecg_offset"] - 512), tar.stat().st_size - 1024]
    random = np.random.default_rng(0)
    for offset in [0, 124, 150, *random.integers(0, starts[-1], 40)]:
        flip(tar, int(offset))
        problems = verify_shards(out)
        position = int(np.searchsorted(starts, offset, side="right")) - 1
        key = index["key"][position].decode()
        assert any(tar.name in one and f"sample {key} is damaged" in one for one in problems), (
            offset
        )
        others = {one.decode() for one in index["key"]} - {key}
        assert not any(f"sample {other} is damaged" in one for other in others for one in problems)
        flip(tar, int(offset))
    assert verify_shards(out) == []


def test_verify_finds_damage_outside_the_samples(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    tar = sorted(out.glob("*.tar"))[0]
    index = tar.with_suffix(".idx.npy")
    for path, offset in (
        (tar, tar.stat().st_size - 1),
        (index, 200),
        (out / "records.csv", 40),
        (out / "rejected.csv", 3),
    ):
        flip(path, offset)
        assert any(path.name in one for one in verify_shards(out)), path.name
        flip(path, offset)
    content = index.read_bytes()
    index.unlink()
    assert verify_shards(out) == [f"{index.name}: is absent or damaged"]
    index.write_bytes(content)
    (out / "train-000099.tar").write_bytes(b"")
    assert verify_shards(out) == ["train-000099.tar: is not in index.json"]
    (out / "train-000099.tar").unlink()
    tar.unlink()
    assert verify_shards(out) == [f"{tar.name}: is absent"]


def test_verify_sees_an_index_that_describes_another_tar(built: Path, tmp_path: Path) -> None:
    import hashlib

    out = copy_of(built, tmp_path / "out")
    folder = json.loads((out / "index.json").read_text())
    shard = folder["shards"][0]
    rows = np.load(out / shard["index"])
    rows["json_size"][0] += 1
    np.save(out / shard["index"], rows)
    shard["index_sha256"] = hashlib.sha256((out / shard["index"]).read_bytes()).hexdigest()
    (out / "index.json").write_bytes(sealed(folder))
    assert read_index_file(out / shard["index"], shard["index_sha256"]) is not None
    assert verify_shards(out) == [f"{shard['index']}: does not describe {shard['name']}"]


def test_verify_refuses_what_is_no_finished_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        verify_shards(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="--resume"):
        verify_shards(tmp_path)
    for content in ('{"format": "something else"}', "[]", "3"):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(ValueError, match="build it again"):
            verify_shards(tmp_path)


def test_lost_and_damaged_indices_are_repaired(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    before = contents(out)
    first, second, third, *_ = sorted(out.glob("*.idx.npy"))
    first.unlink()
    flip(second, 200)
    assert repair_indices(out) == [first.name, second.name]
    assert contents(out) == before
    assert repair_indices(out) == []
    # Not from a tar that is damaged itself.
    third.unlink()
    tar = out / third.name.replace(".idx.npy", ".tar")
    flip(tar, 5000)
    first.unlink()
    with pytest.raises(ValueError, match=f"without an index: {tar.name}; repaired: {first.name}$"):
        repair_indices(out)
    assert not third.exists()
    assert first.exists()


def test_no_flipped_byte_of_index_json_passes(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    sound = (out / "index.json").read_bytes()
    for place in range(0, len(sound), 7):
        flipped = bytearray(sound)
        flipped[place] ^= 1
        (out / "index.json").write_bytes(flipped)
        with pytest.raises(ValueError, match=r"index\.json"):
            verify_shards(out)


def test_keys_that_occur_twice_are_found(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path / "out")
    folder = json.loads((out / "index.json").read_text())
    train = [shard for shard in folder["shards"] if shard["split"] == "train"]
    again = train[0] | {"name": "train-000099.tar", "index": "train-000099.idx.npy"}
    for field in ("name", "index"):
        shutil.copy(out / train[0][field], out / again[field])
    folder["shards"].append(again)
    folder["counts"]["train"] += again["records"]
    (out / "index.json").write_bytes(sealed(folder))
    assert [line for line in verify_shards(out) if "occur more than once" in line]


def test_build_index_names_the_damaged_byte(built: Path, tmp_path: Path) -> None:
    tar = sorted(built.glob("*.tar"))[0]
    content = tar.read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:-2000])
    with pytest.raises(ValueError, match=r"cut\.tar: (k\d+\.\w+ at byte \d+ is cut off|ends at)"):
        build_index(tmp_path / "cut.tar")
    (tmp_path / "header.tar").write_bytes(b"\xff" + content[1:])
    with pytest.raises(ValueError, match=r"header\.tar: damaged tar header at byte 0"):
        build_index(tmp_path / "header.tar")
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.tar: is empty"):
        build_index(tmp_path / "empty.tar")
