"""The public functions over the Triton kernels, drawn at random, against the float64 reference.

Without a GPU in Triton's interpreter: in a process of their own the launchers stand where the CPU's
reference does otherwise, so that dtypes, autograd and the shipped tiles take the way that they take
on a GPU. With one, there.
"""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from interpreted import assert_close, run_cases, strided
from torch import Tensor

from benchmarks.eager_encoder import EagerBlock
from esi_fast import kernels
from esi_fast.kernels import dispatch
from esi_fast.models.convnext1d import VARIANTS, ConvNeXtV2Encoder1d

LAUNCHERS = {
    "depthwise_conv1d": ("depthwise_conv1d", "launch_forward"),
    "depthwise_conv1d_backward": ("depthwise_conv1d", "launch_backward"),
    "depthwise_conv1d_layer_norm": ("depthwise_conv1d_layer_norm", "launch_forward"),
    "depthwise_conv1d_layer_norm_backward": ("depthwise_conv1d_layer_norm", "launch_backward"),
    "grn": ("grn", "launch_forward"),
    "grn_backward": ("grn", "launch_backward"),
    "gelu_grn_mlp": ("gelu_grn_mlp", "launch_forward"),
    "gelu_grn_mlp_backward": ("gelu_grn_mlp", "launch_backward"),
}
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def test_public_functions_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    run_cases(__file__, interpreted=True)


@pytest.mark.gpu
def test_public_functions_on_a_gpu() -> None:
    run_cases(__file__, interpreted=False)


@pytest.fixture(scope="module")
def calls():
    """In the interpreter, puts the launchers in the place of the CPU's kernels and counts them."""
    if DEVICE == "cuda":
        yield None
        return
    counts = dict.fromkeys(LAUNCHERS, 0)

    def counted(name: str, launch: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            counts[name] += 1
            results = launch(*args)
            return results[:3] if name == "grn_backward" else results

        return run

    library = torch.library.Library("esi_fast", "IMPL")
    for name, (module, launcher) in LAUNCHERS.items():
        launch = getattr(importlib.import_module(f"esi_fast.kernels.{module}"), launcher)
        library.impl(name, counted(name, launch), "CPU")
    yield counts
    library._destroy()


def assert_launched(calls: dict[str, int] | None, name: str) -> None:
    """Whether the operator and its gradient ran in Triton."""
    if calls is None:
        assert not dispatch.fallbacks
    else:
        assert calls[name] == calls[f"{name}_backward"] > 0


@st.composite
def signals(draw: st.DrawFn, widths: list[int]) -> tuple[Tensor, Tensor | None, torch.dtype]:
    """A `(B, T, C)` around the edges of tiles, lengths or none, and the parameters' dtype."""
    num_time = draw(st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65]))
    shape = draw(st.integers(1, 3)), num_time, draw(st.sampled_from(widths))
    if num_time > 33 or shape[2] > 96:  # a program costs the same whatever its size
        shape = (1, *shape[1:])
    torch.manual_seed(draw(st.integers(0, 2**16)))
    dtype = draw(st.sampled_from(DTYPES))
    x = strided(
        torch.randn(shape).to(dtype), draw(st.sampled_from(["dense", "transposed", "sliced"]))
    )
    lengths = None
    if draw(st.booleans()):
        integer = draw(st.sampled_from([torch.int32, torch.int64]))
        end = st.integers(-2, num_time + 2)
        if integer == torch.int64:  # whose low half is a length
            end |= st.sampled_from([1 - 2**32, 2**32 + 1])
        ends = st.lists(end, min_size=shape[0], max_size=shape[0])
        lengths = torch.tensor(draw(ends), dtype=integer)
    return (
        x,
        lengths,
        dtype if dtype == torch.float64 else draw(st.sampled_from([dtype, torch.float32])),
    )


def compare(
    name: str,
    tensors: list[Tensor],
    expanded: bool,
    num_roundings: int = 1,
    **options: Any,
) -> None:
    """The function against the reference in float64: values, and all gradients with dtypes."""
    results = []
    for module, device, dtype in (
        (kernels, DEVICE, None),
        (kernels.reference, "cpu", torch.float64),
    ):
        inputs = [t.detach().to(device, dtype or t.dtype).requires_grad_() for t in tensors]
        if options.get("lengths") is not None:
            options["lengths"] = options["lengths"].to(device)
        y = getattr(module, name)(*inputs, **options)
        dy = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(tensors[0].dtype)
        if expanded:
            dy = torch.ones((), dtype=dy.dtype).expand(y.shape)
        dy = dy.to(device) if y.dtype == dy.dtype else dy.to(device, y.dtype)
        results.append([t.cpu() for t in (y.detach(), *torch.autograd.grad(y, inputs, dy))])
    kinds = [tensors[0].dtype, *(t.dtype for t in tensors)]
    lowest = min(kinds, key=lambda dtype: -torch.finfo(dtype).eps)
    for number, (actual, wanted, kind) in enumerate(zip(*results, kinds, strict=True)):
        assert actual.dtype == kind
        assert_close(actual, wanted, lowest, f"result {number}: ", num_roundings)


slow = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to make a failure smaller takes minutes here
    suppress_health_check=list(HealthCheck),
)


@slow
@given(st.data())
def case_depthwise_conv1d(calls, data):
    x, lengths, dtype = data.draw(signals([1, 3, 40, 80, 96, 160, 320]))
    num_taps = data.draw(st.sampled_from([1, 3, 5, 7, 9, 31]))
    least = max(0, (num_taps - x.shape[1] + 1) // 2)
    padding = max(least, data.draw(st.sampled_from([num_taps // 2, 0, num_taps + 1])))
    weight, bias = torch.randn(x.shape[2], 1, num_taps), torch.randn(x.shape[2])
    tensors = [x, weight.to(dtype), bias.to(dtype)]
    expanded = data.draw(st.booleans())
    compare("depthwise_conv1d", tensors, expanded, padding=padding, lengths=lengths)
    assert_launched(calls, "depthwise_conv1d")


@slow
@given(st.data())
def case_depthwise_conv1d_layer_norm(calls, data):
    x, lengths, dtype = data.draw(signals([2, 3, 40, 80, 96, 160, 320]))
    weight = torch.randn(x.shape[2], 1, data.draw(st.sampled_from([1, 3, 7, 9])))
    tensors = [x, weight.to(dtype), *torch.randn(3, x.shape[2]).to(dtype)]
    expanded = data.draw(st.booleans())
    compare("depthwise_conv1d_layer_norm", tensors, expanded, eps=1e-2, lengths=lengths)
    assert_launched(calls, "depthwise_conv1d_layer_norm")


@settings(slow, max_examples=40)
@given(st.data())
def case_grn(calls, data):
    x, lengths, dtype = data.draw(signals([1, 3, 40, 80, 96, 160, 320]))
    tensors = [x, *torch.randn(2, x.shape[2]).to(dtype)]
    approximate = data.draw(st.sampled_from([None, "none", "tanh"]))
    expanded = data.draw(st.booleans())
    if approximate is None:
        compare("grn", tensors, expanded, lengths=lengths)
    else:
        compare("gelu_grn", tensors, expanded, lengths=lengths, approximate=approximate)
    assert_launched(calls, "grn")


@settings(slow, max_examples=40)
@given(st.data())
def case_gelu_grn_mlp(calls, data):
    x, lengths, _ = data.draw(signals([1, 3, 40]))
    num_channels, hidden = x.shape[2], data.draw(st.sampled_from([1, 24, 80]))
    weight1 = torch.randn(hidden, num_channels) * num_channels**-0.5
    weight2 = torch.randn(5, hidden) / hidden
    rest = [weight1, *torch.randn(3, hidden), weight2, torch.randn(5)]
    tensors = [x, *(t.to(x.dtype) for t in rest)]
    # Every layer between rounds to the dtype of x.
    compare("gelu_grn_mlp", tensors, data.draw(st.booleans()), 3, lengths=lengths)
    assert_launched(calls, "gelu_grn_mlp")


def case_the_encoder_is_that_of_plain_pytorch(calls):
    torch.manual_seed(0)
    ours = ConvNeXtV2Encoder1d(*VARIANTS["convnextv2_zepto"])
    plain = copy.deepcopy(ours)
    for stage, plain_stage in zip(ours.stages, plain.stages, strict=True):
        for index, block in enumerate(stage):
            torch.nn.init.normal_(block.grn.gamma, std=0.3)
            state = {name.removeprefix("grn."): p for name, p in block.state_dict().items()}
            plain_stage[index] = EagerBlock(block.norm.normalized_shape[0])
            plain_stage[index].load_state_dict(state)
    x = torch.randn(2, 12, 160)
    results = []
    for model, device in ((ours, DEVICE), (plain.double(), "cpu")):
        model.to(device)
        leaf = x.to(device, next(model.parameters()).dtype).requires_grad_()
        y = model(leaf)
        gradients = torch.autograd.grad(y.square().sum(), [leaf, *model.parameters()])
        names = [name.replace("grn.", "") for name, _ in model.named_parameters()]
        named = dict(zip(["x", *names], gradients, strict=True))
        results.append({"y": y.detach()} | named)
    assert_launched(calls, "gelu_grn_mlp")
    assert results[0].keys() == results[1].keys()
    for name, actual in results[0].items():
        # The error of float32 through six blocks and back.
        assert_close(actual.cpu(), results[1][name], torch.float32, f"{name}: ", 10)


def case_what_triton_cannot_serve_goes_to_the_reference(calls):
    x = torch.randn(1, 40, 3)
    for name, arguments in (
        ("depthwise_conv1d", (x, torch.randn(3, 1, 32), None, 16, None)),
        (
            "depthwise_conv1d_layer_norm",
            (
                torch.randn(1, 4, 1025),
                torch.randn(1025, 1, 3),
                None,
                *torch.randn(2, 1025),
                1e-6,
                None,
            ),
        ),
    ):
        module = importlib.import_module(f"esi_fast.kernels.{name}")
        reference = getattr(kernels.reference, f"{name}_forward")
        on_cuda = dispatch.cuda_kernel(name, reference, None, module.limits)
        with pytest.warns(RuntimeWarning, match=f"{name} runs as PyTorch reference: (32|1025) "):
            results = on_cuda(*arguments)
        for actual, wanted in zip(results, reference(*arguments), strict=True):
            assert torch.equal(actual, wanted)
