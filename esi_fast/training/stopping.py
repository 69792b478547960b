"""Ends of a run that lose nothing: on SIGTERM, and at a loss that is no number."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from esi_fast.training.distributed import all_sum, rank, union_over_ranks, world_size

NONFINITE = "nonfinite.json"


class StopRequest:
    """SIGTERM, as schedulers send it before they take a machine away, as a question at each step.

    Whichever rank is told, all of them stop after the same step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asked = False
        self._before: Tensor | None = None
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self._asked = True

    def agreed(self) -> bool:
        """Whether to stop after this step; every rank asks once a step and gets the same answer."""
        if world_size() == 1:
            return self._asked
        # The answer is the one of a step ago: reading this step's would wait for the device.
        asked = torch.full((), float(self._asked), device=self._device)
        before, self._before = self._before, all_sum(asked)
        return before is not None and bool(before)


class FiniteWatch:
    """Remembers the batches since the last look, so that a loss that is no number has a name.

    Losses stay where they are until the look: no step waits for its own loss.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, Tensor, Tensor]] = []

    def note(self, step: int, loss: Tensor, row_B: Tensor) -> None:
        """A step's loss, ``()``, and the rows of this rank's batch."""
        self._steps.append((step, loss.detach(), row_B))

    def look(self, run: Path, name_of: Callable[[int], str]) -> None:
        """Forget the steps if all their losses were finite on all ranks.

        Raises:
            ValueError: one was not. Step and batch are in ``RUN/nonfinite.json``.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = torch.stack([loss.float() for _, loss, _ in steps]).tolist()
        bad = [place for place, loss in enumerate(losses) if not math.isfinite(loss)]
        first = _smallest(bad[0] if bad else len(steps), steps[0][1].device)
        if first == len(steps):
            return
        step, _, row_B = steps[first]
        names = [name_of(row) for row in row_B.tolist()]
        said = union_over_ranks({str(rank()): json.dumps([losses[first], names])})
        if rank() == 0:
            _write(run / NONFINITE, step, said)
        raise ValueError(
            f"the loss is {losses[first]} at step {step} (the records of its batch are in "
            f"{run / NONFINITE}); no checkpoint was made since: lower --optim.lr and resume from "
            "the one before, or look at these records"
        )


def _smallest(value: int, device: torch.device) -> int:
    if world_size() == 1:
        return value
    all_values = torch.tensor(value, device=device)
    dist.all_reduce(all_values, op=dist.ReduceOp.MIN)
    return int(all_values)


def _write(path: Path, step: int, said: dict[str, str]) -> None:
    ranks = {name: json.loads(text) for name, text in sorted(said.items())}
    content: dict[str, Any] = {"step": step}
    content["losses"] = {name: str(loss) for name, (loss, _) in ranks.items()}
    content["records"] = {name: names for name, (_, names) in ranks.items()}
    path.write_text(json.dumps(content, indent=2) + "\n")
