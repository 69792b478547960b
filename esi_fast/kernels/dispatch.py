"""Where the operators meet PyTorch's dispatcher: one library, one rule for what runs.

A CUDA tensor goes to Triton, any other to the PyTorch reference. What Triton cannot serve on CUDA
goes to the reference as well: announced by one RuntimeWarning for each reason, and listed by
`kernels.describe()`. `ESI_FAST_BACKEND=torch` in the environment sends everything to the reference.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from esi_fast.kernels.reference import no_autocast

try:
    import triton
    import triton.language as tl
except ImportError:  # not a Linux wheel, a slim or a broken installation: the reference serves
    triton = None
    tl = None

_LIBRARY: Any = torch.library.Library("esi_fast", "DEF")  # type: ignore[no-untyped-call]
__all__ = [
    "accumulator", "announce_fallback", "are_dense", "backend", "call", "ceil_div", "cuda_kernel",
    "fallbacks", "jit", "next_power_of_2", "on_device", "options", "register",
    "register_gradient", "tl", "triton", "why_not_triton",
]  # fmt: skip

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

fallbacks: dict[tuple[str, str], None] = {}  # operator and reason, in order


# Sizes that change from batch to batch: a multiple of 16 or a one must not be compiled anew.
RAGGED = ("T", "T_out", "num_tiles", "num_partials", "num_chunks", "num_rows")


def jit(function: Callable[..., Any]) -> Any:
    """`triton.jit`, or the function itself (never called) where triton is absent."""
    return function if triton is None else triton.jit(function, do_not_specialize=RAGGED)


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
    if (operator, reason) not in fallbacks:
        fallbacks[operator, reason] = None
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
    check: Callable[..., None] = lambda *args: None,
    limits: Callable[..., str] | None = None,
) -> None:
    """Defines `torch.ops.esi_fast.<name>`.

    Args:
        name: of the operator.
        schema: its arguments and results, in PyTorch's notation.
        reference: the implementation for every device but CUDA.
        launch: the one in Triton.
        fake: gives empty results of the right shapes, dtypes and strides.
        check: raises ValueError where the arguments do not fit together; not while sizes are
            symbols. Gradient operators have none: autograd alone calls them.
        limits: from the arguments, why Triton cannot serve them; "" where it can.
    """

    def checked(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            check(*args)
            with no_autocast(args[0]):  # which otherwise casts what a kernel gives to torch
                return kernel(*args)

        return run

    def fake_checked(*args: Any) -> Any:
        if all(isinstance(size, int) for size in args[0].shape):
            check(*args)
        return fake(*args)

    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, checked(reference), "CompositeExplicitAutograd")
    _LIBRARY.impl(name, checked(cuda_kernel(name, reference, launch, limits)), "CUDA")
    torch.library.register_fake(f"esi_fast::{name}", fake_checked, lib=_LIBRARY)


def call(name: str, *args: Any) -> Any:
    """Calls `torch.ops.esi_fast.<name>`; forward mode is refused.

    The operator itself cannot see a tangent, and would give zeros for it.
    """
    if forward_ad._current_level >= 0:
        for arg in args:
            if not isinstance(arg, Tensor):
                continue
            if forward_ad.unpack_dual(arg).tangent is not None:  # type: ignore[no-untyped-call]
                raise NotImplementedError(
                    f"esi_fast.kernels: {name} has no forward mode; "
                    "the functions of esi_fast.kernels.reference have one"
                )
    return getattr(torch.ops.esi_fast, name)(*args)


def register_gradient(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Gives an operator its gradient; the gradient operator itself has none and says so."""
    torch.library.register_autograd(
        f"esi_fast::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )

    def no_double_backward(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f"esi_fast.kernels: {name} has no double backward; "
            "the functions of esi_fast.kernels.reference have one"
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


def options(num_warps: int) -> dict[str, Any]:
    """What every launch asks of Triton's compiler; from 3.10 on it fuses no products by itself."""
    return {"num_warps": num_warps, "enable_fp_fusion": True}


def are_dense(*tensors: Tensor) -> bool:
    """Whether in each `(B, T, C)` a sample lies C elements behind the one before it."""
    return all(x.stride(1) == x.shape[2] for x in tensors)


def next_power_of_2(n: int) -> int:
    """The smallest power of two >= n, for n >= 1."""
    return 1 << (n - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


backend()  # a wrong word is refused on import, on machines without a GPU too
