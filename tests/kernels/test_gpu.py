"""What only a GPU can show of the kernels: graphs, large tensors, Inductor, memory errors."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from esi_fast import kernels

pytestmark = pytest.mark.gpu

SANITIZED = """
import torch
from esi_fast import kernels
for dtype in (torch.bfloat16, torch.float32):
    for channels in (3, 40, 96):
        for num_time in (1, 63, 65):
            block = kernels.nn.ConvNeXtV2Block1d(channels, device="cuda", dtype=dtype)
            x = torch.randn(2, num_time, channels, device="cuda", dtype=dtype, requires_grad=True)
            lengths = torch.tensor([num_time, num_time // 2], device="cuda")
            y = kernels.depthwise_conv1d(block(x, lengths), block.dwconv.weight, padding=3)
            gamma, beta = torch.randn(2, num_time, device="cuda")
            kernels.grn(y.transpose(1, 2), gamma, beta).sum().backward()
torch.cuda.synchronize()
"""


def step(block: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """The output and all gradients."""
    y = block(x)
    # Without the graph: its nodes remember the stream on which they were made.
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])]


def random_block(channels: int, dtype: torch.dtype) -> kernels.nn.ConvNeXtV2Block1d:
    torch.manual_seed(0)
    block = kernels.nn.ConvNeXtV2Block1d(channels, device="cuda", dtype=dtype)
    torch.nn.init.normal_(block.grn.gamma)
    return block


def test_a_block_is_captured_as_a_graph() -> None:
    block = random_block(64, torch.bfloat16)
    x = torch.randn(4, 300, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is compiled, is compiled before
        step(block, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(block, x)
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for actual, wanted in zip(captured, step(block, x), strict=True):
        assert torch.equal(actual, wanted)


def test_a_block_goes_through_inductor() -> None:
    block = random_block(64, torch.float32)
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    for num_time in (100, 131):
        x = torch.randn(4, num_time, 64, device="cuda", requires_grad=True)
        for actual, wanted in zip(step(compiled, x), step(block, x), strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)


def test_offsets_beyond_32_bits() -> None:
    free, _ = torch.cuda.mem_get_info()
    batch, num_time, channels = 2**31 // (1250 * 128) + 2, 1250, 128
    if free < 5 * 2 * batch * num_time * channels:
        pytest.skip("the GPU has not enough memory left")
    x = torch.randn(batch, num_time, channels, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(channels, 1, 7, device="cuda", requires_grad=True)
    gamma = torch.randn(channels, device="cuda", requires_grad=True)
    for function in (
        lambda x: kernels.depthwise_conv1d(x, weight, gamma, padding=3),
        lambda x: kernels.depthwise_conv1d_layer_norm(x, weight, gamma, gamma, gamma),
        lambda x: kernels.gelu_grn(x, gamma, gamma),
    ):
        results = []
        for part in (x, x[-1:].clone()):
            leaf = part.detach().requires_grad_()
            y = function(leaf)
            dy = torch.ones((), device="cuda", dtype=y.dtype).expand(y.shape)
            (dx,) = torch.autograd.grad(y, leaf, dy)
            results.append((y[-1].detach().clone(), dx[-1].clone()))
            del y, dx
        for actual, wanted in zip(*results, strict=True):
            assert torch.equal(actual, wanted)


def test_no_memory_error() -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        pytest.skip("compute-sanitizer is not installed")
    for check in ("memcheck", "racecheck"):
        result = subprocess.run(
            [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", SANITIZED],
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert result.returncode == 0, result.stdout[-4000:]
