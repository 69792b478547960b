from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from shard_tree import contents

from esi_fast.signal.simulate_tree import write_tree

TOOL = Path(__file__).resolve().parent.parent / "tools" / "shard"
NUM_RECORDS = 40


def shard(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def fails(result: subprocess.CompletedProcess[str], status: int) -> str:
    assert result.returncode == status, result.stderr
    assert result.stderr.startswith("tools/shard: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("records") / "tree"
    write_tree(root, NUM_RECORDS, seed=1)
    return root


@pytest.fixture(scope="module")
def built(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    done = shard("--records", records, "--out", out, "--fs", "100", "--samples-per-shard", "8")
    assert done.returncode == 0, done.stderr
    assert "no captions are baked in" in done.stdout
    assert f"wrote    {NUM_RECORDS} records" in done.stdout
    assert "rejected none" in done.stdout
    return out


def test_help_imports_nothing_heavy() -> None:
    for arguments in (["--help"], ["verify", "--help"]):
        command = [sys.executable, "-X", "importtime", str(TOOL), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "usage: tools/shard" in done.stdout
        assert "argparse" in done.stderr
        assert "numpy" not in done.stderr


def test_a_simulated_tree_becomes_shards(built: Path, records: Path) -> None:
    folder = json.loads((built / "index.json").read_text())
    assert folder["fs"] == 100.0
    assert folder["num_samples"] == 1000
    assert folder["settings"]["source"] == "mimic-iv-ecg"
    with (built / "records.csv").open(newline="") as file:
        keys = [row["key"] for row in csv.DictReader(file)]
    with (records / "record_list.csv").open(newline="") as file:
        assert sorted(keys) == sorted(row["study_id"] for row in csv.DictReader(file))
    done = shard("verify", built)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{NUM_RECORDS} records" in done.stdout


def test_verify_names_shard_and_sample(built: Path, tmp_path: Path) -> None:
    tar = next(built.glob("train-*.tar"))
    key = np.load(tar.with_suffix(".idx.npy"))["key"][2].decode()
    offset = int(np.load(tar.with_suffix(".idx.npy"))["ecg_offset"][2]) + 777
    content = bytearray(tar.read_bytes())
    content[offset] ^= 4
    for path in built.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / tar.name).write_bytes(content)
    done = shard("verify", tmp_path)
    assert done.returncode == 1
    assert f"{tar.name}: sample {key} is damaged" in done.stdout


def test_captions_are_baked_in(records: Path, tmp_path: Path) -> None:
    from esi_fast.cqa.caption import CaptionDictionary
    from esi_fast.data.shard_set import ShardSet

    CaptionDictionary.from_statements(["Sinus rhythm"]).save(tmp_path / "cqa.jsonl")
    out = tmp_path / "out"
    done = shard("--records", records, "--out", out, "--fs", "100", "--cqa", tmp_path / "cqa.jsonl")
    assert done.returncode == 0, done.stderr
    assert "baked in" in done.stdout
    shards = ShardSet(out, "all")
    assert len(shards.rows_without_caption()) == 0
    meta, caption = shards.read_meta(0), shards.read_caption(0)
    assert caption
    assert meta["findings"]
    assert meta["statements"]


def test_unknown_patients_are_announced_once(records: Path, tmp_path: Path) -> None:
    announcement = "each record counts as its own patient"
    files = next((records / "files").iterdir())  # the headers without their csv files
    done = shard("--records", files, "--out", tmp_path / "out", "--fs", "100")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count(announcement) == 1
    assert json.loads((tmp_path / "out" / "index.json").read_text())["patients_known"] is False


def test_damaged_rows_are_rejected(records: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(records, tmp_path / "tree")
    text = (tree / "record_list.csv").read_text().splitlines()
    text[2] = "," + text[2].partition(",")[2]
    (tree / "record_list.csv").write_text("\n".join(text) + "\n")
    done = shard("--records", tree, "--out", tmp_path / "out", "--fs", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert "each record counts as its own patient" not in done.stdout
    assert f"wrote    {NUM_RECORDS - 1} records" in done.stdout
    assert "rejected row 1, see rejected.csv" in done.stdout
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["reason"] == "record_list.csv, line 3: subject_id is '', not a number"


def test_usage_errors(records: Path, built: Path, tmp_path: Path) -> None:
    good = ("--records", records, "--out", tmp_path / "new")
    assert "no such folder" in fails(
        shard("--records", tmp_path / "no", "--out", tmp_path / "a"), 2
    )
    assert "not empty" in fails(shard("--records", records, "--out", built), 2)
    assert "no such file" in fails(shard(*good, "--cqa", tmp_path / "no.jsonl"), 2)
    assert "fs is -1.0" in fails(shard(*good, "--fs", "-1"), 2)
    assert "no such folder" in fails(shard("verify", tmp_path / "no"), 2)
    assert shard(*good, "--frequency", "5").returncode == 2
    assert not (tmp_path / "new").exists()


def test_failed_runs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fails(shard("--records", tmp_path / "empty", "--out", tmp_path / "out"), 1)
    assert not (tmp_path / "out" / "index.json").exists()
    assert "--resume" in fails(shard("verify", tmp_path / "empty"), 1)


def test_killed_and_resumed(records: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    # A record a shard: dozens of shards are still to come when the first one is there.
    settings = ("--records", records, "--fs", "100", "--samples-per-shard", "1", "--out")
    process = subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, settings), str(out), "--workers", "1"],
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(out.glob("*.tar")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "index.json").exists()
    assert "fs=100.0" in fails(shard(*settings, out, "--resume", "--fs", "200"), 2)
    for folder, options in ((out, ["--resume"]), (whole, [])):
        done = shard(*settings, folder, *options)
        assert done.returncode == 0, done.stderr
    assert contents(out) == contents(whole)
