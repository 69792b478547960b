"""``--profile FIRST:LAST``: some steps under torch's profiler, as a trace and a table."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from esi_fast.cli import UsageError

_ROWS = 25


class Profile:
    """Profiles steps ``first`` to ``last`` of rank 0 into the run folder; (0, 0) profiles none.

    Of a run that starts or ends between them, the steps that it takes.

    Args:
        run: the run folder.
        first, last: steps, counted from 1.
        done: steps done already, where a run goes on.
        total_steps: of the run.
        active: whether this is rank 0.

    Raises:
        UsageError: the run takes none of the steps.
    """

    def __init__(
        self, run: Path, first: int, last: int, *, done: int, total_steps: int, active: bool
    ) -> None:
        if first and (last <= done or first > total_steps):
            raise UsageError(
                f"--profile {first}:{last} is none of the steps to come: {done} of {total_steps} "
                "are done"
            )
        self._run, self._first, self._last = run, max(first, done + 1), last
        self._latest = done
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
        self._latest = step
        if step == self._last:
            self.close()

    def close(self) -> None:
        """Write what was profiled, if it is not written yet."""
        if self._profile is None or self._latest < self._first:
            return
        self._profile.stop()
        stem = self._run / f"profile-{self._first}-{self._latest}"
        self._profile.export_chrome_trace(f"{stem}.json")
        on_gpu = torch.cuda.is_available()
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        table = self._profile.key_averages().table(sort_by=order, row_limit=_ROWS)
        Path(f"{stem}.txt").write_text(table + "\n")
        self._profile = None
