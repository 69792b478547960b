"""Where the operators meet PyTorch's dispatcher: one library, one rule for what runs.

A CUDA tensor goes to Triton, any other to the PyTorch reference. What Triton cannot serve on CUDA
goes to the reference as well: announced by one RuntimeWarning for each reason, and listed by
`describe()`. `ESI_FAST_BACKEND=torch` in the environment sends everything to the reference.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:  # not a Linux wheel, or a slim installation: the reference serves
    triton = None
    tl = None

_LIBRARY: Any = torch.library.Library("esi_fast", "DEF")  # type: ignore[no-untyped-call]
__all__ = [
    "accumulator", "announce_fallback", "backend", "ceil_div", "cuda_kernel", "describe", "jit",
    "next_power_of_2", "on_device", "register", "register_gradient", "tl", "triton",
    "why_not_triton",
]  # fmt: skip

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_fallbacks: dict[tuple[str, str], None] = {}


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit`, or the function itself (never called) where triton is absent."""
    return function if triton is None else triton.jit(function)


def accumulator(dtype: torch.dtype) -> Any:
    """Triton's dtype for sums and statistics of tensors of this torch dtype."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def backend() -> str:
    """ "auto" or "torch", from ESI_FAST_BACKEND; raises ValueError for anything else."""
    value = os.environ.get("ESI_FAST_BACKEND", "auto")
    if value not in ("auto", "torch"):
        raise ValueError(f"ESI_FAST_BACKEND={value!r} is unknown: use auto or torch")
    return value


def why_not_triton(args: Sequence[Any]) -> str:
    """Why Triton cannot serve a CUDA call with these arguments; empty where it can."""
    if backend() == "torch":
        return "ESI_FAST_BACKEND=torch"
    if triton is None:
        return "triton is not installed"
    for arg in args:
        if isinstance(arg, Tensor) and arg.is_floating_point() and arg.dtype not in DTYPES:
            return f"dtype {arg.dtype}"
    return ""


def announce_fallback(operator: str, reason: str) -> None:
    """Says once for each operator and reason that the reference runs, and remembers it."""
    if (operator, reason) not in _fallbacks:
        _fallbacks[operator, reason] = None
        warnings.warn(
            f"esi_fast.kernels.{operator} runs as PyTorch reference: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )


def cuda_kernel(
    name: str,
    reference: Callable[..., Any],
    launch: Callable[..., Any],
    limits: Callable[..., str] | None,
) -> Callable[..., Any]:
    """What a CUDA tensor gets: `launch`, or `reference` (announced) where Triton cannot serve."""

    def kernel(*args: Any) -> Any:
        reason = why_not_triton(args) or ("" if limits is None else limits(*args))
        if reason:
            announce_fallback(name, reason)
            return reference(*args)
        return launch(*args)

    return kernel


def register(
    name: str,
    schema: str,
    *,
    reference: Callable[..., Any],
    launch: Callable[..., Any],
    fake: Callable[..., Any],
    limits: Callable[..., str] | None = None,
) -> None:
    """Defines `torch.ops.esi_fast.<name>`.

    Args:
        name: of the operator.
        schema: its arguments and results, in PyTorch's notation.
        reference: the implementation for every device but CUDA.
        launch: the one in Triton.
        fake: gives empty results of the right shapes, dtypes and strides.
        limits: from the arguments, why Triton cannot serve them; "" where it can.
    """
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, cuda_kernel(name, reference, launch, limits), "CUDA")
    torch.library.register_fake(f"esi_fast::{name}", fake, lib=_LIBRARY)


def register_gradient(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Gives an operator its gradient; the gradient operator itself has none and says so."""
    torch.library.register_autograd(
        f"esi_fast::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )

    def no_double_backward(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f"esi_fast.kernels.{name} has no double backward: "
            f"use esi_fast.kernels.reference.{name}, which autograd can differentiate twice"
        )

    torch.library.register_autograd(
        f"esi_fast::{name}_backward",
        no_double_backward,
        setup_context=lambda ctx, inputs, output: None,
        lib=_LIBRARY,
    )


def on_device(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the device of `x` current: Triton launches on the current one, not on that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def next_power_of_2(n: int) -> int:
    """The smallest power of two >= n, for n >= 1."""
    return 1 << (n - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def describe() -> str:
    """A table of what runs where in this process, and the fallbacks that have happened so far."""
    has_triton = why_not_triton(()) == ""
    if not has_triton:
        on_cuda = f"PyTorch reference ({why_not_triton(())})"
    elif torch.cuda.is_available():
        on_cuda = f"Triton {triton.__version__} on {torch.cuda.get_device_name()}"
    else:
        on_cuda = f"Triton {triton.__version__} (no CUDA device here)"
    rows = [
        ("operator", "CUDA tensors", "other tensors"),
        ("depthwise_conv1d", on_cuda, "PyTorch reference"),
        ("grn", on_cuda, "PyTorch reference"),
        ("gelu_grn", on_cuda, "PyTorch reference"),
        ("gelu_grn_mlp", f"{on_cuda}, matrix products by torch", "PyTorch reference"),
        ("depthwise_conv1d_layer_norm", on_cuda, "PyTorch reference"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"esi_fast.kernels, torch {torch.__version__}"]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"fallback: {operator}: {reason}" for operator, reason in _fallbacks]
    return "\n".join(lines)
