"""What is timed of the kernels: our operators, and what else a user of PyTorch could write."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.eager_encoder import grn
from esi_fast import kernels
from esi_fast.models.convnext1d import VARIANTS

# The package has a function of the same name.
conv_layer_norm = importlib.import_module("esi_fast.kernels.depthwise_conv1d_layer_norm")
NUM_SAMPLES = 5000
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
COMPILED = {"compile": "default", "compile max-autotune": "max-autotune-no-cudagraphs"}
Run = Callable[[], object]


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

    def draw(self, *shape: int, device: str) -> Tensor:
        """Random numbers of the cell's dtype."""
        return torch.randn(*shape, device=device, dtype=DTYPES[self.dtype])


class Work(NamedTuple):
    """A call and the least of bytes that it can move.

    Attributes:
        operator: of ours, that it is or does the same as.
        work: "forward", "backward" or "step", which is both.
        who: "ours" or the rival.
        num_bytes: each operand read once, each result written once; GRN reads its input twice.
        call: what is timed.
    """

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


def compiled_steps(
    operator: str,
    num_bytes: int,
    eager: Callable[..., Tensor],
    inputs: list[Tensor],
    dy: Tensor,
) -> Iterator[Work]:
    """What torch.compile makes of the eager function, forward and backward."""
    for who, mode in COMPILED.items():
        yield Work(operator, "step", who, num_bytes, step(compiled(eager, mode), inputs, dy))


def shifted_sum(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution as seven products and sums, for torch.compile; channels-last."""
    num_taps = weight.shape[2]
    padded = F.pad(x, (0, 0, num_taps // 2, num_taps // 2))
    y = bias.expand_as(x)
    for k in range(num_taps):
        y = y + padded[:, k : k + x.shape[1]] * weight[:, 0, k]
    return y


def _causal(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """FLA's causal convolution: ours, three samples later."""
    from fla.modules.convolution import causal_conv1d

    y: Tensor = causal_conv1d(x, weight.squeeze(1), bias)[0]
    return y


def conv_works(cell: Cell, compile_only: bool, device: str) -> Iterator[Work]:
    """The depthwise convolution; rivals may have their favourite layout for nothing."""
    num_batch, num_time, num_channels = cell.shape
    x, dy = cell.draw(2, num_batch, num_time, num_channels, device=device)
    weight = cell.draw(num_channels, 1, 7, device=device) / 3
    bias = cell.draw(num_channels, device=device)
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
    if compile_only:
        for who, mode in COMPILED.items():
            function = compiled(channels_first, mode)
            yield Work(name, "step", f"{who} conv1d", 5 * size, step(function, first, dy_first))
            function = compiled(shifted_sum, mode)
            yield Work(name, "step", f"{who} shifted sum", 5 * size, step(function, inputs, dy))
        return
    backward = torch.ops.esi_fast.depthwise_conv1d_backward
    given = (dy, x, weight, bias.dtype, 3, None, [True] * 3)
    yield Work("copy of the same size", "forward", "torch", 2 * size, lambda: dy.copy_(x))
    yield Work(name, "forward", "ours", 2 * size, lambda: ours(*inputs))
    yield Work(name, "backward", "ours", 3 * size, lambda: backward(*given))
    yield Work(name, "step", "ours", 5 * size, step(ours, inputs, dy))
    yield Work(name, "forward", "eager conv1d", 2 * size, lambda: channels_first(*first))
    yield Work(name, "step", "eager conv1d", 5 * size, step(channels_first, first, dy_first))
    yield Work(name, "forward", "eager conv2d, channels-last", 2 * size, lambda: image(*inputs))
    yield Work(name, "step", "eager conv2d, channels-last", 5 * size, step(image, inputs, dy))
    if importlib.util.find_spec("fla"):
        yield Work(name, "forward", "FLA, causal", 2 * size, lambda: _causal(*inputs))
        yield Work(name, "step", "FLA, causal", 5 * size, step(_causal, inputs, dy))


def conv_layer_norm_works(cell: Cell, compile_only: bool, device: str) -> Iterator[Work]:
    """The convolution and LayerNorm; ours takes two passes back, more than the least of bytes."""
    num_batch, num_time, num_channels = cell.shape
    x, dy = cell.draw(2, num_batch, num_time, num_channels, device=device)
    weight = cell.draw(num_channels, 1, 7, device=device) / 3
    bias, scale, shift = cell.draw(3, num_channels, device=device)
    size = x.numel() * x.element_size()
    name, inputs = "depthwise_conv1d_layer_norm", [x, weight, bias, scale, shift]

    def eager(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=3, groups=num_channels)
        return F.layer_norm(y.transpose(1, 2), scale.shape, scale, shift, 1e-6)

    def ours(*tensors: Tensor) -> Tensor:
        return kernels.depthwise_conv1d_layer_norm(*tensors)

    if compile_only:
        yield from compiled_steps(name, 5 * size, eager, inputs, dy)
        return
    yield Work(name, "forward", "ours", 2 * size, lambda: ours(*inputs))
    if num_channels <= conv_layer_norm.MAX_CHANNELS:
        _, mean, rstd = torch.ops.esi_fast.depthwise_conv1d_layer_norm(*inputs, 1e-6, None)
        backward = torch.ops.esi_fast.depthwise_conv1d_layer_norm_backward
        given = (dy, x, weight, bias, scale, shift.dtype, mean, rstd, None, [True] * 3)
        yield Work(name, "backward", "ours", 3 * size, lambda: backward(*given))
    yield Work(name, "step", "ours", 5 * size, step(ours, inputs, dy))
    yield Work(name, "forward", "eager", 2 * size, lambda: eager(*inputs))
    yield Work(name, "step", "eager", 5 * size, step(eager, inputs, dy))


def gelu_grn_works(cell: Cell, compile_only: bool, device: str) -> Iterator[Work]:
    """GELU and GRN on the hidden layer, four times as wide as the stage."""
    num_batch, num_time, num_channels = cell.shape
    x, dy = cell.draw(2, num_batch, num_time, 4 * num_channels, device=device)
    gamma, beta = cell.draw(2, 4 * num_channels, device=device)
    size = x.numel() * x.element_size()
    name, inputs = "gelu_grn", [x, gamma, beta]

    def eager(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return grn(F.gelu(x), gamma, beta)

    def ours(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return kernels.gelu_grn(x, gamma, beta)

    if compile_only:
        yield from compiled_steps(name, 8 * size, eager, inputs, dy)
        return
    _, norm = torch.ops.esi_fast.grn(x, gamma, beta, 1e-6, "gelu", None)
    backward = torch.ops.esi_fast.grn_backward
    given = (dy, x, gamma, beta.dtype, norm, 1e-6, "gelu", None)
    yield Work(name, "forward", "ours", 3 * size, lambda: ours(*inputs))
    yield Work(name, "backward", "ours", 5 * size, lambda: backward(*given))
    yield Work(name, "step", "ours", 8 * size, step(ours, inputs, dy))
    yield Work(name, "forward", "eager", 3 * size, lambda: eager(*inputs))
    yield Work(name, "step", "eager", 8 * size, step(eager, inputs, dy))


def mlp_works(cell: Cell, compile_only: bool, device: str) -> Iterator[Work]:
    """The pointwise half of a block; its matrix products are torch's, for ours too."""
    num_batch, num_time, num_channels = cell.shape
    hidden = 4 * num_channels
    x, dy = cell.draw(2, num_batch, num_time, num_channels, device=device)
    weight1 = cell.draw(hidden, num_channels, device=device) * num_channels**-0.5
    weight2 = cell.draw(num_channels, hidden, device=device) * hidden**-0.5
    bias1, gamma, beta = cell.draw(3, hidden, device=device)
    inputs = [x, weight1, bias1, gamma, beta, weight2, cell.draw(num_channels, device=device)]
    size = x.numel() * x.element_size()
    name = "gelu_grn_mlp"

    def eager(x: Tensor, *rest: Tensor) -> Tensor:
        weight1, bias1, gamma, beta, weight2, bias2 = rest
        return F.linear(grn(F.gelu(F.linear(x, weight1, bias1)), gamma, beta), weight2, bias2)

    def ours(*tensors: Tensor) -> Tensor:
        return kernels.gelu_grn_mlp(*tensors)

    # In passes over x. Forward: x, 4 written, GRN 8 + 4, 4 read, y. Backward: dy, 4 written, GRN
    # 16 + 4 + 4, and 5 for each of three products. The weights are small beside them.
    forward, both = 22 * size, 66 * size
    if compile_only:
        yield from compiled_steps(name, both, eager, inputs, dy)
        return
    yield Work(name, "forward", "ours", forward, lambda: ours(*inputs))
    yield Work(name, "step", "ours", both, step(ours, inputs, dy))
    yield Work(name, "forward", "eager", forward, lambda: eager(*inputs))
    yield Work(name, "step", "eager", both, step(eager, inputs, dy))


OPERATORS = (conv_works, conv_layer_norm_works, gelu_grn_works, mlp_works)
