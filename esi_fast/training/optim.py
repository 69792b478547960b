"""AdamW and the learning rate of the paper: warm-up, then steps down."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter


def adamw(
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
) -> torch.optim.AdamW:
    """AdamW; biases, norms, GRN's and other one-dimensional parameters are not decayed."""
    trained = [p for _, p in named_parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One pass over the weights, on a GPU as on a CPU.
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


def warmup_then_steps(
    warmup_steps: int, decay_every: int, decay_factor: float
) -> Callable[[int], float]:
    """The factor on the learning rate at a step (ESI, section 4.1).

    Linear from 1/warmup to 1, then multiplied by ``decay_factor`` every ``decay_every`` steps,
    counted from the first step. ``decay_every`` 0 means never.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return decay_factor ** (step // decay_every) if decay_every else 1.0

    return factor
