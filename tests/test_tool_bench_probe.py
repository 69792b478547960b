"""tools/bench probe: its table is whole, and what is drawn is as common as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_tool_bench import bench, read_csv

from benchmarks import probe_speed


def test_a_quick_run_gives_the_table(tmp_path: Path) -> None:
    path = tmp_path / "probe.csv"
    done = bench("probe", "--quick", "--csv", path)
    assert done.returncode == 0, done.stderr
    header, rows = read_csv(path)
    assert header["command"].startswith("tools/bench probe --quick --csv ")
    assert "scikit-learn" in header["versions"]
    assert [row["who"] for row in rows] == [
        "esi_fast, the whole grid",
        "scikit-learn, label by label",
        "esi_fast, intervals of one contender",
    ]
    assert all(float(row["wall_s"]) >= 0 for row in rows)
    assert "0 of 128 did not converge" in rows[0]["note"]
    assert "computed from 2 labels" in rows[1]["note"]


def test_labels_are_as_common_as_asked_for_and_can_be_told() -> None:
    drawn = probe_speed.draw(probe_speed.Size(40_000, 16, 5, 1))
    shares = np.geomspace(0.4, 0.002, 5)
    # A planted logit and logistic noise are nearly normal together, but not in the tail.
    np.testing.assert_allclose(drawn.train_labels.mean(axis=0), shares, rtol=0.3)
    assert len(drawn.val) == len(drawn.test) == 4_000
    assert not np.array_equal(drawn.val[:10], drawn.test[:10])
