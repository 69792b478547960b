"""Random draws as a pure function of (seed, epoch, row, kind, counter), on any device.

A counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a
draw is a hash of where it belongs, so there is no state to save, and neither the batch, the rank
nor the number of threads can change it. The hash is SplitMix64's output function (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) in wrapping int64 arithmetic,
the same bits wherever int64 is.

Floats come from tables of 2**16 entries, computed once in double precision and looked up by 16 bits
of a hash. A ``log`` or ``cos`` of the batch itself would differ in its last bit between devices,
and on the CPU between the vectorised part of a tensor and its tail, that is with the position in
the batch; look-ups, products and sums are rounded alike everywhere. (So are quotients of tensors,
but CUDA divides by a Python number by multiplying with its reciprocal: write the product.)
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TABLE_BITS = 16
TABLE_SIZE = 1 << TABLE_BITS

# SplitMix64's increment and multipliers as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)), (31, None))


def hash_words(key: Tensor | int, counter: Tensor) -> Tensor:
    """Output ``counter`` of the SplitMix64 generator that was seeded with ``key``.

    Args:
        key: int64 bits, a tensor that broadcasts with ``counter`` or a Python int.
        counter: int64, from 0.

    Returns:
        64 random bits each, int64, of the broadcast shape and contiguous.
    """
    words = (counter + 1) * _INCREMENT + key
    for shift, multiplier in _ROUNDS:
        shifted = words >> shift
        shifted &= (1 << (64 - shift)) - 1  # int64 shifts copy the sign
        words ^= shifted
        if multiplier is not None:
            words *= multiplier
    return words


def sample_keys(row_B: Tensor, kind: int, *, seed: int, epoch: int) -> Tensor:
    """A key for each sample, (B,) int64 on the device of ``row_B``.

    Args:
        row_B: (B,) int64, the samples' rows in the data set.
        kind: of draw; kinds are independent of each other.
        seed, epoch: 0 to 2**63 - 1.

    Raises:
        ValueError: ``seed`` or ``epoch`` is out of range.
    """
    return hash_words(_common_key(seed, epoch, kind), row_B)


def below(words: Tensor, bound: Tensor | int) -> Tensor:
    """Uniform integers 0 .. ``bound`` - 1 from the upper halves of words; ``bound`` <= 2**31.

    By multiplication (Lemire, ACM TOMACS 2019): no value is likelier than another by more than
    ``bound / 2**32``.
    """
    return (upper_bits(words, 32) * bound) >> 32


def unit(words: Tensor) -> Tensor:
    """Uniform float32 in [0, 1), multiples of 2**-24, from the upper bits of words."""
    return upper_bits(words, 24).to(torch.float32) * 2.0**-24


def upper_bits(words: Tensor, bits: int) -> Tensor:
    """The upper ``bits`` of words as int64 from 0."""
    return (words >> (64 - bits)) & ((1 << bits) - 1)


def quarters(words: Tensor) -> Tensor:
    """Four table positions a word, lowest bits first: (..., W) int64 -> (..., 4 * W) int32."""
    return words.view(torch.int16).to(torch.int32).add_(TABLE_SIZE // 2)


def look_up(table: Tensor, positions: Tensor) -> Tensor:
    """``table[positions]``; ``index_select`` is the fastest of PyTorch's look-ups on the CPU."""
    return table.index_select(0, positions.flatten()).view(positions.shape)


@lru_cache(maxsize=32)
def normal_table(sd: float, device: torch.device) -> Tensor:
    """Normal values of mean 0 and standard deviation ``sd``, (65536,) float32.

    The distribution is cut into 65536 parts of equal probability, each with its median (inversion:
    Devroye, Non-uniform random variate generation, 1986, II.2). The largest value is 4.3 SD and the
    kurtosis 2.999 instead of 3.
    """
    return _float32(sd * _normal_quantiles(), device)


@lru_cache(maxsize=32)
def log_normal_table(sd: float, device: torch.device) -> Tensor:
    """Positive values whose logarithm is normal of mean 0 and SD ``sd``, (65536,) float32."""
    return _float32(np.exp(sd * _normal_quantiles()), device)


@lru_cache(maxsize=32)
def circle_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 65536 phases of a full turn, (65536,) float32 each."""
    phase = np.arange(TABLE_SIZE) * (2 * math.pi / TABLE_SIZE)
    return _float32(np.cos(phase), device), _float32(np.sin(phase), device)


@lru_cache(maxsize=64)
def _common_key(seed: int, epoch: int, kind: int) -> int:
    key = 0
    for name, value in (("seed", seed), ("epoch", epoch), ("kind", kind)):
        if not 0 <= value < 1 << 63:
            raise ValueError(f"{name} {value} is out of range: give 0 to 2**63 - 1")
        # On the CPU, so that nothing waits for the device.
        key = int(hash_words(key, torch.tensor(value, dtype=torch.int64)))
    return key


@cache
def _normal_quantiles() -> NDArray[np.float64]:
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((k + 0.5) / TABLE_SIZE) for k in range(TABLE_SIZE // 2)])
    quantiles = np.concatenate([half, -half[::-1]])
    quantiles /= quantiles.std()
    return quantiles


def _float32(values: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
