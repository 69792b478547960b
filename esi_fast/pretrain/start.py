"""What is settled before a run begins: its folder, and whether it can go on where another ended."""

from __future__ import annotations

from pathlib import Path

from esi_fast.cli import UsageError
from esi_fast.config import Invocation
from esi_fast.data.tar_stream import is_remote

# In the run folder: configurations and tokenizer; the resolved recipe, written when all is ready.
ARCHITECTURE, RECIPE, ENVIRONMENT = "model", "recipe.toml", "env.json"


def profiled_steps(text: str | None) -> tuple[int, int]:
    """The first and the last step of ``--profile 10:12``; (0, 0) without it.

    Raises:
        UsageError: it is not of that form.
    """
    if text is None:
        return 0, 0
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
        raise UsageError(f"--profile {text}: give FIRST:LAST, steps from 1 up, such as 10:12")
    return int(first), int(last)


def is_converted(made_by: tuple[int, int], world_size: int, batch_size: int) -> bool:
    """Whether a run is resumed with another number of processes than its checkpoint was made by.

    Args:
        made_by: processes and records of a step, as `esi_fast.training.checkpoint.made_by` says.
        world_size: processes now.
        batch_size: records a step on each of them.

    Raises:
        UsageError: a step over all processes would have another number of records.
    """
    before, records = made_by
    if (now := world_size * batch_size) != records:
        hint = f"with {before} processes of {records // before}"
        if records % world_size == 0:
            hint += f", or with --data.batch-size {records // world_size} on each of {world_size}"
        raise UsageError(
            f"--resume: a step of this run has {records} records, and {world_size} processes of "
            f"{batch_size} make {now}: resume {hint}"
        )
    return before != world_size


def check_folders(invocation: Invocation) -> None:
    """Refuse what cannot work before anything heavy starts; make the run folder."""
    if not invocation.data.shards:
        raise UsageError("--data.shards is missing: name one or more folders of tools/shard")
    streamed = [is_remote(one) for one in invocation.data.shards]
    if any(streamed):
        if not all(streamed):
            raise UsageError("--data.shards mixes folders and URLs: give one kind")
        if not invocation.data.samples_per_epoch:
            raise UsageError("--data.samples-per-epoch is missing: a stream has no length")
        if invocation.model.text_model.startswith("bert:"):
            raise UsageError("--model.text-model is fresh: streamed captions teach no tokenizer")
        if invocation.data.shuffle != "full":
            raise UsageError("--data.shuffle needs shards in folders, not streamed ones")
        for name in ("crop", "pool_batches", "captions"):
            if getattr(invocation.data, name):
                flag = name.replace("_", "-")
                raise UsageError(f"--data.{flag} needs shards in folders, not streamed ones")
    elif invocation.data.samples_per_epoch:
        raise UsageError("--data.samples-per-epoch is for streams: a folder knows its records")
    for folder in () if any(streamed) else invocation.data.shards:
        if not (Path(folder) / "index.json").is_file():
            raise UsageError(
                f"--data.shards {folder} is not a finished shard folder (no index.json)"
            )
    out = invocation.out
    if out.is_file():
        raise UsageError(f"--out {out} is a file: name a folder")
    if invocation.resume is None:
        # What a start that failed has left, the architecture alone, is no run.
        if out.exists() and {path.name for path in out.iterdir()} - {ARCHITECTURE}:
            raise UsageError(f"run folder {out} exists: choose another --out, or --resume latest")
        out.mkdir(parents=True, exist_ok=True)
