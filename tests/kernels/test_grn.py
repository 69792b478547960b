"""The operator as users call it: against the reference, and the contracts of torch.library."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import TOLERANCE
from torch import Tensor

from esi_fast import kernels

VARIANTS = {
    "grn": (kernels.grn, kernels.reference.grn, {}),
    "gelu_grn": (kernels.gelu_grn, kernels.reference.gelu_grn, {}),
    "tanh": (kernels.gelu_grn, kernels.reference.gelu_grn, {"approximate": "tanh"}),
}


def leaves(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x with a dead channel, gamma and beta."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype)
    if shape[2] > 1:
        x[0, :, 1] = 0.0
    gamma, beta = torch.randn(2, shape[2], dtype=dtype)
    return [t.requires_grad_() for t in (x, gamma, beta)]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 20), st.sampled_from([1, 2, 3, 17, 40])),
    st.sampled_from(list(VARIANTS)),
    st.booleans(),
    st.booleans(),
)
def test_values_and_gradients_are_those_of_the_reference(
    shape: tuple[int, int, int], variant: str, transposed: bool, with_lengths: bool
) -> None:
    ours, reference, options = VARIANTS[variant]
    x, gamma, beta = leaves(shape)
    if transposed:
        x = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    lengths = torch.randint(0, shape[1] + 1, shape[:1]) if with_lengths else None
    results = []
    for function in (ours, reference):
        y = function(x, gamma, beta, lengths=lengths, **options)
        dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
        results.append((y, *torch.autograd.grad(y, [x, gamma, beta], dy)))
    for actual, wanted in zip(*results, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck(variant: str) -> None:
    ours, _, options = VARIANTS[variant]
    x, gamma, beta = leaves((1, 5, 4))
    with torch.no_grad():
        x[0, :, 1] = torch.randn(5)  # a norm is not differentiable at zero: see test_reference.py

    def normalise(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return ours(x, gamma, beta, **options)

    assert torch.autograd.gradcheck(normalise, (x, gamma, beta))


def test_gradcheck_where_training_starts() -> None:
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(2, 4, dtype=torch.float64)
    gamma, beta = (z.clone().requires_grad_() for z in zeros)
    assert torch.autograd.gradcheck(kernels.gelu_grn, (x, gamma, beta), fast_mode=True)


@pytest.mark.parametrize("transposed", [False, True])
def test_opcheck(transposed: bool) -> None:
    x, gamma, beta = leaves((2, 9, 4), torch.float32)
    if transposed:
        x = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        gamma.requires_grad_(False)
    lengths = torch.tensor([9, 4]) if transposed else None
    norm = torch.rand(2, 4) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.library.opcheck(
            torch.ops.esi_fast.grn.default, (x, gamma, beta, 1e-6, "gelu", lengths)
        )
        torch.library.opcheck(
            torch.ops.esi_fast.grn_backward.default,
            (x.detach(), x.detach(), gamma.detach(), beta.dtype, norm, 1e-6, "gelu", lengths),
        )


def test_compiles_as_one_graph() -> None:
    def block(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return kernels.gelu_grn(x * 2, gamma, beta).sin()

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    for T in (11, 20):
        inputs = leaves((2, T, 6))
        results = []
        for function in (compiled, block):
            y = function(*inputs)
            results.append((y, *torch.autograd.grad(y.sum(), inputs)))
        for actual, wanted in zip(*results, strict=True):
            torch.testing.assert_close(actual, wanted)


def test_autocast_leaves_the_dtypes() -> None:
    x, gamma, beta = leaves((2, 9, 4), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.gelu_grn(x, gamma, beta).dtype == torch.float32
        y = kernels.gelu_grn(x.bfloat16(), gamma, beta)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    for tensor in (x, gamma, beta):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.float32


def test_float16_does_not_overflow() -> None:
    x = torch.full((1, 64, 4), 300.0, dtype=torch.float16)  # the sum of squares is 5,760,000
    y = kernels.grn(x, torch.ones(4), torch.ones(4))
    assert torch.equal(y, torch.full_like(x, 601.0))


def test_the_operator_checks_what_it_is_given() -> None:
    x, gamma = torch.zeros(2, 9, 4), torch.zeros(4)
    operator = torch.ops.esi_fast.grn
    with pytest.raises(ValueError, match=r"gamma must be \(4,\), got \(2,\)"):
        operator(x, gamma[:2], gamma, 1e-6, "none", None)
    for device in ("cpu", "meta"):
        with pytest.raises(ValueError, match="activation='silu' is unknown"):
            operator(x.to(device), gamma.to(device), gamma.to(device), 1e-6, "silu", None)


def test_saves_its_input_and_the_norms() -> None:
    saved = []
    x, gamma, beta = leaves((2, 9, 4))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        kernels.gelu_grn(x, gamma, beta)
    assert sum(t.numel() for t in saved if t.data_ptr() != x.data_ptr()) == 4 + 2 * 4


def test_the_norms_are_not_differentiable() -> None:
    y, norm = torch.ops.esi_fast.grn(*leaves((2, 9, 4)), 1e-6, "none", None)
    assert y.requires_grad
    assert not norm.requires_grad


def test_double_backward_says_that_there_is_none() -> None:
    x, gamma, beta = leaves((2, 9, 4))
    y = kernels.gelu_grn(x, gamma, beta)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"grn has no double backward"):
        dx.sum().backward()


def test_an_empty_batch() -> None:
    x, gamma, beta = leaves((1, 9, 4))
    y = kernels.gelu_grn(x.detach()[:0].requires_grad_(), gamma, beta)
    assert y.shape == (0, 9, 4)
    y.sum().backward()
    assert gamma.grad is not None
    assert torch.equal(gamma.grad, torch.zeros_like(gamma))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.zeros(9, 4)},
            r"x must be a floating .*, got torch.float32 of shape \(9, 4\)",
        ),
        ({"gamma": torch.zeros(1, 1, 4)}, r"gamma must be \(4,\), got \(1, 1, 4\): flatten it"),
        ({"beta": torch.zeros(3)}, r"beta must be \(4,\), got \(3,\)"),
        ({"lengths": torch.tensor([1])}, r"lengths must be .* of shape \(2,\)"),
        ({"gamma": torch.zeros(4, device="meta")}, "gamma is on meta, x on cpu: move it there"),
        ({"approximate": "erf"}, "approximate='erf' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.zeros(2, 9, 4), "gamma": torch.zeros(4), "beta": torch.zeros(4)}
    with pytest.raises(ValueError, match=message):
        kernels.gelu_grn(**(arguments | changes))


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_triton_on_a_gpu(dtype: torch.dtype, variant: str) -> None:
    tolerance = TOLERANCE[dtype]
    function, _, options = VARIANTS[variant]
    x, gamma, beta = leaves((5, 313, 130), torch.float32)
    x = x.detach().to(dtype)
    lengths = torch.tensor([313, 0, 9, 100, 77])
    results = []
    for device, cast in (("cpu", torch.float64), ("cuda", dtype), ("cuda", dtype)):
        inputs = [x.to(device, cast), gamma.to(device), beta.to(device)]
        inputs = [t.detach().requires_grad_() for t in inputs]
        y = function(*inputs, lengths=lengths.to(device), **options)
        dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
        gradients = torch.autograd.grad(y, inputs, dy.to(device, y.dtype))
        results.append([t.cpu() for t in (y.detach(), *gradients)])
    expected, first, second = results
    for actual, again, wanted in zip(first, second, expected, strict=True):
        assert torch.equal(actual, again)
        scale = wanted.abs().max().item()
        torch.testing.assert_close(
            actual.double(), wanted.double(), rtol=tolerance, atol=tolerance * scale
        )
