"""tools/embed as a user meets it: folders in, one file out, killed runs, and what it refuses."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_search import planted_model
from shard_tree import NUM_SAMPLES, SETTINGS, Tree, build, make_tree, signal_of

from esi_fast.cli import UsageError
from esi_fast.models.esi import ESI
from esi_fast.search import embed

NUM_RECORDS = 14


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def story(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("story")
    build(tree, base / "shards", **SETTINGS)
    planted_model().save_pretrained(base / "model")
    return base


def tool(root: Path, *arguments: object) -> int:
    status: int = runpy.run_path(str(root / "tools/embed"))["main"]([*map(str, arguments)])
    return status


def by_hand(story: Path, number: int) -> np.ndarray:
    """The model's embedding of a record's millivolts."""
    signal = torch.from_numpy(signal_of(number)[:, :NUM_SAMPLES] / np.float32(200))
    embedding: np.ndarray = ESI.from_pretrained(story / "model").encode_ecg(signal[None])[0].numpy()
    return embedding


def number_of(key: str) -> int:
    return int("".join(filter(str.isdigit, key.split("--")[-1])))


@pytest.mark.parametrize("kind", ["records", "shards"])
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_folder_becomes_one_file(
    suffix: str, kind: str, root: Path, story: Path, tree: Tree, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / f"x{suffix}"
    folder = story / "shards" if kind == "shards" else tree.root
    assert tool(root, story / "model", folder, "--out", out, "--dtype", "float32") == 0
    said = f"{out}: {NUM_RECORDS} embeddings of 12 dimensions, float32\n"
    assert capsys.readouterr().out == said
    names = ["x.npy", "x.npy.keys.csv"] if suffix == ".npy" else ["x.parquet"]
    rejected = f"x{suffix}.rejected.csv"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, rejected])
    assert (tmp_path / rejected).read_text() == "key,reason\n"
    if suffix == ".npy":
        vectors = np.load(out)
        with (tmp_path / names[1]).open(newline="") as file:
            keys = [row["key"] for row in csv.DictReader(file)]
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        keys, vectors = table["key"].to_pylist(), np.array(table["embedding"].to_pylist())
    assert sorted(map(number_of, keys)) == list(range(NUM_RECORDS))
    for key in keys[:3]:
        wanted = by_hand(story, number_of(key))
        np.testing.assert_allclose(vectors[keys.index(key)], wanted, atol=1e-5)


def test_unreadable_records_are_listed(
    root: Path, story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree(tmp_path / "tree", 6)
    victim = Path(tree.entries[2].path).with_suffix(".dat")
    victim.write_bytes(victim.read_bytes()[:-9])
    out = tmp_path / "x.npy"
    assert tool(root, story / "model", tree.root, "--out", out) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 5 embeddings")
    assert said.err.splitlines()[-1] == f"1 records have no embedding: see {out}.rejected.csv"
    with (tmp_path / "x.npy.rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert number_of(row["key"]) == 2
    assert "rec2.dat" in row["reason"]


def test_a_killed_run_goes_on(
    root: Path, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "PART_SIZE", 4)
    out, batches = tmp_path / "x.npy", list[int]()
    arguments = (story / "model", story / "shards", "--out", out, "--batch-size", 2)
    encode = ESI.encode_ecg

    def count(self: ESI, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        if sum(batches) == 10:
            batches.append(1)
            raise KeyboardInterrupt
        batches.append(len(ecg_BLT))
        return encode(self, ecg_BLT, normalize)

    monkeypatch.setattr(ESI, "encode_ecg", count)
    with pytest.raises(KeyboardInterrupt):
        tool(root, *arguments)
    assert not out.exists()
    with pytest.raises(FileExistsError, match="go on with --resume"):
        tool(root, *arguments)
    num_before = sum(batches)
    assert tool(root, *arguments, "--resume") == 0
    assert sum(batches) - num_before == NUM_RECORDS - 8
    monkeypatch.undo()
    assert tool(root, *arguments[:3], tmp_path / "whole.npy") == 0
    np.testing.assert_allclose(np.load(out), np.load(tmp_path / "whole.npy"), atol=1e-6)
    keys = [(tmp_path / f"{name}.npy.keys.csv").read_text() for name in ("x", "whole")]
    assert keys[0] == keys[1]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_usage_is_refused(root: Path, story: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npy").touch()
    model, shards = story / "model", story / "shards"
    for arguments, message in (
        ((model, shards, "--out", tmp_path / "x.csv"), r"must end in \.parquet or \.npy"),
        ((model, shards, "--out", tmp_path / "x.npy"), "exists"),
        ((model, shards, "--out", tmp_path / "no" / "x.npy"), "does not exist"),
        ((model, tmp_path / "no", "--out", tmp_path / "y.npy"), "is no folder"),
        ((model, shards, "--out", tmp_path / "y.npy", "--batch-size", 0), "--batch-size is 0"),
    ):
        with pytest.raises(UsageError, match=message):
            tool(root, *arguments)
    with pytest.raises(ValueError, match="device 'gpu' cannot be used"):
        tool(root, model, shards, "--out", tmp_path / "y.npy", "--device", "gpu")
    with pytest.raises(FileNotFoundError, match="not an exported model"):
        tool(root, shards, shards, "--out", tmp_path / "y.npy")


def test_parquet_without_its_package(
    root: Path, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        assert name == "pyarrow"

    monkeypatch.setattr("importlib.util.find_spec", absent)
    with pytest.raises(UsageError, match=r"esi-fast\[io\]', or give --out FILE\.npy"):
        tool(root, story / "model", story / "shards", "--out", tmp_path / "x.parquet")


def test_help_and_errors_of_the_process(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", root / "tools/embed", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "usage: tools/embed" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "esi_fast.cli" in loaded
    assert not {"torch", "numpy", "pyarrow", "transformers"} & loaded
    done = subprocess.run(
        [sys.executable, root / "tools/embed", "m", tmp_path / "no", "--out", tmp_path / "x.npy"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
