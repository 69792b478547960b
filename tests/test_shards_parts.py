"""Parts of a build, their merging, and estimates."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from shard_tree import SETTINGS, Tree, build, contents, make_tree, rows_of

from esi_fast.data.estimate import estimate_build
from esi_fast.data.merge import merge_parts
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.shards import Part
from esi_fast.data.verify import verify_shards


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """24 records; one lacks its data, and so do all of the last shards of two splits."""
    tree = make_tree(tmp_path_factory.mktemp("tree"))
    for number in (3, 20, 21, 22, 23):
        tree.entries[number].path.with_suffix(".dat").unlink()
    return tree


@pytest.fixture(scope="module")
def whole(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    build(tree, out, **SETTINGS)
    assert len(rows_of(out / "rejected.csv")) == 5
    return out


def parts_of(tree: Tree, folder: Path, of: int) -> list[Path]:
    folders = []
    for number in range(1, of + 1):
        folders.append(folder / f"part-{number}")
        build(tree, folders[-1], part=Part(number, of), **SETTINGS)
    return folders


@pytest.mark.parametrize("of", [1, 2, 3, 11])  # more than there are shards
def test_merged_parts_are_the_whole(tree: Tree, whole: Path, tmp_path: Path, of: int) -> None:
    parts = parts_of(tree, tmp_path, of)
    before = [contents(part) for part in parts]
    moved: list[int] = []
    merge_parts([*parts[1:], parts[0]], tmp_path / "merged", progress=moved.append)
    assert contents(tmp_path / "merged") == contents(whole)
    assert [contents(part) for part in parts] == before
    assert sum(moved) == sum(path.stat().st_size for path in whole.glob("*.tar"))
    for part in parts:
        assert verify_shards(part) == []


def test_parts_can_be_loaded_without_merging(tree: Tree, whole: Path, tmp_path: Path) -> None:
    parts = parts_of(tree, tmp_path, 2)
    assert sorted(ShardSet(parts, "all").keys) == sorted(ShardSet(whole, "all").keys)


def test_a_part_is_resumed_as_that_part_only(tree: Tree, tmp_path: Path) -> None:
    build(tree, tmp_path / "part", part=Part(1, 2), **SETTINGS)
    before = contents(tmp_path / "part")
    build(tree, tmp_path / "part", part=Part(1, 2), resume=True, **SETTINGS)
    assert contents(tmp_path / "part") == before
    for other in (Part(2, 2), Part(1, 3), None):
        with pytest.raises(FileExistsError, match="part="):
            build(tree, tmp_path / "part", part=other, resume=True, **SETTINGS)
    with pytest.raises(ValueError, match="part is 3/2"):
        Part(3, 2)


def test_a_merge_that_was_cut_short_is_begun_again(
    tree: Tree, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(tree, tmp_path, 2)
    merged = tmp_path / "merged"
    real, calls = Path.replace, [0]

    def failing(self: Path, target: Path) -> Path:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    for _ in range(20):  # one name more each time, until only the csv files and index.json lack
        calls[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", failing)
            with pytest.raises(OSError, match="No space left"):
                merge_parts(parts, merged)
        assert not (merged / "index.json").exists()
    assert {path.name for path in merged.glob("*.tar")} == {
        path.name for path in whole.glob("*.tar")
    }
    merge_parts(parts, merged)
    assert contents(merged) == contents(whole)
    with pytest.raises(FileExistsError, match="not empty"):
        merge_parts(parts, merged)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS])
def test_other_file_systems_get_copies(
    tree: Tree, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def elsewhere(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", elsewhere)
    merge_parts(parts_of(tree, tmp_path, 2), tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(whole)


def test_what_are_not_the_parts_of_one_build_is_refused(
    tree: Tree, whole: Path, tmp_path: Path
) -> None:
    one, two = parts_of(tree, tmp_path, 2)
    out = tmp_path / "merged"
    build(tree, tmp_path / "fs", part=Part(2, 2), **(SETTINGS | {"fs": 250.0}))
    build(tree, tmp_path / "three", part=Part(2, 3), **SETTINGS)
    fewer = Tree(tree.root, tree.entries[:-6])
    build(fewer, tmp_path / "fewer", part=Part(2, 2), **SETTINGS)
    other_order = Tree(tree.root, tree.entries[::-1])  # as many shards, of other records
    build(other_order, tmp_path / "reversed", part=Part(2, 2), **SETTINGS)
    cut = shutil.copytree(two, tmp_path / "cut")
    os.truncate(sorted(cut.glob("*.tar"))[0], 1000)
    for folders, message in (
        ([], "no parts"),
        ([one], r"part\(s\) 2 of 2 are missing"),
        ([one, whole], "is a whole build"),
        ([one, shutil.copytree(one, tmp_path / "copy")], "are both part 1"),
        ([one, tmp_path / "fs"], "settings differ"),
        ([one, tmp_path / "three"], "of 3"),
        ([one, tmp_path / "fewer"], "plan differ"),
        ([one, tmp_path / "reversed"], "plan differ"),
        ([one, tmp_path / "cut"], "is not as it was built: run tools/shard verify"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_parts(folders, out)
        assert not out.exists() or not (out / "index.json").exists()
        shutil.rmtree(out, ignore_errors=True)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        merge_parts([one, tmp_path / "nowhere"], out)
    rows = (two / "records.csv").read_text().splitlines(keepends=True)
    (two / "records.csv").write_text("".join(rows[:-1]))
    with pytest.raises(ValueError, match=r"records\.csv has changed since it was written"):
        merge_parts([one, two], out)


# --------------------------------------------------------------------------------------- estimates


def test_an_estimate_counts_and_tries(tree: Tree, whole: Path) -> None:
    folder = json.loads((whole / "index.json").read_text())
    files = sorted(whole.parent.iterdir())
    estimate = estimate_build(tree, BuildSettings(**SETTINGS), excluded={"p0"}, workers=2)
    assert sum(estimate.records.values()) == 22
    assert estimate.rejected == {"excluded": 2}
    assert (estimate.num_trial, estimate.trial) == (22, {"missing": 5})
    assert estimate.seconds > 0
    written = sum(shard["bytes"] for shard in folder["shards"])
    assert 0.7 * written < estimate.bytes < 1.1 * written
    assert sorted(whole.parent.iterdir()) == files
    parts = [
        estimate_build(tree, BuildSettings(**SETTINGS), part=Part(number, 2)) for number in (1, 2)
    ]
    assert sum(sum(part.records.values()) for part in parts) == 24
    with pytest.raises(ValueError, match="no records"):
        estimate_build(Tree(tree.root, []), BuildSettings(**SETTINGS))
