"""``--dry-run``: the resolved recipe and what the run would take, before anything is built."""

from __future__ import annotations

import os
from pathlib import Path

from esi_fast.config import Invocation, to_toml
from esi_fast.data.shard_index import read_shard_folder
from esi_fast.data.tar_stream import is_remote
from esi_fast.pretrain.estimate import describe, estimate

# MIMIC-IV-ECG 1.0: 800,035 recordings of 10 s at 500 Hz; taken where no shards are named.
_FS, _NUM_SAMPLES, _NUM_RECORDS = 500.0, 5000, 800_035


def describe_run(invocation: Invocation) -> str:
    """The recipe as TOML, then parameters, operations, memory and steps.

    Of the named shards, or of MIMIC-IV-ECG; for as many devices as the launcher has started.

    Raises:
        UsageError: the text model's sizes cannot be had.
        FileNotFoundError: a folder of shards is not finished.
        ValueError: an ``index.json`` is damaged.
    """
    fs, num_samples, num_records = _FS, _NUM_SAMPLES, _NUM_RECORDS
    source = "no --data.shards: taken to be MIMIC-IV-ECG"
    data = invocation.data
    if data.shards and not is_remote(data.shards[0]):
        folders = [read_shard_folder(Path(one)) for one in data.shards]
        fs, num_samples = float(folders[0]["fs"]), int(folders[0]["num_samples"])
        num_records = sum(folder["counts"]["train"] for folder in folders)
        source = "records of the shards' train split"
    elif data.samples_per_epoch:
        num_records, source = data.samples_per_epoch, "records as --data.samples-per-epoch says"
    run = estimate(
        invocation,
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        fs=fs,
        num_samples=num_samples,
        num_records=num_records,
        on_gpu=os.environ.get("DS_ACCELERATOR") != "cpu",
    )
    return f"{to_toml(invocation)}\n{describe(run)}\n          ({source})"
