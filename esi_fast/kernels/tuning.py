"""A search for faster launch configurations than the shipped ones, on the GPU at hand.

`ESI_FAST_AUTOTUNE=1` in the environment asks for it. It runs once for each key of the table, which
has neither batch nor time, so that packed or ragged data does not tune anew: by steps from the
shipped tile to the fastest of its neighbours, until none is faster by more than the noise. The
call that asks first is what is timed: let it be a typical batch. A search compiles some twenty
tiles, half a minute of a core; one process searches at a time, and the others of the machine wait
for what it finds.

What it finds is kept in `tuned_folder()`, in a table of the same form, and read from there where
the variable is set; a call inside a CUDA graph that is captured gets the shipped tile where there
is no other yet. Tiles decide the order in which sums over batch and time are taken: results repeat
bit for bit with one table, and machines with tables of their own may differ in the last bits.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import math
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esi_fast.kernels import dispatch
from esi_fast.kernels.tiles import (
    COLUMNS,
    MAX_HELD_TAPS,
    Kernel,
    Key,
    Tile,
    architecture,
    read_table,
    shipped_tile,
)

MAX_WARPS = 32
MAX_ELEMENTS = 1 << 15  # of a program
LOOK_AGAIN = 0.1  # s, while another process searches
GAIN = 0.97  # a time of another tile, as a part of the best, that is no noise
# Rows of a thread: its registers end, or `sum_rows` does; GRN's kernels have none.
MAX_ROWS = {
    "depthwise_conv1d": 16, "depthwise_conv1d_backward": 16, "depthwise_conv1d_layer_norm": 8,
    "depthwise_conv1d_layer_norm_backward": 4, "grn_sums": 1, "grn": 1, "grn_backward_sums": 1,
    "grn_backward": 1,
}  # fmt: skip
# Whose programs walk over several tiles.
WALKING = ("depthwise_conv1d_backward", "depthwise_conv1d_layer_norm_backward")


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
    layout = "BCT" if channels_first else "BTC"
    bits = 8 * x.element_size()
    key = Key(kernel, layout, num_taps, architecture(x.device), bits, x.shape[2])
    if not autotune() or not x.is_cuda or x.numel() == 0:
        return shipped_tile(key)
    path = tuned_path(x.device)
    tuned = tuned_tiles(path)
    if key not in tuned:
        if torch.cuda.is_current_stream_capturing():  # nothing can be timed inside a CUDA graph
            return shipped_tile(key)
        with dispatch.on_device(x):
            _find(key, tuned, path, lambda tile: seconds(lambda: run(tile)))
    return tuned[key]


def _find(key: Key, tuned: dict[Key, Tile], path: Path, measure: Callable[[Tile], float]) -> None:
    """Adds the tile that another process keeps meanwhile, or searches and keeps it.

    Waits by looking again, not in line for the lock: its holder may be at a later key, and its GPU
    wait for a collective that this process launches once it has its tile.
    """
    try:
        while key not in tuned:
            with alone(path) as is_alone:
                tuned |= read_tuned(path)
                if is_alone and key not in tuned:
                    tuned[key] = search(key, measure)
                    write_tuned(path, tuned)
            if key not in tuned:
                time.sleep(LOOK_AGAIN)
    except OSError as error:
        _warn(f"{key.kernel} is tuned for this process alone: {error}")
        if key not in tuned:
            tuned[key] = search(key, measure)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether this thread has a table to itself, of all threads of all processes."""
    import fcntl  # not on Windows, where there is no Triton either

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _warn(message: str) -> None:
    # What tiles are kept or read must not end a training run.
    warnings.warn(f"esi_fast.kernels: {message}", RuntimeWarning, stacklevel=3)


def tuned_folder() -> Path:
    """`esi_fast` in the user's cache folder, which is XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "esi_fast"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "esi_fast"


@functools.cache
def tuned_path(device: torch.device) -> Path:
    """The table of a GPU and a version of Triton: another asks for other tiles."""
    name = re.sub(r"\W+", "-", torch.cuda.get_device_name(device))
    return tuned_folder() / f"tiles_{name}_triton_{dispatch.triton.__version__}.csv"


@functools.cache
def tuned_tiles(path: Path) -> dict[Key, Tile]:
    """What earlier searches found, of this process and of others."""
    return read_tuned(path)


def read_tuned(path: Path) -> dict[Key, Tile]:
    """The tuned tiles by their keys; none where there is no file, or none that can be read."""
    try:
        tuned = {
            Key(
                row.kernel,  # type: ignore[arg-type]
                row.layout, row.max_taps, row.architecture, int(row.bits), int(row.max_channels),
            ): row.tile
            for row in read_table(path)
        }  # fmt: skip
        for key, tile in tuned.items():
            if not fits(key, tile):
                raise ValueError(f"{path}: {key.kernel} cannot take {tile}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, OverflowError) as error:
        _warn(f"the tuned tiles are searched anew: {error}")
        return {}
    return tuned


def write_tuned(path: Path, tuned: dict[Key, Tile]) -> None:
    """Replaces the table by another, for a reader at once; whoever calls is `alone`."""
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((*key, *tile) for key, tile in sorted(tuned.items()))
    part.replace(path)


def neighbours(key: Key, tile: Tile) -> Iterator[Tile]:
    """Tiles with one size doubled or halved, or two so that the threads keep their load."""
    steps = [
        (2, 1, 1, 1, 1), (1, 2, 1, 1, 1), (1, 1, 2, 1, 1), (1, 1, 1, 2, 1), (1, 1, 1, 1, 2),
        (2, 1, 1, 2, 1), (1, 1, 2, 2, 1), (2, 0.5, 1, 1, 1), (2, 1, 0.5, 1, 1), (1, 2, 0.5, 1, 1),
    ]  # fmt: skip
    for step in steps:
        for sign in (1, -1):
            sizes = [size * factor**sign for size, factor in zip(tile, step, strict=True)]
            new = Tile(*(int(size) for size in sizes))
            if new != tile and fits(key, new):
                yield new


def fits(key: Key, tile: Tile) -> bool:
    """Whether the kernel can be launched with this tile; whether the GPU can is another thing."""
    if any(size < 1 or size & (size - 1) for size in tile[:4]) or tile.num_warps > MAX_WARPS:
        return False
    if tile.block_t * tile.block_c > MAX_ELEMENTS:
        return False
    max_rows = MAX_ROWS[key.kernel]
    if tile.rows > (max_rows if key.num_taps <= MAX_HELD_TAPS else min(4, max_rows)):
        return False  # many taps: the code grows with rows times taps
    if (tile.programs > 0) != (key.kernel in WALKING):
        return False
    if "layer_norm" in key.kernel:  # whose programs have all channels
        return key.num_channels <= tile.block_c < max(64, 2 * key.num_channels)
    return tile.block_c <= max(64, 4 * key.num_channels)


def search(key: Key, measure: Callable[[Tile], float]) -> Tile:
    """The fastest tile that steps to neighbours find from the shipped one.

    A step, and the way as a whole when both its ends are measured again, must be worth its noise.
    """
    shipped = best = shipped_tile(key)
    times = {best: measure(best)}
    while True:
        for tile in neighbours(key, best):
            if tile not in times:
                times[tile] = measure(tile)
        fastest = min(times, key=lambda tile: times[tile])
        if fastest == best or times[fastest] > GAIN * times[best]:
            break
        best = fastest
    if best == shipped or measure(best) > GAIN * measure(shipped):
        return shipped
    return best


def seconds(call: Callable[[], Any]) -> float:
    """The median time of a launch with a cold cache; infinite where it does not compile or fit."""
    errors = dispatch.triton.runtime.errors
    unfit = errors.OutOfResources, errors.PTXASError, dispatch.triton.CompilationError
    with contextlib.suppress(*unfit):
        ms: float = dispatch.triton.testing.do_bench(call, warmup=5, rep=40, return_mode="median")
        return ms / 1e3
    return math.inf


autotune()  # a wrong word is refused on import, on machines without a GPU too
