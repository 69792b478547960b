"""Noise for batches of ECGs, drawn from keys: white, baseline wander and mains.

Only integer arithmetic, look-ups, products, sums and maxima over whole rows are used, so that a
sample's noise is the same bit for bit wherever in a batch it stands (see
:mod:`esi_fast.data.draws`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from esi_fast.data import draws
from esi_fast.leads import NUM_LEADS

MAINS_HZ = (50.0, 60.0)
WANDER_HZ = (0.05, 0.5)
WANDER_TONES = 3

_NUM_ELECTRODES = 9  # RA, LA, LL, V1 .. V6: the right leg is the amplifier's ground
_PHASE_BITS = 32  # of a turn


def add_white_noise(ecg_BLT: Tensor, key_B: Tensor, sd_uv: float) -> None:
    """Add Gaussian noise of a standard deviation in uV to ``ecg_BLT``, (B, 12, T) mV, in place.

    A value depends on the key, the lead and the sample's number, not on the length of the record.
    """
    num_samples = ecg_BLT.shape[2]
    counter_LT = counters(NUM_LEADS, -(-num_samples // 4), ecg_BLT.device)
    position_BLT = draws.quarters(draws.hash_words(key_B[:, None, None], counter_LT))
    table = draws.normal_table(sd_uv / 1000, ecg_BLT.device)
    ecg_BLT += draws.look_up(table, position_BLT)[:, :, :num_samples]


def add_wander(ecg_BLT: Tensor, key_B: Tensor, limit_uv: float, fs: float) -> None:
    """Add tones between 0.05 and 0.5 Hz to ``ecg_BLT``, (B, 12, T) mV, in place."""
    words_BEK = _tone_words(key_B, WANDER_TONES)
    lowest, highest = (_phase_step(hz, fs) for hz in WANDER_HZ)
    step_BK = lowest + draws.below(words_BEK[:, 0], highest - lowest)
    _add_tones(ecg_BLT, words_BEK[:, 1:], step_BK, limit_uv)


def add_mains(ecg_BLT: Tensor, key_B: Tensor, limit_uv: float, fs: float) -> None:
    """Add a tone at 50 or 60 Hz to ``ecg_BLT``, (B, 12, T) mV, in place."""
    words_BEK = _tone_words(key_B, 1)
    low, high = (_phase_step(hz, fs) for hz in MAINS_HZ)
    step_BK = low + draws.below(words_BEK[:, 0], 2) * (high - low)
    _add_tones(ecg_BLT, words_BEK[:, 1:], step_BK, limit_uv)


def counters(num_rows: int, num_columns: int, device: torch.device) -> Tensor:
    """Counters of a table of draws, (rows, columns) int64: they stay when either number grows."""
    row = torch.arange(num_rows, device=device)
    return (row << 32)[:, None] + torch.arange(num_columns, device=device)


def _tone_words(key_B: Tensor, num_tones: int) -> Tensor:
    """Words (B, 11, K): row 0 for the frequencies, 1 .. 9 the electrodes, 10 the level."""
    counter_EK = counters(_NUM_ELECTRODES + 2, num_tones, key_B.device)
    return draws.hash_words(key_B[:, None, None], counter_EK)


def _phase_step(hz: float, fs: float) -> int:
    """What a tone's phase advances by in a sample, in 2**-32 of a turn."""
    return round(hz / fs * (1 << _PHASE_BITS))


def _add_tones(ecg_BLT: Tensor, words_BEK: Tensor, step_BK: Tensor, limit_uv: float) -> None:
    """Add K tones that arise at the electrodes, with words for nine electrodes and the level.

    Direct digital synthesis (Tierney, Rader and Gold, IEEE Trans. Audio Electroacoust. 1971): an
    integer phase looks the wave up, so that long records need no accurate float.
    """
    cosine, sine = draws.circle_table(ecg_BLT.device)
    # An electrode's amplitude is uniform in (0, 1] and its phase uniform, from separate bits.
    phase_BEK = draws.upper_bits(words_BEK[:, :-1], draws.TABLE_BITS)
    amplitude_BEK = 1.0 - draws.unit(words_BEK[:, :-1] << draws.TABLE_BITS)
    real_BLK = _to_leads(amplitude_BEK * draws.look_up(cosine, phase_BEK))
    imag_BLK = _to_leads(amplitude_BEK * draws.look_up(sine, phase_BEK))

    power_BLK = real_BLK * real_BLK + imag_BLK * imag_BLK
    power_BL = power_BLK[:, :, 0].clone()
    for tone in range(1, power_BLK.shape[2]):  # sum() may add in another order elsewhere
        power_BL += power_BLK[:, :, tone]
    # In double precision, lest the last bit of a square root shows.
    level_B = draws.unit(words_BEK[:, -1, 0]).double() * (limit_uv / 1000)
    gain_B = (level_B / (power_BL.amax(1).double() * 0.5).sqrt()).to(torch.float32)
    real_BLK *= gain_B[:, None, None]
    imag_BLK *= gain_B[:, None, None]

    time_T = torch.arange(ecg_BLT.shape[2], device=ecg_BLT.device)
    for tone in range(step_BK.shape[1]):
        turn_BT = (step_BK[:, tone, None] * time_T) >> (_PHASE_BITS - draws.TABLE_BITS)
        turn_BT &= draws.TABLE_SIZE - 1
        ecg_BLT += real_BLK[:, :, tone, None] * draws.look_up(cosine, turn_BT)[:, None]
        ecg_BLT -= imag_BLK[:, :, tone, None] * draws.look_up(sine, turn_BT)[:, None]


def _to_leads(electrode_BEK: Tensor) -> Tensor:
    """Potentials at RA, LA, LL, V1 .. V6, (B, 9, K), to leads in the standard order, (B, 12, K)."""
    right, left, foot = electrode_BEK[:, :3].unbind(1)
    central_B1K = ((right + left + foot) * (1 / 3))[:, None]  # Wilson's terminal
    einthoven_BLK = torch.stack([left - right, foot - right, foot - left], dim=1)
    goldberger_BLK = (electrode_BEK[:, :3] - central_B1K) * 1.5
    chest_BLK = electrode_BEK[:, 3:] - central_B1K
    return torch.cat([einthoven_BLK, goldberger_BLK, chest_BLK], dim=1)
