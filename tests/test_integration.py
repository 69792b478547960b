"""The same commands on real recordings: a short version of the whole way."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from esi_fast.data.shard_set import ShardSet


def call(root: Path, *arguments: object) -> str:
    bin_folder = Path(sys.executable).parent
    settings = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    environment = os.environ | settings | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        cwd=root,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.dist
def test_mimic_like_from_records_to_a_probe(shared_data: Path, root: Path, tmp_path: Path) -> None:
    records = shared_data / "mimic-like"
    call(root, "tools/caption", "--records", records, "--out", tmp_path / "cqa.jsonl")
    shards = tmp_path / "shards"
    fractions = ("--val-fraction", "0.15", "--test-fraction", "0.25")
    baked = ("--cqa", tmp_path / "cqa.jsonl", "--fs", "250")
    call(root, "tools/shard", "--records", records, "--out", shards, *baked, *fractions)
    index = json.loads((shards / "index.json").read_text())
    with (records / "record_list.csv").open() as file:
        studies = {row["study_id"]: row["subject_id"] for row in csv.DictReader(file)}
    with (shards / "rejected.csv").open() as file:
        rejected = list(csv.DictReader(file))
    assert sum(index["counts"][name] for name in ("train", "val", "test")) == len(studies)
    assert not rejected
    seen = {studies[key] for key in ShardSet([shards], "train").keys}
    held_out = {studies[key] for key in ShardSet([shards], "test").keys}
    assert seen
    assert held_out
    assert not seen & held_out

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    call(
        root,
        *("deepspeed", "--num_accelerators", "2", "--master_addr", "127.0.0.1"),
        *("--master_port", port, "tools/pretrain.py", "--recipe", "tools/recipes/demo.toml"),
        *("--data.shards", shards, "--out", tmp_path / "run", "--train.epochs", "0.5"),
    )
    call(root, "tools/export", tmp_path / "run", "--out", tmp_path / "model")
    call(
        root,
        *("tools/evaluate", tmp_path / "model", "--dataset", "shards", "--root", shards),
        *("--task", "probe", "--out", tmp_path / "evaluation", "--resamples", "50", "--seeds", "1"),
    )
    report = (tmp_path / "evaluation" / "report.md").read_text()
    assert "Linear probe" in report
    assert "random-0" in report
