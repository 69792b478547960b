"""tools/bench measure: a quick run gives both tables, whole."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from benchmarks.ludb_marks import MARK_NAMES


def rows_of(path: Path) -> list[dict[str, str]]:
    lines = path.read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_a_quick_run_gives_both_tables(shared_data: Path, root: Path, tmp_path: Path) -> None:
    speed, accuracy = tmp_path / "speed.csv", tmp_path / "accuracy.csv"
    arguments = ["--quick", "--ludb", shared_data / "ludb", "--csv", speed]
    done = subprocess.run(
        [
            sys.executable,
            root / "tools" / "bench",
            "measure",
            *arguments,
            "--accuracy-csv",
            accuracy,
        ],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "compiling took" in done.stdout
    rows = rows_of(speed)
    assert [row["rival"] for row in rows] == [
        "neurokit2 dwt", "neurokit2 prominence", "wfdb xqrs", "without, and measure_records",
    ]  # fmt: skip
    for row in rows:
        assert float(row["ours_us_per_record"]) > 0
        assert float(row["rival_us_per_record"]) > 0
    marks = {(row["method"], row["mark"]): row for row in rows_of(accuracy)}
    assert {mark for method, mark in marks if method == "esi_fast"} == set(MARK_NAMES)
    assert {mark for method, mark in marks if method == "neurokit2 dwt"} == set(MARK_NAMES)
    assert ("wfdb xqrs", "r_peak") in marks
    assert all(int(row["num_annotated"]) > 0 for row in marks.values())
