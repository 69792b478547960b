"""Checkpoints of a run: DeepSpeed's own folders, and which of them is whole.

A checkpoint is ``RUN/checkpoints/step-NNNNNNNN``. ``RUN/checkpoints/latest`` names the last one
that every rank finished; a crash while saving leaves it pointing at the one before.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from esi_fast.training.distributed import rank, wait_for_all

FOLDER = "checkpoints"
LATEST = "latest"


def save(engine: Any, run: Path, step: int, client_state: dict[str, Any], *, keep: int) -> None:
    """Save on every rank; then, on rank 0, point ``latest`` at it and remove all but ``keep``."""
    folder = run / FOLDER
    tag = f"step-{step:08d}"
    engine.save_checkpoint(str(folder), tag=tag, client_state=client_state, save_latest=False)
    wait_for_all()
    if rank() == 0:
        partial = folder / f".{LATEST}"
        with partial.open("w") as file:
            file.write(tag)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / LATEST)
        whole = sorted(path for path in folder.glob("step-*") if path.name <= tag)
        for old in whole[:-keep]:
            shutil.rmtree(old)


def resolve(run: Path, which: str) -> str:
    """The tag of a checkpoint of ``run``: ``"latest"`` or a name such as ``step-00000100``.

    Raises:
        FileNotFoundError: there is none, or not that one; the message says what there is.
    """
    folder = run / FOLDER
    tags = sorted(path.name for path in folder.glob("step-*"))
    if which == LATEST:
        pointer = folder / LATEST
        if not pointer.is_file():
            raise FileNotFoundError(f"{run} has no finished checkpoint to resume from")
        which = pointer.read_text().strip()
    if which not in tags:
        raise FileNotFoundError(
            f"{folder} has no checkpoint {which!r}; it has {', '.join(tags) or 'none'}"
        )
    return which


def load_weights(run: Path, which: str = LATEST) -> tuple[dict[str, torch.Tensor], str]:
    """The full-precision weights of a checkpoint, whatever its ZeRO stage, and its tag."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # tensors of a file: no device is asked for
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    tag = resolve(run, which)
    weights = get_fp32_state_dict_from_zero_checkpoint(str(run / FOLDER), tag=tag)
    return {name: value.clone() for name, value in weights.items()}, tag
