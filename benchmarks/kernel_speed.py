"""The kernels on a GPU: share of the copy bandwidth, and beside what PyTorch offers.

Every time is that of the GPU alone: the call is captured in a CUDA graph, behind a read of 256 MB
that empties the L2 cache and leaves nothing to write back, and the time of that read alone is taken
off. Passes of the smallest possible count of bytes: each operand read once, each result written
once (GRN reads its input twice, once for the norms).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmarks.eager_encoder import EagerBlock, grn
from esi_fast import kernels
from esi_fast.models.convnext1d import VARIANTS, ConvNeXtV2Encoder1d

PACKAGES = ("torch",)
NUM_SAMPLES = 5000
NUM_CALLS = 12
NUM_REPLAYS = 5
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
Run = Callable[[], object]


class Row(NamedTuple):
    """One measured call."""

    model: str
    stage: int
    batch: int
    time: int
    channels: int
    dtype: str
    operator: str
    work: str
    who: str
    us: float
    megabytes: float
    share_of_copy: float


class Cell(NamedTuple):
    """A stage of a model at a batch size and dtype."""

    model: str
    stage: int
    batch: int
    dtype: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, T, C)."""
        num_steps = NUM_SAMPLES // 4 >> self.stage
        return self.batch, num_steps, VARIANTS[f"convnextv2_{self.model}"][1][self.stage]


def cells(quick: bool) -> tuple[list[Cell], list[Cell]]:
    """Those measured beside eager PyTorch, and the ones of them beside torch.compile too."""
    base = [Cell("base", stage, 64, "bf16") for stage in range(4)]
    others = [Cell("base", stage, batch, "bf16") for batch in (1, 8, 256) for stage in range(4)]
    others += [Cell("base", stage, 64, dtype) for dtype in ("fp16", "fp32") for stage in range(4)]
    for model in ("atto", "nano", "tiny", "large"):
        others += [Cell(model, stage, 64, "bf16") for stage in range(4)]
    return base + ([] if quick else others), base[::2]


class Clock:
    """Times calls by replaying them as CUDA graphs with a cold, clean L2 cache."""

    def __init__(self) -> None:
        self.cold = torch.ones(1 << 26, device="cuda")
        self.cold_ms = self._replay(lambda: None)

    def us(self, call: Run) -> float:
        """Microseconds on the GPU of one call; the median of the replays."""
        call()
        return (self._replay(call) - self.cold_ms) / NUM_CALLS * 1e3

    def _replay(self, call: Run) -> float:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(NUM_CALLS):
                self.cold.amax()
                call()
        graph.replay()
        times = []
        for _ in range(NUM_REPLAYS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 1 GiB."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return 2 * source.numel() * 4 / statistics.median(times) * 1e3


class Work(NamedTuple):
    """A call to time: operator, forward, backward or step (both), by whom, its least bytes."""

    operator: str
    work: str
    who: str
    num_bytes: int
    call: Run


def step(function: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor) -> Run:
    """Forward and backward."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    return lambda: torch.autograd.grad(function(*leaves), leaves, dy)


def compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """The function as torch.compile makes it for these shapes."""
    return torch.compile(function, mode=mode, fullgraph=True, dynamic=False)


COMPILED = {"compile": "default", "compile max-autotune": "max-autotune-no-cudagraphs"}


def shifted_sum(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution as seven products and sums, for torch.compile; channels-last."""
    num_taps = weight.shape[2]
    padded = F.pad(x, (0, 0, num_taps // 2, num_taps // 2))
    y = bias.expand_as(x)
    for k in range(num_taps):
        y = y + padded[:, k : k + x.shape[1]] * weight[:, 0, k]
    return y


def conv_works(cell: Cell, compile_only: bool) -> Iterator[Work]:
    """The depthwise convolution; rivals may have their favourite layout for nothing."""
    num_batch, num_time, num_channels = cell.shape
    dtype = DTYPES[cell.dtype]
    x, dy = torch.randn(2, num_batch, num_time, num_channels, device="cuda", dtype=dtype)
    weight = torch.randn(num_channels, 1, 7, device="cuda", dtype=dtype) / 3
    bias = torch.randn(num_channels, device="cuda", dtype=dtype)
    size = x.numel() * x.element_size()
    name, inputs = "depthwise_conv1d", [x, weight, bias]

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return kernels.depthwise_conv1d(x, weight, bias, padding=3)

    def channels_first(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv1d(x, weight, bias, padding=3, groups=num_channels)

    def image(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        picture = x.transpose(1, 2).unsqueeze(2)
        y = F.conv2d(picture, weight.unsqueeze(2), bias, padding=(0, 3), groups=num_channels)
        return y.squeeze(2).transpose(1, 2)

    first = [x.transpose(1, 2).contiguous(), weight, bias]
    dy_first = dy.transpose(1, 2).contiguous()
    backward = torch.ops.esi_fast.depthwise_conv1d_backward
    if compile_only:
        for who, mode in COMPILED.items():
            function = compiled(channels_first, mode)
            yield Work(name, "step", f"{who} conv1d", 5 * size, step(function, first, dy_first))
            function = compiled(shifted_sum, mode)
            yield Work(name, "step", f"{who} shifted sum", 5 * size, step(function, inputs, dy))
        return
    yield Work("copy of the same size", "forward", "torch", 2 * size, lambda: dy.copy_(x))
    yield Work(name, "forward", "ours", 2 * size, lambda: ours(*inputs))
    yield Work(
        name, "backward", "ours", 3 * size, lambda: backward(dy, x, weight, 3, None, [True] * 3)
    )
    yield Work(name, "step", "ours", 5 * size, step(ours, inputs, dy))
    yield Work(name, "forward", "eager conv1d", 2 * size, lambda: channels_first(*first))
    yield Work(name, "step", "eager conv1d", 5 * size, step(channels_first, first, dy_first))
    yield Work(name, "step", "eager conv2d, channels-last", 5 * size, step(image, inputs, dy))


def conv_layer_norm_works(cell: Cell, compile_only: bool) -> Iterator[Work]:
    """The convolution and LayerNorm; ours takes two passes back, more than the least of bytes."""
    num_batch, num_time, num_channels = cell.shape
    dtype = DTYPES[cell.dtype]
    x, dy = torch.randn(2, num_batch, num_time, num_channels, device="cuda", dtype=dtype)
    weight = torch.randn(num_channels, 1, 7, device="cuda", dtype=dtype) / 3
    bias, scale, shift = torch.randn(3, num_channels, device="cuda", dtype=dtype)
    size = x.numel() * x.element_size()
    name, inputs = "depthwise_conv1d_layer_norm", [x, weight, bias, scale, shift]

    def eager(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=3, groups=num_channels)
        return F.layer_norm(y.transpose(1, 2), scale.shape, scale, shift, 1e-6)

    def ours(*tensors: Tensor) -> Tensor:
        return kernels.depthwise_conv1d_layer_norm(*tensors)

    if compile_only:
        for who, mode in COMPILED.items():
            yield Work(name, "step", who, 5 * size, step(compiled(eager, mode), inputs, dy))
        return
    yield Work(name, "forward", "ours", 2 * size, lambda: ours(*inputs))
    yield Work(name, "step", "ours", 5 * size, step(ours, inputs, dy))
    yield Work(name, "forward", "eager", 2 * size, lambda: eager(*inputs))
    yield Work(name, "step", "eager", 5 * size, step(eager, inputs, dy))


def gelu_grn_works(cell: Cell, compile_only: bool) -> Iterator[Work]:
    """GELU and GRN on the hidden layer, four times as wide as the stage."""
    num_batch, num_time, num_channels = cell.shape
    dtype = DTYPES[cell.dtype]
    x, dy = torch.randn(2, num_batch, num_time, 4 * num_channels, device="cuda", dtype=dtype)
    gamma, beta = torch.randn(2, 4 * num_channels, device="cuda", dtype=dtype)
    size = x.numel() * x.element_size()
    name, inputs = "gelu_grn", [x, gamma, beta]

    def eager(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return grn(F.gelu(x), gamma, beta)

    def ours(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return kernels.gelu_grn(x, gamma, beta)

    if compile_only:
        for who, mode in COMPILED.items():
            yield Work(name, "step", who, 8 * size, step(compiled(eager, mode), inputs, dy))
        return
    _, norm = torch.ops.esi_fast.grn(x, gamma, beta, 1e-6, "gelu", None)
    backward = torch.ops.esi_fast.grn_backward
    yield Work(name, "forward", "ours", 3 * size, lambda: ours(*inputs))
    yield Work(
        name, "backward", "ours", 5 * size,
        lambda: backward(dy, x, gamma, norm, 1e-6, "gelu", None),
    )  # fmt: skip
    yield Work(name, "step", "ours", 8 * size, step(ours, inputs, dy))
    yield Work(name, "forward", "eager", 3 * size, lambda: eager(*inputs))
    yield Work(name, "step", "eager", 8 * size, step(eager, inputs, dy))


OPERATORS = (conv_works, conv_layer_norm_works, gelu_grn_works)


class Encoder(NamedTuple):
    """A training step of the base encoder, bf16, B=64: GPU time, wall time, memory."""

    who: str
    gpu_ms: float
    wall_ms: float
    peak_gib: float


def encoder(who: str) -> ConvNeXtV2Encoder1d:
    """ "ours", "eager" or "compile": the same model in our blocks or in plain PyTorch."""
    model = ConvNeXtV2Encoder1d(*VARIANTS["convnextv2_base"])
    if who != "ours":
        for stage in model.stages:
            for index, block in enumerate(stage):
                stage[index] = EagerBlock(block.norm.normalized_shape[0])
    model = model.cuda().bfloat16()
    if who == "compile":
        model.forward = compiled(model.forward, "default")
    return model


def encoder_step(who: str, num_rounds: int = 6) -> Encoder:
    """Measures a whole step, by the wall and as a CUDA graph."""
    model = encoder(who)
    x = torch.randn(64, 12, NUM_SAMPLES, device="cuda", dtype=torch.bfloat16)

    def run() -> None:
        model.zero_grad(set_to_none=True)
        model(x).float().square().mean().backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # gradients remember the stream that first made them
        for _ in range(3):
            run()
        side.synchronize()
        model.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        side.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        started = time.perf_counter()
        for _ in range(num_rounds):
            run()
        side.synchronize()
        wall = (time.perf_counter() - started) / num_rounds
        model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            model(x).float().square().mean().backward()
        graph.replay()
        side.synchronize()
        started = time.perf_counter()
        for _ in range(num_rounds):
            graph.replay()
        side.synchronize()
        gpu = (time.perf_counter() - started) / num_rounds
    return Encoder(who, gpu * 1e3, wall * 1e3, peak / 2**30)


def measure_cell(cell: Cell, compile_only: bool, clock: Clock, bandwidth: float) -> Iterator[Row]:
    """All operators at one cell; a rival that fails gets NaN, and its error is shown."""
    for works in OPERATORS:
        for work in works(cell, compile_only):
            try:
                us = clock.us(work.call)
            except RuntimeError as error:
                if work.who == "ours":
                    raise
                tqdm.write(f"{work.operator} by {work.who}: {error}")
                us = math.nan
            share = work.num_bytes / us * 1e6 / bandwidth
            shape = (cell.model, cell.stage + 1, *cell.shape, cell.dtype)
            names = (work.operator, work.work, work.who)
            row = Row(*shape, *names, round(us, 2), work.num_bytes / 1e6, round(share, 3))
            tqdm.write(" ".join(map(str, row)))
            yield row
    torch.cuda.empty_cache()


def measure(quick: bool) -> tuple[float, list[Row], list[Encoder]]:
    """The copy bandwidth (bytes/s), the operators, the encoder."""
    bandwidth = copy_bandwidth()
    tqdm.write(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e12:.3f} TB/s")
    clock = Clock()
    wanted, with_compile = cells(quick)
    rows: list[Row] = []
    encoders: list[Encoder] = []
    parts = [(cell, False) for cell in wanted] + [(cell, True) for cell in with_compile]
    for cell, compile_only in tqdm(parts, unit="cell", desc="operators", disable=None):
        rows += measure_cell(cell, compile_only, clock, bandwidth)
        if not encoders:
            encoders += [encoder_step(who) for who in ("ours", "eager")]
            tqdm.write(str(encoders))
    encoders.append(encoder_step("compile"))
    tqdm.write(str(encoders[-1]))
    return bandwidth, rows, encoders
