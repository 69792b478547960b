"""tools/bench search: embeddings that lie as was measured, and figures that are of what they say.

No time is asserted: figures are for the committed CSV.
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from test_tool_bench import read_csv

from benchmarks import search_speed as speed
from benchmarks.search_spread import Drawer, Spread, local_dimension, measure_spread
from esi_fast.cli import UsageError
from esi_fast.search.storage import GRAPH_SETTINGS


def small_spread(num_axes: int = 12, rate: float = 0.5) -> Spread:
    decay = np.exp(-np.arange(num_axes) * rate)
    offset = np.where(np.arange(num_axes) < 3, 0.4, 1e-6)
    shares = np.array([0.5, 0.3, 0.2])
    return Spread(0.02 * decay, 0.3 * decay, 0.2 * decay, offset, 0.05 * decay, shares, np.ones(33))


def _drawn(spread: Spread) -> tuple[np.ndarray, ...]:
    """Records, their clusters, and some of them as texts, as `measure_spread` takes them."""
    blocks = [*Drawer(spread, seed=1).records(20_000, seed=2)]
    vectors = np.concatenate([block for block, _ in blocks])
    clusters = np.concatenate([which for _, which in blocks])
    return vectors, clusters, vectors[:500], np.arange(500)


def test_what_is_drawn_is_spread_as_was_measured() -> None:
    spread = small_spread(24)
    drawer = Drawer(spread, seed=1)
    vectors = _drawn(spread)[0]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    found = measure_spread(*_drawn(spread))
    np.testing.assert_allclose(found.shares, spread.shares, atol=0.02)
    # Unit length takes the direction of its mean away from each cluster: less on the later axes.
    slopes = [np.polyfit(np.arange(12), np.log(one.within[8:20]), 1)[0] for one in (spread, found)]
    assert slopes[1] == pytest.approx(slopes[0], rel=0.1)
    gentle = measure_spread(*_drawn(small_spread(24, rate=0.1)))
    assert np.polyfit(np.arange(12), np.log(gentle.within[8:20]), 1)[0] > 0.5 * slopes[1]
    assert np.linalg.norm(found.text_offset) < 0.02, "records lie around their own means"
    texts = drawer.texts(500, seed=3)
    nearest = [(of @ vectors[500:].T).max(axis=1).mean() for of in (texts, vectors[:500])]
    assert nearest[0] < nearest[1], "texts lie apart"
    twice = [next(drawer.records(10, seed=2))[0] for _ in range(2)]
    np.testing.assert_array_equal(*twice)


def test_more_axes_keep_the_decay_and_the_sum() -> None:
    spread = small_spread()
    wide = spread.widened(48)
    for name in ("within", "between", "text_within"):
        own, found = getattr(spread, name), getattr(wide, name)
        assert found.shape == (48,)
        assert found.sum() == pytest.approx(own.sum())
        np.testing.assert_allclose(found[:12], own, rtol=0.01)
        assert (np.diff(found) < 0).all()
    assert (wide.mean**2).sum() == pytest.approx((spread.mean**2).sum())
    stretched = [
        np.concatenate([block for block, _ in Drawer(one).records(3000, 1)])
        for one in (wide, spread.widened(48, 4))
    ]
    assert local_dimension(stretched[1]) > 1.5 * local_dimension(stretched[0])


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    spread = small_spread()
    spread.save(tmp_path / "x.csv", {"spread of": "nothing"})
    for name, values in dataclasses.asdict(Spread.load(tmp_path / "x.csv")).items():
        np.testing.assert_allclose(values, getattr(spread, name), rtol=1e-5)
    committed = Spread.load()
    assert committed.within.shape == committed.text_offset.shape == (128,)
    assert committed.shares.sum() == pytest.approx(1, abs=1e-3)


def test_the_nearest_of_blocks_are_the_nearest_of_all() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = (rng.standard_normal((n, 8), np.float32) for n in (500, 20))
    nearest = speed.Nearest(queries)
    for first in range(0, 500, 90):
        nearest.add(vectors[first : first + 90], first)
    wanted = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert speed.recall(nearest.rows, wanted) == 1
    assert speed.recall(np.roll(wanted, 1, axis=0), wanted) < 0.5


def test_the_table_is_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(speed, "QUICK", speed.Size(((600, 1), (500, 4)), 5, "float16"))
    tool = runpy.run_path(str(root / "tools/bench"))["main"]
    assert tool(["search", "--quick", "--csv", str(tmp_path / "x.csv")]) == 0
    header, rows = read_csv(tmp_path / "x.csv")
    assert header["command"].startswith("tools/bench search --quick")
    assert {"spread of", "intrinsic dimension", "drawn as"} <= header.keys()
    printed = capsys.readouterr().out
    for records in ("600", "500"):
        told = {(row["quantity"], row["setting"]): row for row in rows if row["records"] == records}
        for kind in ("ECG", "text"):
            for ef in speed.EFS:
                assert float(told[f"a query, {kind}", f"ef {ef}"]["value"]) > 0
                assert 0.8 <= float(told[f"recall@10, {kind}", f"ef {ef}"]["value"]) <= 1
            assert float(told[f"recall@10, {kind}", "exact, of vectors in float16"]["value"]) > 0.9
        size = float(told["on disk", "vectors, float16"]["value"])
        assert size == pytest.approx(int(records) * 1024 / 1e6, abs=0.01)
        assert ("memory after the queries", "resident, own") in told
        assert all(row["value"] in printed for row in told.values())
    assert GRAPH_SETTINGS.ef in speed.EFS, "its verdict is in the table"
    with pytest.raises(UsageError, match="--spread-csv is of --spread"):
        tool(["search", "--spread-csv", str(tmp_path / "y.csv")])


def test_the_verdict_is_on_recall_and_time() -> None:
    setting = f"ef {GRAPH_SETTINGS.ef}"
    for quantity, value, unit, verdict in (
        ("recall@10, ECG", 0.991, "share", "met"),
        ("recall@10, ECG", 0.989, "share", "MISSED"),
        ("a query, ECG", 1.9, "ms", "met"),
        ("a query, ECG", 2.1, "ms", "MISSED"),
    ):
        figure = speed.Figure(800_000, 1, quantity, setting, value, unit)
        assert speed._judged(figure).verdict == verdict
        assert speed._judged(dataclasses.replace(figure, records=100_000)).verdict == ""
        assert speed._judged(dataclasses.replace(figure, setting="ef 1")).verdict == ""
