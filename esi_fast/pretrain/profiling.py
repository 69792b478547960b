"""``--profile FIRST:LAST``: some steps under torch's profiler, as a trace and a table."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

_ROWS = 25


class Profile:
    """Profiles steps ``first`` to ``last`` of rank 0 into the run folder; (0, 0) profiles none."""

    def __init__(self, run: Path, first: int, last: int, *, active: bool) -> None:
        self._run, self._first, self._last = run, first, last
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities) if active and first else None

    def before(self, step: int) -> None:
        """A step is about to be taken."""
        if self._profile is not None and step == self._first:
            self._profile.start()

    def after(self, step: int) -> None:
        """A step has been taken; after the last one the trace and the table are written."""
        if self._profile is None or step != self._last:
            return
        self._profile.stop()
        stem = self._run / f"profile-{self._first}-{self._last}"
        self._profile.export_chrome_trace(f"{stem}.json")
        on_gpu = torch.cuda.is_available()
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        table = self._profile.key_averages().table(sort_by=order, row_limit=_ROWS)
        Path(f"{stem}.txt").write_text(table + "\n")
        self._profile = None
