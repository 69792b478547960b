"""What a run leaves behind to be watched: metrics, log.txt and one console line.

``metrics.jsonl`` has a line for each logged step, ``validation.jsonl`` one for each validation.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
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


METRICS, VALIDATION = "metrics.jsonl", "validation.jsonl"
# (name, value, step), for TensorBoard and others.
Event = tuple[str, float, int]


class RunLog:
    """The log of rank 0; on the others it does nothing.

    Args:
        folder: the run folder.
        total_steps: for the ETA.
        first_step: the step that a resumed run starts from; later lines of an earlier attempt are
            dropped, because they will be made again.
        active: whether this is rank 0.
        records: of a step, over all ranks.
        peak_flops: what all devices together could do in a second; 0 where that is not known.
        monitor: is given every metric as an event too; None gives it to nobody.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        *,
        first_step: int,
        active: bool,
        records: int,
        peak_flops: float = 0.0,
        monitor: Callable[[list[Event]], object] | None = None,
    ) -> None:
        self.total_steps = total_steps
        self.active = active
        self._records, self._peak_flops, self._monitor = records, peak_flops, monitor
        self._first_step = first_step
        self._timed_from: tuple[int, float] | None = None
        self._last = (first_step, time.perf_counter(), 0.0)
        self._files: dict[str, TextIO] = {}
        if active:
            for name in (METRICS, VALIDATION):
                _drop_after(folder / name, first_step)
            for name in (METRICS, VALIDATION, "log.txt"):
                self._files[name] = (folder / name).open("a", buffering=1)

    def say(self, message: str) -> None:
        """A line on the console and in ``log.txt``."""
        if self.active:
            sys.stderr.write(message + "\n")
            self._files["log.txt"].write(message + "\n")

    def step(
        self,
        step: int,
        metrics: Mapping[str, float],
        *,
        tokens: float,
        places: float,
        flops: float,
        wait_s: float,
        memory_bytes: int,
    ) -> None:
        """Record the metrics of ``step`` (counted from 1) and print the line.

        Args:
            step: steps done.
            metrics: ``loss`` and its parts, ``lr``, ...: numbers only.
            tokens: of captions since the last call, over all ranks.
            places: of tokens, padding included.
            flops: floating-point operations since the last call, over all ranks.
            wait_s: seconds this rank has waited for data since the run began.
            memory_bytes: the most that this rank has held so far.
        """
        if not self.active:
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
            "samples_per_s": self._records / seconds_per_step,
            "tokens_per_s": tokens / elapsed,
            "padding": 1 - tokens / max(places, 1),
            "data_wait": min(1.0, (wait_s - last_wait) / elapsed),
            "memory_gib": memory_bytes / 2**30,
        }
        if self._peak_flops:
            record["mfu"] = flops / elapsed / self._peak_flops
        self._write(METRICS, {**record, "time": time.time()}, "train")
        eta = (self.total_steps - step) * self._seconds_per_step(step, now, seconds_per_step)
        mfu = f"MFU {record['mfu']:.0%} | " if "mfu" in record else ""
        self.say(
            f"step {step}/{self.total_steps} {step / self.total_steps:.0%} | "
            f"loss {metrics['loss']:.3f} "
            f"(con {metrics['contrastive']:.3f} cap {metrics['captioning']:.3f}) | "
            f"lr {metrics['lr']:.1e} | {record['step_ms']:.0f} ms | "
            f"{record['samples_per_s']:.0f} ECG/s | {record['tokens_per_s']:.0f} tok/s, "
            f"{record['padding']:.0%} padding | {mfu}data wait {record['data_wait']:.0%} | "
            f"{record['memory_gib']:.1f} GiB | eta {format_duration(eta)}"
        )

    def validation(self, step: int, metrics: Mapping[str, float], *, is_best: bool) -> None:
        """Record what the validation after ``step`` gave, and print it."""
        if self.active:
            self._write(VALIDATION, {"step": step, **metrics}, "validation")
            shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            self.say(f"validation after step {step}: {shown}{' (best so far)' if is_best else ''}")

    def restart_clock(self) -> None:
        """What was done since the last step, a validation or a checkpoint, is not the steps' time.

        The ETA counts it, as it will be done again.
        """
        last_step, _, last_wait = self._last
        self._last = (last_step, time.perf_counter(), last_wait)

    def _seconds_per_step(self, step: int, now: float, latest: float) -> float:
        """Over all steps but the first ones, of which nothing can be concluded."""
        if self._timed_from is None and step - self._first_step >= UNTIMED_STEPS:
            self._timed_from = (step, now)
        if self._timed_from is None or step == self._timed_from[0]:
            return latest
        return (now - self._timed_from[1]) / (step - self._timed_from[0])

    def _write(self, name: str, record: Mapping[str, float], group: str) -> None:
        self._files[name].write(json.dumps(record) + "\n")
        if self._monitor is not None:
            step = int(record["step"])
            skipped = ("step", "time")
            self._monitor(
                [(f"{group}/{key}", record[key], step) for key in record if key not in skipped]
            )

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def _drop_after(path: Path, step: int) -> None:
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept))
