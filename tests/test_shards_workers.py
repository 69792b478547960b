"""Builds by several processes, and what becomes of them when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shard_tree import SETTINGS, Tree, build, contents, make_tree

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data import workers
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shards import write_shards


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def built(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    build(tree, out, captions=CaptionDictionary([]), **SETTINGS)
    return out


def children() -> set[int]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return {int(pid) for pid in path.read_text().split()}


@pytest.mark.dist
@pytest.mark.parametrize("num_workers", [2, 3])
def test_processes_give_the_same_bytes_and_end(
    tree: Tree, built: Path, tmp_path: Path, num_workers: int
) -> None:
    before = children()
    done: list[int] = []
    write_shards(
        tree,
        tmp_path / "out",
        BuildSettings(**SETTINGS),
        captions=CaptionDictionary([]),
        workers=num_workers,
        progress=done.append,
    )
    assert contents(tmp_path / "out") == contents(built)
    assert sum(done) == 24
    assert children() == before


@pytest.mark.dist
def test_a_killed_worker_is_one_line_and_resume_goes_on(
    tree: Tree, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    submit, calls = workers.Workers.submit, [0]

    def killing(self: workers.Workers, job: workers.ShardJob) -> object:
        calls[0] += 1
        if calls[0] == 4:
            for process in self._processes:
                process.kill()
                process.wait()
        return submit(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(workers.Workers, "submit", killing)
        with pytest.raises(OSError, match=r"a worker process ended .*SIGKILL.*--resume") as raised:
            build(tree, out, captions=CaptionDictionary([]), workers=2, **SETTINGS)
    assert "\n" not in str(raised.value)
    assert not (out / "index.json").exists()
    build(tree, out, captions=CaptionDictionary([]), workers=2, resume=True, **SETTINGS)
    assert contents(out) == contents(built)


@pytest.mark.dist
def test_an_error_in_a_worker_is_raised_here(tree: Tree, tmp_path: Path) -> None:
    gone = make_tree(tmp_path / "tree", 12)
    gone.root.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="vanished"):
        build(gone, tmp_path / "out", workers=2, **SETTINGS)
    assert not [path for path in (tmp_path / "out").iterdir() if "-0" in path.name]


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from shard_tree import SETTINGS, build, make_tree
print("begun", flush=True)
build(make_tree(Path({root!r}), 24), Path({out!r}), workers=2, **(SETTINGS | {{"fs": 499.0}}))
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.dist
def test_workers_end_with_a_parent_that_is_killed_and_need_no_main_guard(tmp_path: Path) -> None:
    text = PROGRAM.format(
        tests=str(Path(__file__).parent), root=str(tmp_path / "t"), out=str(tmp_path / "out")
    )
    process = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    found: set[int] = set()
    deadline = time.monotonic() + 60
    while len(found) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it was looked at"
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found = {int(pid) for pid in listed}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(found) == 2
    while any(map(is_alive, found)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, found))
