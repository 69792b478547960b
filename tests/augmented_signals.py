"""Random leads and their augmentation, for the tests of it."""

from __future__ import annotations

import dataclasses
import math

import torch

from esi_fast.data.augment_signal import SignalAugmentation

FS = 250.0


ALL = SignalAugmentation(
    jitter_uv=20.0,
    scaling=0.1,
    lead_dropout=0.3,
    wander_uv=200.0,
    mains_uv=50.0,
    time_mask=0.4,
)


KINDS = [field.name for field in dataclasses.fields(ALL)]


def only(kind: str) -> SignalAugmentation:
    return SignalAugmentation(**{kind: getattr(ALL, kind)})


def ecg(batch: int, num_samples: int = 501, seed: int = 0) -> torch.Tensor:
    """Noise of 1 mV with missing samples and a missing lead."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(batch, 12, num_samples, generator=generator)
    signal[:, 3, 100:110] = math.nan
    signal[::2, 7] = math.nan
    return signal


def augmented(
    augmentation: SignalAugmentation,
    signal: torch.Tensor,
    rows: torch.Tensor | None = None,
    seed: int = 1,
    epoch: int = 2,
    fs: float = FS,
) -> torch.Tensor:
    rows = torch.arange(len(signal)) if rows is None else rows
    return augmentation(signal, rows, seed=seed, epoch=epoch, fs=fs)


def noise(augmentation: SignalAugmentation, shape: tuple[int, int], **where: int) -> torch.Tensor:
    """What is added to zeros, (B, 12, T) in uV and double precision."""
    batch, num_samples = shape
    fs = where.pop("fs", int(FS))
    first = where.pop("row", 0)
    rows = torch.arange(first, first + batch)
    return 1000 * augmented(
        augmentation, torch.zeros(batch, 12, num_samples), rows, fs=fs, **where
    ).to(torch.float64)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the last bit; NaN equals NaN."""
    missing = a.isnan()
    return bool((missing == b.isnan()).all() and (a[~missing] == b[~missing]).all())


def rms(signal: torch.Tensor) -> torch.Tensor:
    return signal.square().mean(-1).sqrt()
