"""Augmentation of ECGs, seeded by (seed, epoch, row): a resumed run draws what it would have drawn.

Whole batches at once, on the device where they are. What is drawn for a sample (see
:mod:`esi_fast.data.draws`) depends on seed, epoch, row and the kind of augmentation alone: not on
the batch, the rank, the device, the number of threads, or which other augmentations are on.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esi_fast.data import draws
from esi_fast.data.signal_noise import MAINS_HZ, WANDER_HZ, add_mains, add_wander, add_white_noise
from esi_fast.leads import NUM_LEADS

# Samples of a batch are taken together up to this many values, so that what is computed on the way
# stays in the cache of a CPU and small beside the model on a GPU. No result depends on it.
_CHUNK_VALUES = {"cpu": 1 << 20}
_CHUNK_VALUES_ELSEWHERE = 1 << 23


@enum.unique
class _Kind(enum.IntEnum):
    """What a draw is for. A run resumes in its own draws only as long as these numbers stay."""

    JITTER = 1
    SCALING = 2
    LEAD_DROPOUT = 3
    WANDER = 4
    MAINS = 5
    TIME_MASK = 6
    CROP = 7


@dataclass(frozen=True)
class SignalAugmentation:
    """Random changes of ECGs that leave their meaning; every one is off by default.

    Noise is added after the scaling, so that its levels are what they say.

    Limb leads: wander and mains arise at the electrodes and reach the leads by the leads'
    definitions, so they obey Einthoven's law (I + III = II) and Goldberger's equations. Scaling and
    jitter treat each lead by itself and break both, by about ``scaling`` times the leads' voltage
    and ``jitter_uv``. That is meant: it keeps a model from reading one lead off two others, and
    recordings break the law too where leads differ in gain, filter or rounding. But the QRS axis
    turns with the limb leads' gains (SD up to 2 degrees for ``scaling`` = 0.05) and voltage
    criteria move with all: keep it small where captions state an axis or hypertrophy.

    Attributes:
        jitter_uv: standard deviation of white Gaussian noise, uV, independent in every sample and
            lead (Um et al., ICMI 2017, arXiv 1706.00527).
        scaling: standard deviation of the natural logarithm of each lead's gain, 0 to 1; a gain is
            positive and 0.05 is about 5 % (Um et al. 2017).
        lead_dropout: probability 0 to 1 of each lead to become missing, independently ("random
            lead masking": Oh et al., CHIL 2022, arXiv 2203.06889). A record never loses its last
            lead: one of those that have samples, drawn evenly, stays.
        wander_uv: upper limit of the baseline wander, uV RMS. Three tones at frequencies drawn from
            0.05 to 0.5 Hz, common to the record, with amplitude and phase of their own at each
            electrode. The level is drawn uniformly from 0 to the limit; the lead that wanders most
            has it, as RMS over a long time. (10 s may show slow tones at their crests: one record
            in 17 then exceeds the limit, by up to 1.4.) Compare the record "bm" of the MIT-BIH
            Noise Stress Test Database (Moody et al., CinC 1984).
        mains_uv: upper limit of the mains interference, uV RMS: one tone, at 50 or 60 Hz, level,
            amplitudes and phases as for the wander (Friesen et al., IEEE TBME 1990).
        time_mask: largest share of the record, 0 to below 1, that becomes missing in one stretch,
            in all leads. The length is uniform from 0 to that share, the place uniform among those
            where it fits (SpecAugment: Park et al., Interspeech 2019, arXiv 1904.08779).

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    jitter_uv: float = 0.0
    scaling: float = 0.0
    lead_dropout: float = 0.0
    wander_uv: float = 0.0
    mains_uv: float = 0.0
    time_mask: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter_uv", "wander_uv", "mains_uv"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} {value} must be finite and >= 0 uV; 0 turns it off")
        if not 0 <= self.scaling <= 1:
            raise ValueError(
                f"scaling {self.scaling} is the SD of ln(gain): give 0 (off) to 1, such as 0.05"
            )
        if not 0 <= self.lead_dropout <= 1:
            raise ValueError(
                f"lead_dropout {self.lead_dropout} is a probability: give 0 (off) to 1"
            )
        if not 0 <= self.time_mask < 1:
            raise ValueError(
                f"time_mask {self.time_mask} is a share of the record: give 0 (off) to below 1"
            )

    def __call__(
        self, ecg_BLT: Tensor, row_B: Tensor, *, seed: int, epoch: int, fs: float
    ) -> Tensor:
        """Augment a batch.

        Args:
            ecg_BLT: (B, 12, T) float32, mV, NaN where missing; it is not modified.
            row_B: (B,) int64, each sample's row in the data set.
            seed, epoch: what the draws depend on beside the row, not negative.
            fs: sampling rate, Hz.

        Returns:
            (B, 12, T) float32, mV, on the same device: NaN where the input is, in dropped leads and
            in masked stretches. With everything off it is ``ecg_BLT`` itself.

        Raises:
            ValueError: a shape, a type, ``seed`` or ``epoch`` is wrong, or ``fs`` is too low for
                the mains (120 Hz) or the wander (1 Hz).
        """
        if not any(vars(self).values()):
            return ecg_BLT
        self._check(ecg_BLT, row_B, fs)
        out_BLT = ecg_BLT.clone(memory_format=torch.contiguous_format)
        row_B = row_B.to(ecg_BLT.device)
        values = _CHUNK_VALUES.get(ecg_BLT.device.type, _CHUNK_VALUES_ELSEWHERE)
        num_together = max(1, values // (NUM_LEADS * ecg_BLT.shape[2]))
        for first in range(0, len(row_B), num_together):
            part = slice(first, first + num_together)
            self._augment(out_BLT[part], row_B[part], seed, epoch, fs)
        return out_BLT

    def _check(self, ecg_BLT: Tensor, row_B: Tensor, fs: float) -> None:
        shape = tuple(ecg_BLT.shape)
        if len(shape) != 3 or shape[1] != NUM_LEADS or not shape[2]:
            raise ValueError(f"ecg has shape {shape}: give (B, {NUM_LEADS}, T) with T >= 1")
        if ecg_BLT.dtype != torch.float32:
            raise ValueError(f"ecg is {ecg_BLT.dtype}: give float32, in mV")
        if row_B.dtype != torch.int64 or tuple(row_B.shape) != shape[:1]:
            raise ValueError(
                f"row is {row_B.dtype} of shape {tuple(row_B.shape)}: give int64 of shape "
                f"{shape[:1]}"
            )
        for name, value, highest_hz in (
            ("mains_uv", self.mains_uv, MAINS_HZ[1]),
            ("wander_uv", self.wander_uv, WANDER_HZ[1]),
        ):
            if value and not fs > 2 * highest_hz:
                raise ValueError(
                    f"fs {fs} Hz is too low for {name}: more than {2 * highest_hz:g} Hz are needed "
                    f"(set {name} to 0)"
                )

    def _augment(self, ecg_BLT: Tensor, row_B: Tensor, seed: int, epoch: int, fs: float) -> None:
        """Change ``ecg_BLT`` in place."""

        def key_B(kind: _Kind) -> Tensor:
            return draws.sample_keys(row_B, kind, seed=seed, epoch=epoch)

        # Leads and stretches may go first: a missing sample stays missing whatever is added.
        if self.lead_dropout:
            ecg_BLT *= _nan_where(_dropped(ecg_BLT, key_B(_Kind.LEAD_DROPOUT), self.lead_dropout))
        if self.time_mask:
            num_samples = ecg_BLT.shape[2]
            ecg_BLT *= _nan_where(_masked(key_B(_Kind.TIME_MASK), num_samples, self.time_mask))
        if self.scaling:
            ecg_BLT *= _gain(key_B(_Kind.SCALING), self.scaling)
        if self.wander_uv:
            add_wander(ecg_BLT, key_B(_Kind.WANDER), self.wander_uv, fs)
        if self.mains_uv:
            add_mains(ecg_BLT, key_B(_Kind.MAINS), self.mains_uv, fs)
        if self.jitter_uv:
            add_white_noise(ecg_BLT, key_B(_Kind.JITTER), self.jitter_uv)


def _gain(key_B: Tensor, sd: float) -> Tensor:
    """A gain for each lead, (B, 12, 1) float32."""
    words_BL = draws.hash_words(key_B[:, None], torch.arange(NUM_LEADS, device=key_B.device))
    table = draws.log_normal_table(sd, key_B.device)
    return draws.look_up(table, draws.upper_bits(words_BL, draws.TABLE_BITS))[:, :, None]


def _dropped(ecg_BLT: Tensor, key_B: Tensor, probability: float) -> Tensor:
    """Which leads to drop, (B, 12, 1) bool."""
    words_BL = draws.hash_words(key_B[:, None], torch.arange(NUM_LEADS, device=key_B.device))
    draw_BL = draws.upper_bits(words_BL, 32)
    dropped_BL = draw_BL < round(probability * 2**32)
    # A lead of missing samples and zeros is no rest of a record: a model reads both as 0.
    draw_BL.masked_fill_(ecg_BLT.square().nansum(2) == 0, -1)
    # The lead with the largest draw would be dropped only together with all others.
    is_largest_BL = draw_BL == draw_BL.amax(1, keepdim=True)
    return (dropped_BL & ~is_largest_BL)[:, :, None]


def _masked(key_B: Tensor, num_samples: int, share: float) -> Tensor:
    """Which samples to mask, (B, 1, T) bool."""
    words_B2 = draws.hash_words(key_B[:, None], torch.arange(2, device=key_B.device))
    longest = min(int(share * num_samples), num_samples - 1)
    length_B1 = draws.below(words_B2[:, :1], longest + 1)
    start_B1 = draws.below(words_B2[:, 1:], num_samples - length_B1 + 1)
    time_T = torch.arange(num_samples, device=key_B.device)
    return ((time_T >= start_B1) & (time_T < start_B1 + length_B1))[:, None]


def _nan_where(mask: Tensor) -> Tensor:
    """1 or NaN, to multiply by: several times faster than ``masked_fill`` with a broadcast mask."""
    return torch.ones_like(mask, dtype=torch.float32).masked_fill_(mask, math.nan)


def crop_starts(
    rows: NDArray[np.int64], num_samples: int, crop: int, *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Where the random crops of records begin, for the loader to cut while it reads.

    Args:
        rows: (B,) int64, the samples' rows in the data set.
        num_samples: samples of each record, below 2**31.
        crop: samples to keep.
        seed, epoch: what the draws depend on beside the row, not negative.

    Returns:
        (B,) int64, uniform from 0 to ``num_samples - crop``.

    Raises:
        ValueError: ``crop`` is not in 1 .. ``num_samples``, or ``seed`` or ``epoch`` is negative.
    """
    if not 1 <= crop <= num_samples:
        raise ValueError(
            f"a crop of {crop} samples does not fit records of {num_samples}: give 1 to "
            f"{num_samples}"
        )
    row_B = torch.from_numpy(np.array(rows, dtype=np.int64, order="C"))  # it may be read-only
    key_B = draws.sample_keys(row_B, _Kind.CROP, seed=seed, epoch=epoch)
    words_B = draws.hash_words(key_B, torch.zeros_like(key_B))
    return draws.below(words_B, num_samples - crop + 1).numpy()
