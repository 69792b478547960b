"""Results of every kind with known strengths, for the tests of what is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from esi_fast.evaluation.cache import write_context, write_result
from esi_fast.evaluation.results import LabelResult, PairResult, QueryResult
from esi_fast.evaluation.summary import TaskResult

STRENGTHS: Mapping[str, float] = {"model": 2.0, "random-0": 0.5}


def label_result(task: str = "probe", n: int = 90, strengths: Mapping[str, float] = STRENGTHS):
    """Four labels: two common, one with five positives, one with none."""
    rng = np.random.default_rng(1)
    labels = rng.random((n, 4)) < 0.4
    labels[:, 2:] = False
    labels[:5, 2] = True
    logits = {c: rng.normal(size=(n, 4)) + s * labels for c, s in strengths.items()}
    scores = {c: 1 / (1 + np.exp(-x)) if c == "model" else x for c, x in logits.items()}
    scores["model"][:, 3] = np.nan
    return LabelResult(
        task, "test",
        ("atrial_fibrillation", "sinus_rhythm", "low|voltage", "never_seen"),
        ("atrial fibrillation", "sinus rhythm", "low|voltage", "never seen"),
        np.array([f"r{i:03d}" for i in range(n)]), np.array([f"p{i // 2:03d}" for i in range(n)]),
        labels, scores, frozenset(["model"]), {"never_seen": "no training record"},
        {"score": "made up", "prompts": {"a": ["x", "y"]}}, {"r999": "torn <file>"},
    )  # fmt: skip


def query_result() -> QueryResult:
    rng = np.random.default_rng(2)
    outcomes = {
        c: {"rank-1": (rng.random(40) < s / 3).astype(float), "median rank": rng.random(40) * 9}
        for c, s in STRENGTHS.items()
    }
    outcomes["model"]["rank-1"][3] = np.nan
    keys, groups = np.arange(40).astype(str), (np.arange(40) // 2).astype(str)
    medians = frozenset(["median rank"])
    return QueryResult("identify", "test", keys, groups, outcomes, medians, {"gallery": 40})


def pair_result() -> PairResult:
    rng = np.random.default_rng(3)
    groups = np.stack([x.ravel() for x in np.meshgrid(range(12), range(12))], axis=1).astype(str)
    same = groups[:, 0] == groups[:, 1]
    scores = {c: rng.normal(size=144) + s * same for c, s in STRENGTHS.items()}
    return PairResult("verify", "test", groups, same, scores)


def write_evaluation(out: Path, *results: TaskResult, resamples: int = 40) -> None:
    """A folder as the tool leaves it before the reports are made."""
    out.mkdir(parents=True, exist_ok=True)
    for result in results:
        write_result(out, result)
    write_context(
        out,
        {
            "model": {"path": "models/demo", "config": {"fs": 100.0}},
            "contenders": {"model": "models/demo", "random-0": "random weights, seed 0"},
            "dataset": {
                "name": "planted", "root": "data", "labels": "concepts",
                "splits": {"test": {"records": 90, "patients": 45}},
            },
            "settings": {"resamples": resamples, "seed": 0, "min_positives": 6},
            "tasks": [result.task for result in results],
            "notes": ["A note on <protocol>."],
            "versions": {"torch": "2"},
        },
    )  # fmt: skip
