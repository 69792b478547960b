"""What is watched while a run goes on: tokens, memory, the rate of work, and who is told."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from esi_fast.pretrain.estimate import PEAK_FLOPS_PER_S
from esi_fast.pretrain.flops import flops_per_step
from esi_fast.pretrain.sizes import Sizes
from esi_fast.training.distributed import all_sum
from esi_fast.training.runlog import Event

# Dense bf16 operations a second, by a part of the device's name: NVIDIA's data sheets.
_PEAK_FLOPS = {
    "H200": PEAK_FLOPS_PER_S,
    "H100 80GB HBM3": PEAK_FLOPS_PER_S,
    "A100": 312e12,
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What all ranks did since the last look: caption tokens, their places, and operations."""

    tokens: float
    places: float
    flops: float


class Totals:
    """Tokens since the last look; nothing waits for the device until then.

    Args:
        device: where the masks are.
        sizes: of the model, for its operations.
        records: of a step over all ranks.
    """

    def __init__(self, device: torch.device, sizes: Sizes, records: int) -> None:
        self._device, self._sizes, self._records = device, sizes, records
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)
        self._steps = 0

    def add(self, attention_mask_BN: Tensor, text_mask_BN: Tensor) -> None:
        """The captions and contrastive texts of a step."""
        self._sums[0] += attention_mask_BN.sum()
        self._sums[1] += attention_mask_BN.numel()
        self._sums[2] += text_mask_BN.sum()
        self._steps += 1

    def take(self) -> Taken:
        """What was done, and begin anew."""
        tokens, places, text_tokens = all_sum(self._sums).tolist()
        flops = flops_per_step(self._sizes, self._steps * self._records, tokens, text_tokens)
        self._sums.zero_()
        self._steps = 0
        return Taken(tokens, places, flops)

    def memory_bytes(self) -> int:
        """The most that was held so far: of the GPU, or of this process."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_flops(device: torch.device, world_size: int) -> float:
    """What all devices together can do in a second, in bf16; 0 for those not known here."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return world_size * next((peak for part, peak in _PEAK_FLOPS.items() if part in name), 0.0)


def monitor(config: dict[str, Any]) -> Callable[[list[Event]], object]:
    """What takes events to TensorBoard, W&B and the others that DeepSpeed knows, on rank 0."""
    from deepspeed.monitor.config import get_monitor_config
    from deepspeed.monitor.monitor import MonitorMaster

    write: Callable[[list[Event]], object] = MonitorMaster(get_monitor_config(config)).write_events
    return write
