"""What a run leaves to be watched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esi_fast.training.runlog import Event, RunLog, format_duration

METRICS = {"loss": 3.0, "contrastive": 1.0, "captioning": 2.0, "lr": 1e-3, "logit_scale": 14.0}


def log_steps(folder: Path, steps: range, first: int = 0, peak: float = 0.0) -> list[Event]:
    events: list[Event] = []
    log = RunLog(
        folder, 10, first_step=first, active=True, records=8, peak_flops=peak, monitor=events.extend
    )
    for step in steps:
        log.step(
            step, METRICS, tokens=60.0, places=80.0, flops=1e9, wait_s=0.0, memory_bytes=1 << 30
        )
    log.validation(steps[-1], {"loss": 2.5, "zeroshot_auroc": 0.9}, is_best=True)
    log.close()
    return events


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_has_its_rates_and_a_validation_its_scores(tmp_path: Path) -> None:
    events = log_steps(tmp_path, range(1, 4), peak=1e12)
    metrics = lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    for line in metrics:
        seconds = line["step_ms"] / 1000
        assert line["padding"] == pytest.approx(0.25)
        assert line["tokens_per_s"] == pytest.approx(60 / seconds)
        assert line["samples_per_s"] == pytest.approx(8 / seconds)
        assert line["mfu"] == pytest.approx(1e9 / seconds / 1e12)
        assert line["memory_gib"] == 1.0
    validation = {"step": 3, "loss": 2.5, "zeroshot_auroc": 0.9}
    assert lines(tmp_path / "validation.jsonl") == [validation]
    assert ("train/loss", 3.0, 2) in events
    assert ("validation/zeroshot_auroc", 0.9, 3) in events
    said = (tmp_path / "log.txt").read_text()
    assert "25% padding" in said
    assert "MFU" in said
    assert "validation after step 3: loss 2.500, zeroshot_auroc 0.900 (best so far)" in said


def test_a_device_whose_peak_is_not_known_has_no_mfu(tmp_path: Path) -> None:
    log_steps(tmp_path, range(1, 3))
    assert all("mfu" not in line for line in lines(tmp_path / "metrics.jsonl"))


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path: Path) -> None:
    log_steps(tmp_path, range(1, 7))
    log_steps(tmp_path, range(5, 9), first=4)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [*range(1, 9)]
    assert [line["step"] for line in lines(tmp_path / "validation.jsonl")] == [8]


def test_what_is_done_between_steps_is_not_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 10.0, 100.0, 101.0))
    monkeypatch.setattr("esi_fast.training.runlog.time.perf_counter", lambda: next(clock))
    log = RunLog(tmp_path, 10, first_step=0, active=True, records=8)
    take = {"tokens": 60.0, "places": 80.0, "flops": 1e9, "wait_s": 0.0, "memory_bytes": 0}
    log.step(1, METRICS, **take)
    log.restart_clock()  # after a checkpoint of 90 s
    log.step(2, METRICS, **take)
    log.close()
    assert [line["step_ms"] for line in lines(tmp_path / "metrics.jsonl")] == [10_000, 1000]


def test_durations() -> None:
    assert [format_duration(s) for s in (59.4, 725, 11220)] == ["59s", "12m05s", "3h07m"]
