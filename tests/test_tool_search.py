"""tools/search as a user meets it: building, querying, drawing, and what it refuses."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_search import planted_model
from shard_tree import REPORTS, SETTINGS, Tree, build, make_tree

from esi_fast.cli import UsageError
from esi_fast.cqa.generate import describe_reports
from esi_fast.data.shard_index import SPLITS
from esi_fast.data.shard_set import ShardSet
from esi_fast.search import EcgIndex, embed
from esi_fast.search.records import SEXES

NUM_RECORDS = 16


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def story(root: Path, tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with captions, a tiny model, and their index made by the tool."""
    base = tmp_path_factory.mktemp("story")
    captions = describe_reports([[line] for report in REPORTS for line in report])
    build(tree, base / "shards", captions=captions, **SETTINGS)
    planted_model().save_pretrained(base / "model")
    assert tool(root, "build", base / "model", base / "shards", "--out", base / "index") == 0
    return base


def tool(root: Path, *arguments: object) -> int:
    """The tool's main, without the seconds that a new process takes to import everything."""
    status: int = runpy.run_path(str(root / "tools/search"))["main"]([*map(str, arguments)])
    return status


def test_the_tool_finds_what_the_index_finds(
    root: Path, story: Path, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    index = EcgIndex.load(story / "index")
    assert index.identity.path == str((story / "model").resolve())
    captions = dict(texts_of(story))
    record = tree.entries[3].path
    for arguments, hits in (
        (("atrial fibrillation", "-k", 5), index.query_text("atrial fibrillation", 5)),
        (("--record", record, "-k", 3), index.query_ecg(str(record), 3)),
        (("--key", "k003"), index.query_key("k003")),
    ):
        assert tool(root, "query", story / "index", *arguments) == 0
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert lines == [[hit.key, f"{hit.score:.4f}", captions[hit.key]] for hit in hits]
        assert tool(root, "query", story / "index", *arguments, "--json") == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(one["key"], one["caption"]) for one in told] == [
            (hit.key, hit.caption) for hit in hits
        ]


def texts_of(story: Path) -> list[tuple[str, str]]:
    everything = ShardSet(story / "shards", "all")
    return [(key, everything.read_caption(row) or "") for row, key in enumerate(everything.keys)]


@pytest.mark.parametrize(
    ("flags", "passes"),
    [
        (("--age", "45-50"), lambda one: 45 <= one["age"] <= 50),
        (("--age", "52-"), lambda one: one["age"] >= 52),
        (("--age=-41",), lambda one: one["age"] <= 41),
        (("--sex", "female"), lambda one: one["sex"] == "female"),
        (("--split", "train"), lambda one: one["split"] == "train"),
        (("--statement", "atrial fibrillation", "--statement", "left axis"),
         lambda one: "Left axis deviation" in one["statements"]),
        (("--statement", "bundle", "--age", "46-"),
         lambda one: "Left bundle branch block" in one["statements"] and one["age"] >= 46),
    ],
)  # fmt: skip
def test_filters(
    flags: tuple[str, ...], passes: Any, root: Path, story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(root, "query", story / "index", "x", "--json", "-k", 99) == 0
    everyone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(everyone) == NUM_RECORDS
    assert tool(root, "query", story / "index", "x", "--json", "-k", 99, *flags) == 0
    found = [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()]
    assert found == [one["key"] for one in everyone if passes(one)]
    assert 0 < len(found) < NUM_RECORDS


def test_pages_are_drawn(
    root: Path, story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = tmp_path / "deep" / "pages"
    query = ("query", story / "index", "--key", "k004", "-k", 2)
    assert tool(root, *query, "--plot", pages) == 0
    said = capsys.readouterr()
    keys = [line.split("\t")[0] for line in said.out.splitlines()]
    wanted = [f"01-{keys[0]}.png", f"02-{keys[1]}.png"]
    assert sorted(path.name for path in pages.iterdir()) == wanted
    assert said.err.split() == [str(pages / name) for name in wanted]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pages.iterdir())
    moved = shutil.copytree(story / "index", tmp_path / "index")
    shutil.copytree(story / "shards", tmp_path / "shards")
    index = EcgIndex.load(moved)
    hits = index.query_key("k004", 1)
    one = next(index.recordings(hits, [tmp_path / "shards"]))
    assert (one.signal == next(index.recordings(hits)).signal).all()


def test_a_filter_that_nobody_passes_is_no_error(
    root: Path, story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(root, "query", story / "index", "--key", "k003", "--age", "110-") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no record passes the filter\n")


def test_a_killed_build_goes_on(
    root: Path, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(embed, "PART_SIZE", 4)
    command = ("build", story / "model", story / "shards", "--out", tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr("esi_fast.search.build.write_records", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tool(root, *command)
    with pytest.raises(FileExistsError, match="go on with --resume"):
        tool(root, *command)
    assert tool(root, *command, "--resume") == 0
    assert f"{tmp_path / 'index'}: {NUM_RECORDS} ECGs by" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    for name in ("vectors.npy", "records.jsonl", "columns.npz", "terms.json"):
        assert (tmp_path / "index" / name).read_bytes() == (story / "index" / name).read_bytes()
    assert tool(root, *command, "--resume") == 0, "a finished one is checked"


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_usage_is_refused(root: Path, story: Path, tmp_path: Path) -> None:
    index, file = story / "index", tmp_path / "file"
    file.touch()
    build = ("build", story / "model", story / "shards")
    for arguments, message in (
        (("query", index), "give one of TEXT, --record PATH and --key KEY"),
        (("query", index, "x", "--key", "k001"), "give one of"),
        (("query", index, "  "), "TEXT is blank"),
        (("query", index, "x", "-k", 0), "-k is 0"),
        (("query", index, "x", "--age", "forty"), "--age is 'forty'"),
        (("query", index, "x", "--age", "-"), "--age is '-'"),
        (("query", index, "x", "--age", "60-40"), "must not be above"),
        (("query", index, "x", "--plot", file), "is a file"),
        (("query", index, "x", "--shards", tmp_path), "--shards is for --plot"),
        ((*build, "--out", index), "exists"),
        ((*build, "--out", tmp_path / "new", "--batch-size", 0), "--batch-size is 0"),
        ((*build, "--out", tmp_path / "new", "--threads", -1), "--threads is -1"),
        (("build", story / "model", tmp_path, "--out", tmp_path / "new"), "no finished shard"),
    ):
        with pytest.raises(UsageError, match=message):
            tool(root, *arguments)
    assert [*tmp_path.iterdir()] == [file]


def test_failures_are_one_line(root: Path, story: Path, tmp_path: Path) -> None:
    planted_model(1).save_pretrained(tmp_path / "other")
    np.save(tmp_path / "ecg.npy", np.ones((2, 1000), np.float32))
    for arguments, message in (
        ((tmp_path, "x"), "holds no index of ECGs"),
        ((story / "index", "x", "--model", tmp_path / "other"), "cannot be compared with those of"),
        ((story / "index", "--key", "k999"), "no record 'k999'"),
        ((story / "index", "--record", tmp_path / "absent"), "absent"),
        ((story / "index", "x", "--statement", "unicorn"), "unicorn"),
        ((story / "index", "--record", tmp_path / "ecg.npy"), "does not say its rate"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            tool(root, "query", *arguments)
    done = subprocess.run(
        [sys.executable, root / "tools/search", "query", tmp_path, "x"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("tools/search: error: ")


@pytest.mark.parametrize("command", [(), ("build",), ("query",)])
def test_help_loads_nothing_heavy(root: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", root / "tools/search", *command, "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "usage: tools/search" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "esi_fast.cli" in loaded
    assert not {"torch", "numpy", "matplotlib", "hnswlib", "transformers"} & loaded


def test_the_tool_knows_what_the_package_knows(root: Path) -> None:
    """The tool repeats the names, so that --help need not load the package."""
    names = runpy.run_path(str(root / "tools/search"))
    assert (names["SPLITS"], names["SEXES"]) == (SPLITS, SEXES)


def test_a_record_may_need_its_rate_leads_and_unit(
    root: Path, story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "ecg.csv"
    rows = ["1000,0", "500,250"] * 300
    table.write_text("\n".join(rows))
    flags = ("--fs", 500, "--leads", "V1, V2", "--unit", "uV", "-k", 1, "--json")
    tool(root, "query", story / "index", "--record", table, *flags)
    found = json.loads(capsys.readouterr().out)
    index = EcgIndex.load(story / "index")
    signal = np.array([row.split(",") for row in rows], np.float64).T / 1000
    (wanted,) = index.query_ecg(signal, 1, fs=500, leads=["V1", "V2"])
    assert (found["key"], found["score"]) == (wanted.key, pytest.approx(wanted.score))
    with pytest.raises(UsageError, match="are of --record"):
        tool(root, "query", story / "index", "text", "--fs", 500)
