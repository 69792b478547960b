"""The curves of a training run and the forest plot must show their data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from esi_fast.plot import plot_forest, plot_training


def training_lines() -> list[dict[str, float]]:
    return [
        {"step": s, "loss": 5.0 / s, "contrastive": 3.0 / s, "captioning": 2.0 / s, "lr": 1e-3 * s}
        for s in range(1, 6)
    ]


def test_training_curves_are_the_logged_values(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in training_lines()))
    axes = plot_training(path).axes
    curves = {line.get_label(): np.array(line.get_data()) for line in axes[0].lines}
    assert set(curves) == {"total", "contrastive", "captioning"}
    assert curves["contrastive"].tolist() == [[1, 2, 3, 4, 5], [3 / s for s in range(1, 6)]]
    assert np.array(axes[1].lines[0].get_data())[1] == pytest.approx(
        [1e-3 * s for s in range(1, 6)]
    )


def test_a_step_repeated_after_resuming_counts_once():
    lines = [*training_lines(), {"step": 4, "loss": 9.0}]
    x, y = plot_training(lines).axes[0].lines[0].get_data()
    assert list(x) == [1, 2, 3, 4, 5]
    assert y[3] == 9.0


def test_unusable_training_metrics_are_refused(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        plot_training(path)
    with pytest.raises(ValueError, match="no line"):
        plot_training([])
    with pytest.raises(ValueError, match="no 'step'"):
        plot_training([{"loss": 1.0}])
    with pytest.raises(FileNotFoundError):
        plot_training(tmp_path / "absent.jsonl")


def test_the_forest_plot_puts_every_estimate_in_its_row():
    values = np.array([[0.9, 0.8, 0.95], [np.nan] * 3, [0.6, 0.5, 0.7]])
    figure = plot_forest(["a", "b", "c"], {"trained": values})
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b", "c"]
    x, y = ax.lines[0].get_data()
    assert np.array(x)[[0, 2]].tolist() == [0.9, 0.6]
    assert list(y) == [0.0, 1.0, 2.0]
    segments = ax.collections[0].get_segments()
    assert segments[0].tolist() == [[0.8, 0.0], [0.95, 0.0]]
    with pytest.raises(ValueError, match=r"not \(2, 3\)"):
        plot_forest(["a", "b"], {"trained": values})
