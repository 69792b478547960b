"""The demo itself: the whole of it when there is time, its refusals always."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.dist
def test_the_demo_shows_that_the_model_learned(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # a second run replaces the first
        done = subprocess.run([root / "tools/demo", "--out", out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    zero_shot = json.loads((out / "evaluation/report.json").read_text())["tasks"]["zeroshot"]
    macro = {name: one["macro"]["auroc"] for name, one in zero_shot["contenders"].items()}
    assert macro["model"]["value"] >= 0.80
    assert 0.35 <= macro["random-0"]["value"] <= 0.65
    assert zero_shot["control"]["auroc"]["low"] <= 0.5 <= zero_shot["control"]["auroc"]["high"]
    assert len(zero_shot["labels"]) == 15
    report = (out / "report" / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 3


def test_the_demo_never_replaces_what_it_did_not_make(root: Path, tmp_path: Path) -> None:
    keep = tmp_path / "precious"
    keep.write_text("x")
    done = subprocess.run([root / "tools/demo", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no earlier demo" in done.stderr
    assert keep.read_text() == "x"
    done = subprocess.run([root / "tools/demo", "--nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown argument --nonsense" in done.stderr
