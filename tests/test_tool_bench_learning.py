"""tools/bench learning: that it runs, and (slow) that training learns."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest


def figures(root: Path, tmp_path: Path, *options: str) -> list[dict[str, str]]:
    out = tmp_path / "learning.csv"
    command = [sys.executable, root / "tools" / "bench", "learning", "--csv", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


@pytest.mark.slow
def test_a_quick_run_gives_every_figure(root: Path, tmp_path: Path) -> None:
    rows = figures(root, tmp_path, "--quick")
    assert [row["quantity"].split()[0] for row in rows] == [
        "zero-shot",
        "text",
        "caption",
        "zero-shot",
        "zero-shot",
    ]


@pytest.mark.slow
def test_it_learns(root: Path, tmp_path: Path) -> None:
    """The bars of a model trained on 20,000 simulated ECGs; half an hour on two cores."""
    rows = {row["quantity"]: row for row in reversed(figures(root, tmp_path))}
    (shot, found, words) = (
        rows[name]
        for name in (
            "zero-shot macro AUROC",
            "text to ECG recall@10, equal concept_key a hit",
            "caption token accuracy",
        )
    )
    assert float(shot["low"]) > 0.92
    assert float(found["value"]) > 1.5 * float(found["control"])
    assert float(words["value"]) > float(words["control"]) + 0.03
