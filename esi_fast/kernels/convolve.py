"""The convolution inside a kernel, several samples a thread."""

from __future__ import annotations

from esi_fast.kernels.dispatch import jit, tl


@jit
def load_taps(
    w_ptr: tl.tensor, in_c: tl.tensor, w_stride_k: tl.tensor,
    K: tl.constexpr, HELD: tl.constexpr, ACC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """The weights of a tile of channels, K rows (1, BC); none where they are not held."""
    taps = ()
    if HELD:
        for k in tl.static_range(K):
            w = tl.load(w_ptr + k * w_stride_k, mask=in_c, other=0.0).to(ACC)
            taps = taps + (w[None, :],)
    return taps


@jit
def tap(
    taps: tl.tuple, w_ptr: tl.tensor, in_c: tl.tensor, w_stride_k: tl.tensor,
    k: tl.constexpr, HELD: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr, BC: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Weight number k as a tile (G, BC)."""
    if HELD:
        w = taps[k]
    else:
        w = tl.load(w_ptr + k * w_stride_k, mask=in_c, other=0.0).to(ACC)[None, :]
    return tl.broadcast_to(w, (G, BC))


@jit
def load_bias(
    b_ptr: tl.tensor, c: tl.tensor, in_c: tl.tensor,
    HAS_BIAS: tl.constexpr, ACC: tl.constexpr, G: tl.constexpr, BC: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The bias as a tile (G, BC); zeros without one."""
    bias = tl.zeros((G, BC), ACC)
    if HAS_BIAS:
        bias += tl.load(b_ptr + c, mask=in_c, other=0.0).to(ACC)[None, :]
    return bias


@jit
def convolve(
    x_ptr: tl.tensor, t: tl.tensor, n: tl.tensor, in_c: tl.tensor, x_stride_t: tl.tensor,
    taps: tl.tuple, w_ptr: tl.tensor, w_stride_k: tl.tensor, bias: tl.tensor,
    K: tl.constexpr, PADDING: tl.constexpr, HELD: tl.constexpr, ROWS: tl.constexpr,
    ACC: tl.constexpr, G: tl.constexpr, BC: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """ROWS tiles (G, BC): bias + sum over k of w[k] * x[t + row + k - padding], x of [0, n)."""
    out = (bias,) * ROWS
    for j in tl.static_range(ROWS + K - 1):
        s = t + (j - PADDING)
        x = tl.load(
            x_ptr + s[:, None].to(tl.int64) * x_stride_t,
            mask=((s >= 0) & (s < n))[:, None] & in_c[None, :],
            other=0.0,
        ).to(ACC)
        new = ()
        for r in tl.static_range(ROWS):
            if j >= r and j - r < K:
                w = tap(taps, w_ptr, in_c, w_stride_k, j - r, HELD, ACC, G, BC)
                new = new + (tl.fma(x, w, out[r]),)
            else:
                new = new + (out[r],)
        out = new
    return out
