from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from shard_tree import (
    SETTINGS,
    Tree,
    build,
    contents,
    make_tree,
)

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data import settings as settings_module
from esi_fast.data.journal import JOURNAL_FILE, Journal
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shard_writer import ShardWriter
from esi_fast.data.shards import write_shards


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


# ------------------------------------------------------------------- same bytes, whatever happens


def test_workers_do_not_change_the_bytes(
    tree: Tree, captions: CaptionDictionary, built: Path, tmp_path: Path
) -> None:
    build(tree, tmp_path / "out", captions=captions, **(SETTINGS | {"workers": 2}))
    assert contents(tmp_path / "out") == contents(built)


def test_a_moved_tree_gives_the_same_bytes(
    captions: CaptionDictionary, built: Path, tmp_path: Path
) -> None:
    moved = make_tree(tmp_path / "tree")
    build(moved, tmp_path / "out", captions=captions, **SETTINGS)
    assert contents(tmp_path / "out") == contents(built)


def at_step(stop_at: int, action: Callable[[], None], patch: pytest.MonkeyPatch) -> list[int]:
    """Do ``action`` at the ``stop_at``-th step that changes what is on disk; counts the steps."""
    steps = [0]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            steps[0] += 1
            if steps[0] == stop_at:
                action()
            return function(*args, **options)

        return step

    patch.setattr(os, "fsync", counted(os.fsync))
    patch.setattr(Path, "replace", counted(Path.replace))
    patch.setattr(Path, "unlink", counted(Path.unlink))
    patch.setattr(ShardWriter, "add", counted(ShardWriter.add))
    return steps


def count_steps(tree: Tree, captions: CaptionDictionary, out: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        steps = at_step(-1, lambda: None, patch)
        build(tree, out, captions=captions, **SETTINGS)
    return steps[0]


def killed_at(step: int, tree: Tree, captions: CaptionDictionary, out: Path, resume: bool) -> None:
    """Build in a child process that kills itself at a step."""
    child = os.fork()
    if child == 0:
        at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL), pytest.MonkeyPatch())
        build(tree, out, captions=captions, resume=resume, **SETTINGS)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_killed_at_any_step_and_resumed(
    tree: Tree, captions: CaptionDictionary, built: Path, tmp_path: Path
) -> None:
    num_steps = count_steps(tree, captions, tmp_path / "whole")
    assert num_steps > 60
    # Every step of the ending, and every fourth before it.
    for step in [*range(1, num_steps - 14, 4), *range(num_steps - 14, num_steps + 1)]:
        out = tmp_path / f"killed-{step}"
        killed_at(step, tree, captions, out, resume=False)
        if (out / "index.json").exists():  # only the journal was still to be dropped
            assert step > num_steps - 5
        else:
            with pytest.raises(FileExistsError, match="--resume"):
                build(tree, out, captions=captions, **SETTINGS)
        build(tree, out, captions=captions, resume=True, **SETTINGS)
        assert contents(out) == contents(built), f"step {step} of {num_steps}"


def test_killed_again_and_again(
    tree: Tree, captions: CaptionDictionary, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for attempt in range(4):
        killed_at(14, tree, captions, out, resume=attempt > 0)
        assert not (out / "index.json").exists()
    summary = build(tree, out, captions=captions, resume=True, **SETTINGS)
    assert 1 <= summary.resumed < summary.shards
    assert sum(summary.records.values()) == 24
    assert contents(out) == contents(built)


def test_a_full_disk_keeps_what_is_finished(
    tree: Tree, captions: CaptionDictionary, built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        at_step(40, full, patch)
        with pytest.raises(OSError, match="No space left on device"):
            build(tree, out, captions=captions, **SETTINGS)
    assert list(out.glob("*.tar"))
    assert not (out / "index.json").exists()
    build(tree, out, captions=captions, resume=True, **SETTINGS)
    assert contents(out) == contents(built)


def unfinished(tree: Tree, captions: CaptionDictionary, out: Path) -> Path:
    killed_at(40, tree, captions, out, resume=False)
    assert len(list(out.glob("*.tar"))) >= 2
    return out


def test_resume_makes_a_lost_or_short_shard_again(
    tree: Tree, captions: CaptionDictionary, built: Path, tmp_path: Path
) -> None:
    out = unfinished(tree, captions, tmp_path / "out")
    with sorted(out.glob("*.tar"))[0].open("r+b") as file:
        file.truncate(700)
    build(tree, out, captions=captions, resume=True, **SETTINGS)
    assert contents(out) == contents(built)


def test_resume_of_a_finished_folder_changes_nothing(
    tree: Tree, captions: CaptionDictionary, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = build(tree, out, captions=captions, **SETTINGS)
    before = contents(out)
    again = build(tree, out, captions=captions, resume=True, **SETTINGS)
    assert contents(out) == before
    assert again.records == first.records
    assert again.resumed == first.shards


@pytest.mark.parametrize(
    ("setting", "value"),
    [("fs", 250.0), ("samples_per_shard", 6), ("val_fraction", 0.2), ("measure", True)],
)
def test_resume_with_other_settings_is_refused(
    tree: Tree, captions: CaptionDictionary, tmp_path: Path, setting: str, value: float
) -> None:
    out = unfinished(tree, captions, tmp_path / "out")
    with pytest.raises(FileExistsError, match=f"{setting}="):
        build(tree, out, captions=captions, resume=True, **(SETTINGS | {setting: value}))
    with pytest.raises(FileExistsError, match="captions="):
        build(tree, out, resume=True, **SETTINGS)


def test_resume_of_a_changed_catalogue_is_refused(
    tree: Tree, captions: CaptionDictionary, tmp_path: Path
) -> None:
    out = unfinished(tree, captions, tmp_path / "out")
    changed = Tree(tree.root, [replace(tree.entries[0], age=1.0), *tree.entries[1:]])
    with pytest.raises(ValueError, match="catalogue has changed"):
        build(changed, out, captions=captions, resume=True, **SETTINGS)
    with pytest.raises(ValueError, match="catalogue has changed"):
        build(Tree(tree.root, tree.entries[:2]), out, captions=captions, resume=True, **SETTINGS)


@pytest.mark.parametrize(
    "line",
    ["{}", "[1]", "3", "null", "no json", '{"name": "train-000000.tar", "records": 5}', "several"],
)
def test_a_damaged_journal_is_one_line(
    tree: Tree, captions: CaptionDictionary, tmp_path: Path, line: str
) -> None:
    out = unfinished(tree, captions, tmp_path / "out")
    journal = out / JOURNAL_FILE
    settings, shard, *_ = journal.read_text().splitlines()
    damaged = [line]
    if line == "several":  # a whole record of which one field is of another type
        whole = json.loads(shard)
        changes = dict.fromkeys(whole) | {"csv_bytes": [1, "2"], "records": "5"}
        damaged = [json.dumps(whole | {name: value}) for name, value in changes.items()]
    for text in damaged:
        for lines in ((settings, text), (settings, shard, text), (text, shard)):
            journal.write_text("".join(f"{one}\n" for one in lines))
            with pytest.raises(ValueError, match=r"is damaged: remove .* build again") as raised:
                build(tree, out, captions=captions, resume=True, **SETTINGS)
            assert "\n" not in str(raised.value)


def test_two_builds_do_not_write_one_folder(tree: Tree, tmp_path: Path) -> None:
    columns = (("a",), ("b",))
    with (
        Journal(tmp_path, {}, columns, resume=False),
        pytest.raises(FileExistsError, match="another process"),
    ):
        build(tree, tmp_path, resume=True, **SETTINGS)


def test_other_folders_are_not_written_into(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for resume in (False, True):
        with pytest.raises(FileExistsError):
            build(tree, tmp_path, resume=resume, **SETTINGS)
    with pytest.raises(FileExistsError, match="is a file"):
        build(tree, tmp_path / "thesis.txt", **SETTINGS)
    assert contents(tmp_path) == {"thesis.txt": b"precious"}


def test_another_version_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its readings of reports and its measurements may be others."""
    tree = make_tree(tmp_path / "tree", 2)
    build(tree, tmp_path / "out", **SETTINGS)
    monkeypatch.setattr(settings_module, "__version__", "99")
    with pytest.raises(FileExistsError, match=r"was begun with esi_fast=.*, not 99"):
        build(tree, tmp_path / "out", resume=True, **SETTINGS)


def test_a_catalogue_that_has_shrunk_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    settings = SETTINGS | {"val_fraction": 0.0, "test_fraction": 0.0}
    out = tmp_path / "out"

    def stop(num_records: int) -> None:
        raise KeyboardInterrupt

    done = iter(range(3))
    with pytest.raises(KeyboardInterrupt):
        write_shards(
            tree, out, BuildSettings(**settings), workers=1,
            progress=lambda n: stop(n) if next(done, None) is None else None,
        )  # fmt: skip
    fewer = Tree(tree.root, tree.entries[:5])
    with pytest.raises(ValueError, match=r"the catalogue has changed: [23] shards were written"):
        build(fewer, out, resume=True, **settings)
    build(tree, out, resume=True, **settings)
    with pytest.raises(ValueError, match=r"the catalogue has changed since .* was built"):
        build(fewer, out, resume=True, **settings)
    later = replace(tree.entries[1], ecg_time="2150-01-01 00:00:00")
    other = Tree(tree.root, [tree.entries[0], later, *tree.entries[2:]])
    with pytest.raises(ValueError, match=r"the catalogue has changed since .* was built"):
        build(other, out, resume=True, **settings)
    assert build(tree, out, resume=True, **settings).resumed == 5
    (out / "train-000002.tar").unlink()
    with pytest.raises(ValueError, match=r"train-000002\.tar or its index is not as it was built"):
        build(tree, out, resume=True, **settings)
