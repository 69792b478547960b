"""A search for faster launch configurations than the shipped ones, on the GPU at hand.

`ESI_FAST_AUTOTUNE=1` in the environment asks for it. It runs once for each key of the table, which
has neither batch nor time, so that packed or ragged data does not tune anew: by steps from the
shipped tile to the fastest of its neighbours, until none is faster. What it finds is kept in
`tuned_path()`, a table of the same form, and read from there afterwards; a call inside a CUDA graph
that is captured gets the shipped tile where there is no other yet.

Tiles decide the order in which sums over batch and time are taken. Results repeat bit for bit as
long as the table stays as it is.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esi_fast.kernels import dispatch
from esi_fast.kernels.tiles import (
    COLUMNS,
    Kernel,
    Key,
    Tile,
    architecture,
    read_table,
    shipped_tile,
)

MAX_WARPS = 32
# Rows of a thread: its registers end, or `sum_rows` does.
MAX_ROWS = {"depthwise_conv1d_layer_norm": 8, "depthwise_conv1d_layer_norm_backward": 4}


def autotune() -> bool:
    """Whether ESI_FAST_AUTOTUNE asks for a search; raises ValueError where it is not 0 or 1."""
    value = os.environ.get("ESI_FAST_AUTOTUNE", "0")
    if value not in ("0", "1"):
        raise ValueError(f"ESI_FAST_AUTOTUNE={value!r} is unknown: use 0 or 1")
    return value == "1"


def choose(
    kernel: Kernel, x: Tensor, channels_first: bool, num_taps: int, run: Callable[[Tile], object]
) -> Tile:
    """The tile for a launch.

    Args:
        kernel: its name in the table.
        x: `(B, T, C)`; its device, dtype and channels matter.
        channels_first: whether time is its contiguous axis.
        num_taps: of the convolution; 1 where there is none.
        run: launches with another tile; called many times while tuning.
    """
    bucket = 1 << max(0, x.shape[2] - 1).bit_length()
    layout = "BCT" if channels_first else "BTC"
    bits = 8 * x.element_size()
    key = Key(kernel, layout, num_taps, architecture(x.device), bits, bucket)
    if not autotune() or not x.is_cuda or x.numel() == 0:
        return shipped_tile(key)
    tuned = tuned_tiles()
    if key not in tuned:
        if torch.cuda.is_current_stream_capturing():  # nothing can be timed inside a CUDA graph
            return shipped_tile(key)
        with dispatch.on_device(x):
            tuned[key] = search(key, lambda tile: seconds(lambda: run(tile)))
        try:
            write_tuned(tuned_path(), {key: tuned[key]})
        except OSError as error:  # a training run must not end for that
            message = f"esi_fast.kernels tuned {kernel} for this process alone: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
    return tuned[key]


def tuned_path() -> Path:
    """A file for each version of Triton in the user's cache folder, XDG_CACHE_HOME or ~/.cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    version = "none" if dispatch.triton is None else dispatch.triton.__version__
    return folder / "esi_fast" / f"tiles_triton_{version}.csv"


@functools.cache
def tuned_tiles() -> dict[Key, Tile]:
    """What earlier searches found, of this process and of others."""
    return read_tuned(tuned_path())


def read_tuned(path: Path) -> dict[Key, Tile]:
    """The tuned tiles by their keys; none where there is no file."""
    if not path.exists():
        return {}
    return {
        Key(
            row.kernel,  # type: ignore[arg-type]
            row.layout, row.max_taps, row.architecture, int(row.bits), int(row.max_channels),
        ): row.tile
        for row in read_table(path)
    }  # fmt: skip


def write_tuned(path: Path, tuned: dict[Key, Tile]) -> None:
    """Adds these to the table, one process after the other; a reader sees it before or after."""
    import fcntl  # not on Windows, where there is no Triton either

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        part = path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            both = read_tuned(path) | tuned
            writer.writerows((*key, *tile) for key, tile in sorted(both.items()))
        part.replace(path)


def neighbours(key: Key, tile: Tile) -> Iterator[Tile]:
    """Tiles with one size doubled or halved, or two so that the threads keep their load."""
    steps = [
        (2, 1, 1, 1, 1), (1, 2, 1, 1, 1), (1, 1, 2, 1, 1), (1, 1, 1, 2, 1), (1, 1, 1, 1, 2),
        (2, 1, 1, 2, 1), (1, 1, 2, 2, 1), (2, 0.5, 1, 1, 1), (2, 1, 0.5, 1, 1), (1, 2, 0.5, 1, 1),
    ]  # fmt: skip
    one_block = "layer_norm" in key.kernel  # whose programs need all the channels
    for step in steps:
        for sign in (1, -1):
            sizes = [size * factor**sign for size, factor in zip(tile, step, strict=True)]
            new = Tile(*(int(size) for size in sizes))
            fits = min(sizes[:4]) >= 1 and new.num_warps <= MAX_WARPS and new != tile
            fits = fits and new.rows <= MAX_ROWS.get(key.kernel, 16)
            keeps_rows = tile.rows > 1 or new.rows == 1  # what has no rows in its threads
            same_width = new.block_c == tile.block_c
            if fits and keeps_rows and (same_width or not one_block):
                yield new


def search(key: Key, measure: Callable[[Tile], float]) -> Tile:
    """The fastest tile that steps to neighbours find from the shipped one."""
    best = shipped_tile(key)
    times = {best: measure(best)}
    while True:
        for tile in neighbours(key, best):
            if tile not in times:
                times[tile] = measure(tile)
        fastest = min(times, key=lambda tile: times[tile])
        if fastest == best:
            return best
        best = fastest


def seconds(call: Callable[[], Any]) -> float:
    """The median time of a launch with a cold cache; infinite where it does not compile or fit."""
    errors = dispatch.triton.runtime.errors
    unfit = errors.OutOfResources, errors.PTXASError, dispatch.triton.CompilationError
    with contextlib.suppress(*unfit):
        ms: float = dispatch.triton.testing.do_bench(call, warmup=5, rep=40, return_mode="median")
        return ms / 1e3
    return math.inf
