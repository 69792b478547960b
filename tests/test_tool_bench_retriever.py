"""tools/bench retriever: what it writes, and that its figures are of what they say.

No time is asserted: ratios are for the committed CSV.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_tool_bench import bench, read_csv

from benchmarks import retriever_speed as speed


@pytest.fixture(scope="module")
def quick(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[subprocess.CompletedProcess[str], Path]:
    path = tmp_path_factory.mktemp("bench") / "retriever.csv"
    return bench("retriever", "--quick", "--csv", path), path


def test_the_table_is_whole(quick: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, path = quick
    assert done.returncode == 0, done.stderr
    header, rows = read_csv(path)
    assert header["command"].startswith("tools/bench retriever --quick --csv ")
    assert "faiss-cpu" in header["versions"]
    assert [(int(row["size"]), row["method"], int(row["batch"])) for row in rows] == [
        (n, method, batch)
        for n in speed.QUICK.num_vectors
        for method in speed.METHODS
        for batch in (1, 32)
    ]
    for row in rows:
        assert float(row["recall_at_10"]) >= 0.99
        assert float(row["queries_per_core_s"]) > 0
        assert float(row["mb"]) >= int(row["size"]) * 384 * 4 / 1e6 - 0.1
        assert (row["ratio_to_numpy"] == "1.00") or row["method"] != speed.NUMPY
        assert row["queries_per_core_s"] in done.stdout


def test_queries_are_no_vectors_of_the_index() -> None:
    vectors, queries = speed.clustered(500, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    similar = queries @ vectors.T
    assert similar.max() < 0.95
    assert (similar.max(axis=1) > 0.6).all(), "each is near a cluster"
    wanted = np.argsort(-similar.astype(float), axis=1)[:, :10]
    assert speed.recall(speed.nearest(vectors, queries), wanted) == 1
    assert speed.recall(np.roll(wanted, 1, axis=0), wanted) < 0.5


def test_an_exact_search_that_is_none_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(vectors: speed.Vectors) -> tuple[speed.Search, float]:
        search, size = speed.with_numpy(vectors)
        return lambda queries: search(queries[::-1]), size

    monkeypatch.setitem(speed.METHODS, speed.NUMPY, blind)
    with pytest.raises(ValueError, match="numpy exact at 500: recall 0"):
        speed.measure(speed.Size((500,), 32, 1))


def test_the_verdict_is_on_speed_and_recall() -> None:
    for ratio, recall, verdict in ((41, 0.995, "met"), (39, 1, "MISSED"), (41, 0.98, "MISSED")):
        row = speed.Figure(100_000, 1, speed.HNSW, recall, 1, 1, 32, [1.0], [ratio])
        assert [line.split()[-1] for line in speed.verdicts([row])] == [verdict]
    assert speed.verdicts([speed.Figure(1000, 1, speed.HNSW, 1, 1, 1, 32, [1.0], [9.0])]) == []
