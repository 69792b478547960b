"""GELU inside a kernel: value and derivative.

With `u = |x|` and `p = Phi(-u)`, the tail of the normal distribution, `gelu(x) = max(x, 0) - u * p`
and `Phi(x)` is p or 1 - p: no cancellation in the tail. For 16-bit data `log2 p` is a polynomial of
degree 8 (minimax on [0, 5.5], fitted for this file), and p right to a relative 8e-6: a sixtieth
of half a unit in the last place of float16, for ten instructions where the error function takes
thirty and would be slower than the memory. Wider data gets the error function.
"""

from __future__ import annotations

from esi_fast.kernels.dispatch import jit, tl


@jit
def tail(u: tl.tensor) -> tl.tensor:
    """Phi(-u) for 0 <= u <= 10."""
    log2_p = 6.744959080151602e-08 * u - 3.439451575104613e-06
    log2_p = log2_p * u + 7.683697913307697e-05
    log2_p = log2_p * u - 0.0010040116030722857
    log2_p = log2_p * u + 0.00869663618505001
    log2_p = log2_p * u - 0.05420511215925217
    log2_p = log2_p * u - 0.458333283662796
    log2_p = log2_p * u - 1.1512597799301147
    return tl.exp2(log2_p * u - 1.0)


@jit
def activate(x: tl.tensor, ACTIVATION: tl.constexpr, HALF: tl.constexpr) -> tl.tensor:
    """The input itself, or its GELU; `HALF` where it came from 16 bits."""
    if ACTIVATION == "gelu":
        if HALF:
            u = tl.minimum(tl.abs(x), 10.0, propagate_nan=tl.PropagateNan.ALL)  # p(10) is 1e-23
            x = tl.maximum(x, 0.0) - u * tail(u)
        else:
            x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":  # x * sigmoid(2 z) = x * (1 + tanh(z)) / 2
        x = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    return x


@jit
def activate_with_slope(x: tl.tensor, ACTIVATION: tl.constexpr, HALF: tl.constexpr) -> tl.tuple:
    """GELU and its derivative; the input itself and 1 without an activation."""
    if ACTIVATION == "gelu":
        density = 0.3989422804014327 * tl.exp2(-0.7213475204444817 * x * x)
        if HALF:
            u = tl.minimum(tl.abs(x), 10.0, propagate_nan=tl.PropagateNan.ALL)
            p = tail(u)
            a = tl.maximum(x, 0.0) - u * p
            slope = tl.where(x > 0.0, 1.0 - p, p) + x * density
        else:
            cdf = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
            a = x * cdf
            slope = cdf + x * density
    elif ACTIVATION == "gelu_tanh":
        sigmoid = 1.0 / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
        inner = 1.5957691216057308 * (1.0 + 0.134145 * x * x)
        a = x * sigmoid
        slope = sigmoid + a * (1.0 - sigmoid) * inner
    else:
        a = x
        slope = tl.full(x.shape, 1.0, x.dtype)
    return a, slope
