"""What is watched while a run goes on: tokens, memory, the rate of work, and who is told."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from esi_fast.training.distributed import all_sum
from esi_fast.training.runlog import Event, StepWork

if TYPE_CHECKING:
    from esi_fast.config import Invocation
    from esi_fast.models.esi import ESI


class Totals:
    """Caption tokens and their places since the last look; nothing waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums = torch.zeros(2, device=device)

    def add(self, attention_mask_BN: Tensor) -> None:
        """A batch of captions."""
        self._sums[0] += attention_mask_BN.sum()
        self._sums[1] += attention_mask_BN.numel()

    def take(self) -> tuple[float, float]:
        """Real tokens and places of all ranks, and begin anew."""
        tokens, places = all_sum(self._sums).tolist()
        self._sums.zero_()
        return tokens, places

    def memory_bytes(self) -> int:
        """The most that was held so far: of the GPU, or of this process."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def monitor(config: dict[str, Any]) -> Callable[[list[Event]], object]:
    """What takes events to TensorBoard, W&B and the others that DeepSpeed knows, on rank 0."""
    from deepspeed.monitor.config import get_monitor_config
    from deepspeed.monitor.monitor import MonitorMaster

    write: Callable[[list[Event]], object] = MonitorMaster(get_monitor_config(config)).write_events
    return write


def work_of(invocation: Invocation, model: ESI, world_size: int, device: torch.device) -> StepWork:
    """What a step does over all ranks."""
    return StepWork(world_size * invocation.data.batch_size)
