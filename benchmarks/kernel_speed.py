"""The kernels on a GPU: share of the copy bandwidth, and beside what PyTorch offers.

Every time is that of the GPU alone: the call is captured in a CUDA graph, behind a read of 256 MB
that empties the L2 cache and leaves nothing to write back, and the time of that read alone is taken
off. Beside it what the host needs to launch the call without a graph: where that is more, the host
is the limit, and a CUDA graph the cure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from tqdm import tqdm

from benchmarks.kernel_clock import Clock, GraphClock, copy_bandwidth
from benchmarks.kernel_encoder import Encoder, encoder_step
from benchmarks.kernel_verdicts import Row
from benchmarks.kernel_works import OPERATORS, Cell

PACKAGES = ("torch", "triton")
MODELS = ("base", "atto", "nano", "tiny", "large")
BATCHES = (64, 1, 8, 256)


def cells(quick: bool) -> tuple[list[Cell], list[Cell]]:
    """Those measured beside eager PyTorch, and the ones of them beside torch.compile too."""
    base = [Cell("base", stage, 64, "bf16") for stage in range(4)]
    if quick:
        return base, base[::2]
    every = [
        Cell(model, stage, batch, dtype)
        for dtype in ("bf16", "fp16", "fp32")
        for batch in BATCHES
        for model in MODELS
        for stage in range(4)
    ]
    return base + [cell for cell in every if cell not in base], base


def measure_cell(
    cell: Cell, compile_only: bool, clock: Clock, bandwidth: float, device: str = "cuda"
) -> Iterator[Row]:
    """All operators at one cell; a rival that fails gets NaN, and its error is shown."""
    for works in OPERATORS:
        for work in works(cell, compile_only, device):
            us = host_us = math.nan
            try:
                us, host_us = clock.us(work.call), clock.host_us(work.call)
            except Exception as error:
                if work.who == "ours":
                    raise
                tqdm.write(f"{work.operator} by {work.who}: {error}")
            share = work.num_bytes / us * 1e6 / bandwidth
            shape = (cell.model, cell.stage + 1, *cell.shape, cell.dtype)
            names = (work.operator, work.work, work.who)
            times = round(us, 2), round(host_us, 2)
            row = Row(*shape, *names, *times, work.num_bytes / 1e6, round(share, 3))
            tqdm.write(" ".join(map(str, row)))
            yield row


def measure(quick: bool) -> Iterator[tuple[float, list[Row], list[Encoder]]]:
    """The copy bandwidth (bytes/s), the operators, the encoders: all so far, after every part.

    Args:
        quick: base at B=64 in bf16 alone.
    """
    bandwidth = copy_bandwidth()
    tqdm.write(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e12:.3f} TB/s")
    clock = GraphClock()
    plain, with_compile = cells(quick)
    rows: list[Row] = []
    encoders: list[Encoder] = []
    base, rest = [(cell, False) for cell in plain[:4]], [(cell, False) for cell in plain[4:]]
    steps = [("base", 64, "ours"), ("base", 64, "eager"), ("base", 64, "compile")]
    if not quick:  # where launches are the limit
        steps += [("atto", 8, who) for who in ("ours", "eager", "compile")]
    parts = [*base, *steps[:2], *((cell, True) for cell in with_compile), *steps[2:], *rest]
    for part in tqdm(parts, unit="part", desc="kernels", disable=None):
        if isinstance(part[0], Cell):
            rows += measure_cell(part[0], bool(part[1]), clock, bandwidth)
        else:
            encoders.append(encoder_step(*part))
            tqdm.write(str(encoders[-1]))
        torch._dynamo.reset()  # or graphs of other shapes stay in memory
        torch.cuda.empty_cache()
        yield bandwidth, rows, encoders
