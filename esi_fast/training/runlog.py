"""What a run leaves behind to be watched: ``metrics.jsonl``, ``log.txt`` and one console line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

# The first steps compile, fill caches and start threads: they say nothing about the speed.
UNTIMED_STEPS = 5


def format_duration(seconds: float) -> str:
    """``59s``, ``12m05s``, ``3h07m``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes}m{seconds:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


class RunLog:
    """The log of rank 0; on the others it does nothing.

    Args:
        folder: the run folder.
        total_steps: for the ETA.
        first_step: the step that a resumed run starts from; later lines of an earlier attempt are
            dropped from ``metrics.jsonl``, because they will be made again.
        active: whether this is rank 0.
    """

    def __init__(self, folder: Path, total_steps: int, *, first_step: int, active: bool) -> None:
        self.total_steps = total_steps
        self.active = active
        self._first_step = first_step
        self._timed_from: tuple[int, float] | None = None
        self._last = (first_step, time.perf_counter(), 0.0)
        self._metrics: TextIO | None = None
        self._log: TextIO | None = None
        if active:
            metrics = folder / "metrics.jsonl"
            _drop_after(metrics, first_step)
            self._metrics = metrics.open("a", buffering=1)
            self._log = (folder / "log.txt").open("a", buffering=1)

    def say(self, message: str) -> None:
        """A line on the console and in ``log.txt``."""
        if self._log is not None:
            sys.stderr.write(message + "\n")
            self._log.write(message + "\n")

    def step(
        self, step: int, metrics: Mapping[str, float], *, num_samples: int, wait_s: float
    ) -> None:
        """Record the metrics of ``step`` (counted from 1) and print the line.

        Args:
            step: steps done.
            metrics: ``loss`` and its parts, ``lr``, ...: numbers only.
            num_samples: records in a step, over all ranks.
            wait_s: seconds this rank has waited for data since the run began.
        """
        if self._metrics is None:
            return
        now = time.perf_counter()
        last_step, last_time, last_wait = self._last
        self._last = (step, now, wait_s)
        elapsed = max(now - last_time, 1e-9)
        seconds_per_step = elapsed / max(step - last_step, 1)
        record = {
            "step": step,
            **metrics,
            "step_ms": 1000 * seconds_per_step,
            "samples_per_s": num_samples / seconds_per_step,
            "data_wait": min(1.0, (wait_s - last_wait) / elapsed),
            "time": time.time(),
        }
        self._metrics.write(json.dumps(record) + "\n")
        if self._timed_from is None and step - self._first_step >= UNTIMED_STEPS:
            self._timed_from = (step, now)
        left = self.total_steps - step
        eta = left * seconds_per_step
        if self._timed_from is not None and step > self._timed_from[0]:
            eta = left * (now - self._timed_from[1]) / (step - self._timed_from[0])
        self.say(
            f"step {step}/{self.total_steps} {step / self.total_steps:.0%} | "
            f"loss {metrics['loss']:.3f} "
            f"(con {metrics['contrastive']:.3f} cap {metrics['captioning']:.3f}) | "
            f"lr {metrics['lr']:.1e} | {record['step_ms']:.0f} ms | "
            f"{record['samples_per_s']:.0f} ECG/s | data wait {record['data_wait']:.0%} | "
            f"eta {format_duration(eta)}"
        )

    def close(self) -> None:
        """Close the files."""
        for file in (self._metrics, self._log):
            if file is not None:
                file.close()


def _drop_after(metrics: Path, step: int) -> None:
    if metrics.exists():
        lines = metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        metrics.write_text("".join(kept))
