"""Checkpoints of a run: DeepSpeed's own folders, and which of them is whole.

A checkpoint is ``RUN/checkpoints/step-NNNNNNNN``; it has that name only when every rank has
finished it. ``RUN/checkpoints/latest`` names the last one.
"""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from esi_fast.training.distributed import rank, wait_for_all

FOLDER = "checkpoints"
LATEST = "latest"


def save(engine: Any, run: Path, step: int, client_state: dict[str, Any], *, keep: int) -> None:
    """Save on every rank; rank 0 then names it, points ``latest`` at it and keeps ``keep``."""
    folder = run / FOLDER
    name = f"step-{step:08d}"
    partial = f".{name}.partial"
    if rank() == 0:
        shutil.rmtree(folder / partial, ignore_errors=True)
    wait_for_all()
    engine.save_checkpoint(str(folder), tag=partial, client_state=client_state, save_latest=False)
    wait_for_all()
    if rank() == 0:
        (folder / partial).rename(folder / name)
        pointer = folder / f".{LATEST}"
        with pointer.open("w") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        pointer.rename(folder / LATEST)
        for old in sorted(folder.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    wait_for_all()


def discard_after(run: Path, name: str) -> None:
    """Remove what an abandoned attempt left behind after the checkpoint that a run resumes from."""
    for path in [*(run / FOLDER).glob("step-*"), *(run / FOLDER).glob(".step-*.partial")]:
        if path.name > name or path.name.startswith("."):
            shutil.rmtree(path)


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
            raise FileNotFoundError(f"{run} has no finished checkpoint: remove it and start anew")
        which = pointer.read_text().strip()
    if which not in tags:
        raise FileNotFoundError(
            f"{folder} has no checkpoint {which!r}; it has {', '.join(tags) or 'none'}"
        )
    return which


# What torch and DeepSpeed raise for files that are cut short or not theirs.
_DAMAGE = (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, AssertionError)


def _damaged(run: Path, tag: str, error: Exception) -> ValueError:
    others = ", ".join(path.name for path in sorted((run / FOLDER).glob("step-*")))
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ValueError(f"checkpoint {tag} of {run} is damaged ({reason}); there are {others}")


def load(engine: Any, run: Path, tag: str) -> dict[str, Any]:
    """Load a checkpoint into the engine; returns what :func:`save` was given with it.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    try:
        _, client_state = engine.load_checkpoint(str(run / FOLDER), tag=tag)
    except _DAMAGE as error:
        raise _damaged(run, tag, error) from error
    return dict(client_state)


def load_weights(run: Path, which: str = LATEST) -> tuple[dict[str, torch.Tensor], str]:
    """The full-precision weights of a checkpoint, whatever its ZeRO stage, and its tag."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # tensors of a file: no device is asked for
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    tag = resolve(run, which)
    try:
        weights = get_fp32_state_dict_from_zero_checkpoint(str(run / FOLDER), tag=tag)
    except _DAMAGE as error:
        raise _damaged(run, tag, error) from error
    return {name: value.clone() for name, value in weights.items()}, tag
