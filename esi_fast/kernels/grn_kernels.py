"""The Triton kernels of `grn`, which says what they are for."""

from __future__ import annotations

from esi_fast.kernels.dispatch import jit, tl
from esi_fast.kernels.gelu import activate, activate_with_slope
from esi_fast.kernels.lengths import record_length


@jit
def sums_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, lengths_ptr: tl.tensor, partial_ptr: tl.tensor,
    T: tl.tensor, C: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    BACKWARD: tl.constexpr, ACTIVATION: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    ACC: tl.constexpr, HALF: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """Sums of a chunk of time: a^2 -> (B, chunks, 1, C); dy * a and dy -> (B, chunks, 2, C)."""
    num_c = tl.cdiv(C, BC)
    num_chunks = tl.cdiv(T, BT)
    row = tl.program_id(0) // num_c  # b * num_chunks + chunk
    b = (row // num_chunks).to(tl.int64)
    chunk = row % num_chunks
    c = tl.program_id(0) % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = record_length(lengths_ptr, b, T)
    c_row = c[None, :].to(tl.int64)
    x_ptr += b * x_stride_b + c_row * x_stride_c
    t = chunk * BT + tl.arange(0, BT)
    t_row = t[:, None].to(tl.int64)
    valid = (t < n)[:, None] & in_c[None, :]
    x = tl.load(x_ptr + t_row * x_stride_t, mask=valid, other=0.0).to(ACC)
    if BACKWARD:
        dy = tl.load(
            dy_ptr + b * dy_stride_b + t_row * dy_stride_t + c_row * dy_stride_c,
            mask=valid,
            other=0.0,
        ).to(ACC)
    a = activate(x, ACTIVATION, HALF)
    if BACKWARD:
        partial_ptr += row.to(tl.int64) * 2 * C + c
        tl.store(partial_ptr, tl.sum(dy * a, axis=0), mask=in_c)
        tl.store(partial_ptr + C, tl.sum(dy, axis=0), mask=in_c)
    else:
        tl.store(partial_ptr + row.to(tl.int64) * C + c, tl.sum(a * a, axis=0), mask=in_c)


@jit
def forward_kernel(
    x_ptr: tl.tensor, scale_ptr: tl.tensor, beta_ptr: tl.tensor, lengths_ptr: tl.tensor,
    y_ptr: tl.tensor, T: tl.tensor, C: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    y_stride_b: tl.tensor, y_stride_t: tl.tensor, y_stride_c: tl.tensor,
    ACTIVATION: tl.constexpr, HAS_LENGTHS: tl.constexpr, ACC: tl.constexpr, HALF: tl.constexpr,
    BT: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """y = a * scale + beta, zero past the length."""
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(T, BT)
    pid = tl.num_programs(0) - 1 - tl.program_id(0)  # what the first pass read last is still cached
    b = (pid // (num_c * num_t)).to(tl.int64)
    t = (pid // num_c) % num_t * BT + tl.arange(0, BT)
    c = pid % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = record_length(lengths_ptr, b, T)
    c_row = c[None, :].to(tl.int64)
    t_row = t[:, None].to(tl.int64)
    x = tl.load(
        x_ptr + b * x_stride_b + t_row * x_stride_t + c_row * x_stride_c,
        mask=(t < n)[:, None] & in_c[None, :],
        other=0.0,
    ).to(ACC)
    scale = tl.load(scale_ptr + b * C + c, mask=in_c, other=0.0)
    beta = tl.load(beta_ptr + c, mask=in_c, other=0.0).to(ACC)
    y = tl.fma(
        activate(x, ACTIVATION, HALF),
        tl.broadcast_to(scale[None, :], (BT, BC)),
        tl.broadcast_to(beta[None, :], (BT, BC)),
    )
    if HAS_LENGTHS:
        y = tl.where((t < n)[:, None], y, 0.0)
    tl.store(
        y_ptr + b * y_stride_b + t_row * y_stride_t + c_row * y_stride_c,
        y.to(y_ptr.dtype.element_ty),
        mask=(t < T)[:, None] & in_c[None, :],
    )


@jit
def backward_kernel(
    dy_ptr: tl.tensor, x_ptr: tl.tensor, scale_ptr: tl.tensor, ratio_ptr: tl.tensor,
    beta_ptr: tl.tensor, lengths_ptr: tl.tensor, dx_ptr: tl.tensor, y_ptr: tl.tensor,
    partial_ptr: tl.tensor,
    T: tl.tensor, C: tl.tensor,
    dy_stride_b: tl.tensor, dy_stride_t: tl.tensor, dy_stride_c: tl.tensor,
    x_stride_b: tl.tensor, x_stride_t: tl.tensor, x_stride_c: tl.tensor,
    dx_stride_b: tl.tensor, dx_stride_t: tl.tensor, dx_stride_c: tl.tensor,
    ACTIVATION: tl.constexpr, HAS_LENGTHS: tl.constexpr, FOR_LAYERS: tl.constexpr,
    ACC: tl.constexpr, HALF: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
) -> None:  # fmt: skip
    """dx = (dy * scale + a * ratio) * slope of the activation, zero past the length.

    For the layers around it: y as well, in the strides of dx, and the sums of dx over the rows of
    the tile, (B, tiles, C).
    """
    num_c = tl.cdiv(C, BC)
    num_t = tl.cdiv(T, BT)
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    b = (pid // (num_c * num_t)).to(tl.int64)
    t = (pid // num_c) % num_t * BT + tl.arange(0, BT)
    c = pid % num_c * BC + tl.arange(0, BC)
    in_c = c < C
    n = T
    if HAS_LENGTHS:
        n = record_length(lengths_ptr, b, T)
    valid = (t < n)[:, None] & in_c[None, :]
    c_row = c[None, :].to(tl.int64)
    t_row = t[:, None].to(tl.int64)
    x = tl.load(
        x_ptr + b * x_stride_b + t_row * x_stride_t + c_row * x_stride_c, mask=valid, other=0.0
    ).to(ACC)
    dy = tl.load(
        dy_ptr + b * dy_stride_b + t_row * dy_stride_t + c_row * dy_stride_c, mask=valid, other=0.0
    ).to(ACC)
    scale = tl.load(scale_ptr + b * C + c, mask=in_c, other=0.0)
    scale = tl.broadcast_to(scale[None, :], (BT, BC))
    ratio = tl.load(ratio_ptr + b * C + c, mask=in_c, other=0.0)
    a, slope = activate_with_slope(x, ACTIVATION, HALF)
    dx = tl.fma(dy, scale, a * ratio[None, :]) * slope
    written = (t < T)[:, None] & in_c[None, :]
    place = b * dx_stride_b + t_row * dx_stride_t + c_row * dx_stride_c
    # A masked load gave x = dy = 0, so dx = 0 past the length.
    tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), mask=written)
    if FOR_LAYERS:
        beta = tl.load(beta_ptr + c, mask=in_c, other=0.0).to(ACC)
        y = tl.fma(a, scale, tl.broadcast_to(beta[None, :], (BT, BC)))
        if HAS_LENGTHS:
            y = tl.where((t < n)[:, None], y, 0.0)
        tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=written)
        tl.store(partial_ptr + (pid // num_c).to(tl.int64) * C + c, tl.sum(dx, axis=0), mask=in_c)


@jit
def _sum_chunks(
    partial_ptr: tl.tensor, c: tl.tensor, in_c: tl.tensor, num_chunks: tl.tensor,
    stride: tl.tensor, ACC: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The sum over the chunks of a row of partial sums, BR of them at a time."""
    total = tl.zeros((BC,), ACC)
    for start in range(0, num_chunks, BR):
        chunk = start + tl.arange(0, BR)
        rows = tl.load(
            partial_ptr + chunk[:, None].to(tl.int64) * stride + c[None, :],
            mask=(chunk < num_chunks)[:, None] & in_c[None, :],
            other=0.0,
        )
        total += tl.sum(rows, axis=0)
    return total


@jit
def norms_kernel(
    partial_ptr: tl.tensor, gamma_ptr: tl.tensor, norm_ptr: tl.tensor, scale_ptr: tl.tensor,
    num_chunks: tl.tensor, C: tl.tensor, EPS: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr,
    BR: tl.constexpr,
) -> None:  # fmt: skip
    """One record: norm = sqrt(sum of the chunks), scale = 1 + gamma * norm / (mean + EPS)."""
    b = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BC,), ACC)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        in_c = c < C
        squares = _sum_chunks(partial_ptr + b * num_chunks * C, c, in_c, num_chunks, C, ACC, BC, BR)
        norm = tl.sqrt(squares)
        tl.store(norm_ptr + b * C + c, norm, mask=in_c)
        total += norm
    mean = tl.sum(total, axis=0) / C + EPS
    tl.debug_barrier()  # the norms written above are read by other threads below
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        in_c = c < C
        norm = tl.load(norm_ptr + b * C + c, mask=in_c, other=0.0)
        gamma = tl.load(gamma_ptr + c, mask=in_c, other=0.0).to(ACC)
        tl.store(scale_ptr + b * C + c, 1.0 + gamma * (norm / mean), mask=in_c)


@jit
def coefficients_kernel(
    partial_ptr: tl.tensor, gamma_ptr: tl.tensor, norm_ptr: tl.tensor, scale_ptr: tl.tensor,
    ratio_ptr: tl.tensor, rows_ptr: tl.tensor,
    num_chunks: tl.tensor, C: tl.tensor, EPS: tl.constexpr, ACC: tl.constexpr, BC: tl.constexpr,
    BR: tl.constexpr,
) -> None:  # fmt: skip
    """One record: scale and ratio of `reference.grn_gradients`, its rows of dgamma and dbeta."""
    b = tl.program_id(0).to(tl.int64)
    partial_ptr += b * num_chunks * 2 * C
    norm_ptr += b * C
    rows_ptr += b * 2 * C
    total_norm = tl.zeros((BC,), ACC)
    total_product = tl.zeros((BC,), ACC)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        in_c = c < C
        norm = tl.load(norm_ptr + c, mask=in_c, other=0.0)
        gamma = tl.load(gamma_ptr + c, mask=in_c, other=0.0).to(ACC)
        sum_dy_a = _sum_chunks(partial_ptr, c, in_c, num_chunks, 2 * C, ACC, BC, BR)
        sum_dy = _sum_chunks(partial_ptr + C, c, in_c, num_chunks, 2 * C, ACC, BC, BR)
        tl.store(rows_ptr + c, sum_dy_a, mask=in_c)
        tl.store(rows_ptr + C + c, sum_dy, mask=in_c)
        total_norm += norm
        total_product = tl.fma(gamma * sum_dy_a, norm, total_product)
    mean = tl.sum(total_norm, axis=0) / C + EPS
    through_mean = tl.sum(total_product, axis=0) / mean / C
    tl.debug_barrier()  # the rows written above are read by other threads below
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        in_c = c < C
        norm = tl.load(norm_ptr + c, mask=in_c, other=0.0)
        gamma = tl.load(gamma_ptr + c, mask=in_c, other=0.0).to(ACC)
        sum_dy_a = tl.load(rows_ptr + c, mask=in_c, other=0.0)
        unit = norm / mean
        alive = norm > 0.0
        ratio = (gamma * sum_dy_a - through_mean) / mean / tl.where(alive, norm, 1.0)
        tl.store(rows_ptr + c, sum_dy_a * unit, mask=in_c)
        tl.store(scale_ptr + b * C + c, 1.0 + gamma * unit, mask=in_c)
        tl.store(ratio_ptr + b * C + c, tl.where(alive, ratio, 0.0), mask=in_c)
