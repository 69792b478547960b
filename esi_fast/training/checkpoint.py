"""Checkpoints of a run: DeepSpeed's own folders, and which of them is whole.

A checkpoint is ``RUN/checkpoints/step-NNNNNNNN``; it has that name only when every rank has
finished it. ``RUN/checkpoints/latest`` names the last one, ``best`` the one that validated best.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from esi_fast.training.distributed import rank, wait_for_all, world_size

FOLDER = "checkpoints"
LATEST, BEST = "latest", "best"
# In a checkpoint: by how many processes it was made, and of how many records a step of it is.
_MADE_BY = "made_by.json"
# Lets DeepSpeed's converter read it: the optimiser's parts become independent of the ranks.
_CONVERTIBLE = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.4}}


def save(
    engine: Any,
    run: Path,
    step: int,
    client_state: dict[str, Any],
    *,
    records: int,
    keep: int,
    is_best: bool = False,
) -> None:
    """Save on every rank; rank 0 then names it, points to it and keeps ``keep`` and the best.

    Args:
        engine: DeepSpeed's.
        run: the run folder.
        step: steps done.
        client_state: what `load` gives back.
        records: of a step, over all ranks.
        keep: how many of the last checkpoints stay.
        is_best: whether ``best`` points to this one from now on.

    Raises:
        OSError: it could not be written; the checkpoints before it are untouched.
    """
    folder = run / FOLDER
    name = f"step-{step:08d}"
    partial = f".{name}.partial"
    if rank() == 0:
        shutil.rmtree(folder / partial, ignore_errors=True)
    wait_for_all()
    state = client_state | _CONVERTIBLE
    with _failure_is_told(folder, name):
        engine.save_checkpoint(str(folder), tag=partial, client_state=state, save_latest=False)
    wait_for_all()
    if rank() == 0:
        with _failure_is_told(folder, name):
            made_by = {"processes": world_size(), "records": records}
            (folder / partial / _MADE_BY).write_text(json.dumps(made_by))
            # On disk, all of it, before it takes the place of an older one.
            for path in (*(folder / partial).rglob("*"), folder / partial):
                _sync(path)
            _rename(folder / partial, folder / name)
            for pointer in (LATEST, BEST) if is_best else (LATEST,):
                _point(folder / pointer, name)
        kept = {path.name for path in sorted(folder.glob("step-*"))[-keep:]}
        kept.add(_pointed(folder / BEST) or name)
        for old in folder.glob("step-*"):
            if old.name not in kept:
                shutil.rmtree(old)
    wait_for_all()


@contextmanager
def _failure_is_told(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"checkpoint {name} could not be written to {folder} ({reason}); those before it are "
            "whole: make room, then --resume latest"
        ) from error


def _sync(path: Path) -> None:
    """Put a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(path: Path, name: Path) -> None:
    path.rename(name)
    _sync(name.parent)


def _point(pointer: Path, name: str) -> None:
    partial = pointer.with_name(f".{pointer.name}")
    partial.write_text(name)
    _sync(partial)
    _rename(partial, pointer)


def _pointed(pointer: Path) -> str | None:
    return pointer.read_text().strip() if pointer.is_file() else None


def discard_after(run: Path, name: str) -> None:
    """Remove what an abandoned attempt left behind after the checkpoint that a run resumes from."""
    folder = run / FOLDER
    for path in [*folder.glob("step-*"), *folder.glob(".step-*")]:
        if path.name > name or path.name.startswith("."):
            shutil.rmtree(path)
    # A best one that came later will be made again.
    if (best := _pointed(folder / BEST)) is not None and best > name:
        (folder / BEST).unlink()


def resolve(run: Path, which: str) -> str:
    """The tag of a checkpoint of ``run``: ``"latest"``, ``"best"`` or a name (step-00000100).

    Raises:
        FileNotFoundError: there is none, or not that one; the message says what there is.
    """
    folder = run / FOLDER
    tags = sorted(path.name for path in folder.glob("step-*"))
    if which in (LATEST, BEST):
        pointed = _pointed(folder / which)
        if pointed is None and which == LATEST:
            raise FileNotFoundError(f"{run} has no finished checkpoint: remove it and start anew")
        if pointed is None:
            raise FileNotFoundError(
                f"{run} has no best checkpoint, as it was not validated; it has {_listed(tags)}"
            )
        which = pointed
    if which not in tags:
        raise FileNotFoundError(f"{folder} has no checkpoint {which!r}; it has {_listed(tags)}")
    return which


def _listed(tags: list[str]) -> str:
    return ", ".join(tags) or "none"


def made_by(run: Path, tag: str) -> tuple[int, int]:
    """How many processes made a checkpoint, and the records of a step over all of them.

    Raises:
        ValueError: it does not say.
    """
    path = run / FOLDER / tag / _MADE_BY
    try:
        content = json.loads(path.read_text())
        return int(content["processes"]), int(content["records"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is missing or damaged: checkpoint {tag} was made by an earlier version, or "
            "not copied whole; resume from another one, or begin a new run"
        ) from None


# What torch and DeepSpeed raise for files that are cut short or not theirs.
_DAMAGE = (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, AssertionError)


def _damaged(run: Path, tag: str, error: Exception) -> ValueError:
    others = ", ".join(path.name for path in sorted((run / FOLDER).glob("step-*")))
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ValueError(f"checkpoint {tag} of {run} is damaged ({reason}); there are {others}")


def convert(run: Path, tag: str) -> str:
    """Make a checkpoint readable at another number of ranks; rank 0 does, the others wait.

    Returns:
        The tag of the copy, for `load` by an engine that was made with ``load_universal``.

    Raises:
        ValueError: DeepSpeed's converter refuses it.
    """
    copy = f".{tag}.universal"
    if rank() == 0:
        shutil.rmtree(run / FOLDER / copy, ignore_errors=True)
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
        command += ["--input_folder", str(run / FOLDER / tag)]
        command += ["--output_folder", str(run / FOLDER / copy)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=run)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(
                f"checkpoint {tag} of {run} cannot be converted to another number of processes: "
                f"{reason}"
            )
    wait_for_all()
    return copy


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
    """The full-precision weights of a checkpoint, whatever its ZeRO stage, and its tag.

    No code of the checkpoint is run: it may be somebody else's.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint is damaged, or holds what no training state does.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # tensors of a file: no device is asked for
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    tag = resolve(run, which)
    folder = run / FOLDER / tag
    weights: dict[str, torch.Tensor] = {}
    try:
        with _weights_only():
            if any(folder.glob("*zero_pp_rank_*_optim_states.pt")):
                weights |= get_fp32_state_dict_from_zero_checkpoint(str(run / FOLDER), tag=tag)
            # ZeRO-0 keeps all weights here, and ZeRO-1 those that are not trained.
            if (whole := folder / "mp_rank_00_model_states.pt").is_file():
                module = torch.load(whole, map_location="cpu")["module"]
                weights |= {name: value for name, value in module.items() if name not in weights}
    except _DAMAGE as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"checkpoint {tag} of {run} holds {found[1]}, which is no part of a training "
                "state: it is not loaded, as it could run code"
            ) from error
        raise _damaged(run, tag, error) from error
    return {name: value.float().clone() for name, value in weights.items()}, tag


_FORCES = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let ``torch.load`` make tensors and what DeepSpeed stores beside them, and nothing else."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    # DeepSpeed asks for everything; this stands above it, and beside its opposite torch refuses.
    before = {name: os.environ.pop(name, None) for name in _FORCES}
    os.environ[_FORCES[0]] = "1"
    try:
        with torch.serialization.safe_globals(
            [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
        ):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
