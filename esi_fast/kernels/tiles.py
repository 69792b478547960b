"""Launch configurations: the table that ships with the package.

`tiles.csv` gives the tile of each kernel by architecture, width of the dtype and bucket of the
channels; batch and time choose nothing.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Literal, NamedTuple

import torch

Kernel = Literal[
    "depthwise_conv1d",
    "depthwise_conv1d_backward",
    "depthwise_conv1d_layer_norm",
    "depthwise_conv1d_layer_norm_backward",
    "grn_sums",
    "grn",
    "grn_backward_sums",
    "grn_backward",
]

SHIPPED_PATH = Path(__file__).with_name("tiles.csv")
ANY = "*"
MAX_HELD_TAPS = 7  # up to here a convolution's weights stay in registers


class Tile(NamedTuple):
    """A launch configuration.

    Attributes:
        groups: of rows, in the threads beside each other.
        rows: consecutive ones of a group; each thread has all of them.
        block_c: channels.
        num_warps: of a program.
        programs: at most, each of which walks over several tiles and leaves one row of partial
            sums; 0 where every tile has a program. No device changes it, nor the order of the sum.
    """

    groups: int
    rows: int
    block_c: int
    num_warps: int
    programs: int = 0

    @property
    def block_t(self) -> int:
        """Samples that a program makes at a time."""
        return self.groups * self.rows


class Key(NamedTuple):
    """What a tile is chosen by."""

    kernel: Kernel
    layout: str  # "BTC" or "BCT"
    num_taps: int  # 1 where there are none
    architecture: str  # "sm_90", "gfx942"; "none" without a GPU
    bits: int  # of an element
    num_channels: int


class Row(NamedTuple):
    """A line of the table; `ANY` fits everything, the bounds are inclusive."""

    kernel: str
    layout: str
    max_taps: int
    architecture: str
    bits: str
    max_channels: float
    tile: Tile

    def fits(self, key: Key) -> bool:
        """Whether the tile is for this key."""
        return (
            (self.kernel, self.layout) == (key.kernel, key.layout)
            and key.num_taps <= self.max_taps
            and self.architecture in (ANY, key.architecture)
            and self.bits in (ANY, str(key.bits))
            and key.num_channels <= self.max_channels
        )

    @property
    def rank(self) -> tuple[int, float, bool, bool]:
        """The smaller, the closer to a key that the row fits."""
        return self.max_taps, self.max_channels, self.architecture == ANY, self.bits == ANY


COLUMNS = (
    "kernel", "layout", "max_taps", "architecture", "bits", "max_channels",
    "groups", "rows", "block_c", "num_warps", "programs",
)  # fmt: skip


def read_table(path: Path) -> list[Row]:
    """Reads a table of tiles; lines that begin with # are left out.

    Raises:
        ValueError: the file is no such table; names it and says to delete it.
    """
    try:
        with path.open(newline="") as file:
            lines = csv.DictReader(line for line in file if not line.startswith("#"))
            return [
                Row(
                    line["kernel"], line["layout"], int(line["max_taps"]), line["architecture"],
                    line["bits"], float(line["max_channels"]),
                    Tile(*(int(line[name]) for name in COLUMNS[6:])),
                )
                for line in lines
            ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of tiles ({error!r}): delete it") from error


@functools.cache
def _shipped() -> list[Row]:
    return read_table(SHIPPED_PATH)


@functools.cache
def shipped_tile(key: Key) -> Tile:
    """The tile of the table that fits the key closest."""
    return min((row for row in _shipped() if row.fits(key)), key=lambda row: row.rank).tile


@functools.cache
def architecture(device: torch.device) -> str:
    """ "sm_90" for compute capability 9.0, AMD's name, or "none" without a GPU."""
    if device.type != "cuda":
        return "none"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
