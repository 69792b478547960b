"""Signal quality of one record: what is wrong with its leads, electrodes and baseline.

One product with the samples gives the means of blocks of about 10 ms and the mains components of
segments of about 0.2 s; nearly all else works on those, so that a record costs a fraction of a
millisecond and can be assessed whenever it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS
from esi_fast.signal.quality_electrodes import LimbLeads, check_equations, suspect_reversals

# A lead that stays within 10 uV over the whole record carries no heartbeat.
FLAT_RANGE_MV = 0.01
# A resting ECG never reaches 20 mV.
OUT_OF_RANGE_MV = 20.0
ABSURD_MV = 1e6  # beyond it, or infinite, a sample is no voltage: it counts for nothing else
# A saturated ADC repeats its limit; the top of a T wave, at 5 uV a step, for up to 26 ms.
CLIPPED_S = 0.03
CLIPPED_SAMPLES = 5  # at least, at low rates
SATURATION_MV = 0.5  # from the baseline; closer to it, equal samples are a quiet stretch
HELD_S = 0.2  # at either end of a record; shorter, it is the last value held to fill the record up
# Beyond these an analysing electrocardiograph's measurements are not known to hold: it is tested
# with mains of 50 uV peak to peak and a baseline of 1 mV peak to peak at 0.3 Hz (IEC 60601-2-51).
MAINS_UV = 50.0 / math.sqrt(8)
WANDER_UV = 1000.0 / math.sqrt(8)

_BLOCK_S = 0.01
_BLOCKS = 20  # in a segment: a whole number of periods of 50 and of 60 Hz
_MAINS_HZ = (50, 60)
_SAME_MV = 1e-4  # the mean of equal samples is theirs but for rounding
_WANDER_HZ = 0.5
_WANDER_S = 4.0  # a shorter record does not show what is below 0.5 Hz

Signal = NDArray[np.float32]
Mask = NDArray[np.bool_]


class QualityFlags(TypedDict, total=False):
    """Only what is wrong is present; an empty mapping is a clean record.

    Attributes:
        flat: leads whose range is below 10 uV, or that have no sample at all.
        missing: lead -> share of its samples that is missing, (0, 1].
        clipped: leads that stay at their own extreme, 0.5 mV or more from the baseline, for 30 ms
            and at least 5 samples: a saturated ADC. Resampling may round a shorter plateau off.
        out_of_range: leads that exceed +-20 mV.
        limb_leads: equations of the limb leads that fail, and what explains it.
        reversal: suspected electrode exchanges: ``"RA/LA"``, ``"RA/LL"``, ``"RA/RL"``, ``"LA/RL"``,
            ``"RA/RL+LA/LL"``; ``"V1/V2"`` and any other pair of chest leads.
        mains: lead -> level at 50 or 60 Hz, the larger, uV RMS, above 17.7 (50 uV peak to peak).
        wander: lead -> level below 0.5 Hz, uV RMS, above 353.6 (1 mV peak to peak).
        amplitude: why a catalogue's amplitudes are unreliable; set by who knows the catalogue.
    """

    flat: list[str]
    missing: dict[str, float]
    clipped: list[str]
    out_of_range: list[str]
    limb_leads: LimbLeads
    reversal: list[str]
    mains: dict[str, float]
    wander: dict[str, float]
    amplitude: str


def assess(signal: Signal, fs: float) -> QualityFlags:
    """Flags of a 12-lead record.

    Limb leads are held against Einthoven's law (I + III = II) and Goldberger's augmented leads.
    Reversals are judged on the average beat, by the signs that the AHA/ACC/HRS recommendations
    name (Kligfield et al., Circulation 2007;115:1306-24): with the arms exchanged lead I is upside
    down, P and QRS, where V6 is not; with the right leg's electrode on an arm a limb lead is nearly
    flat; exchanged chest leads break the order V1..V6, here the correlation of neighbours (as in
    Jekova et al., Comput Methods Programs Biomed 2016;134:31-41).

    On 503 recordings of 10 s (353 PTB-XL, 30 Challenge 2021, 120 LUDB in ADC units) a reversal is
    suspected in 4 as they are (2 of the 225 that are reported normal), and named when simulated in

    ========  ====  ========  ====  =====  ====  =====  ====  ========================  ==========
    RA/LA     86 %  RA/RL     96 %  V1/V2  70 %  V3/V4  78 %  V4/V6                     60 %
    RA/LL     84 %  LA/RL     99 %  V2/V3  80 %  V4/V5  54 %  other pairs of the chest  88 to 94 %
    LA/LL      0 %  both arms 96 %  V5/V6  17 %
    ========  ====  ========  ====  =====  ====  =====  ====  ========================  ==========

    LA/LL only turns the axis: P in I above P in II, its usual sign, holds for 15 % of these
    recordings. LL/RL changes nothing, all chest leads in reverse keep their neighbours, and three
    limb electrodes in rotation are named as the exchange that they resemble. A heart on the right
    is not taken for exchanged arms, for its V6 is upside down with lead I.

    Args:
        signal: (12, T) in mV, standard lead order, NaN where samples are missing.
        fs: sampling rate, Hz.

    Returns:
        What is wrong, ready for json. Beyond flat, missing, clipped and out of range a lead is
        judged if at least half of its samples are there and the record is long enough: 0.2 s for
        the mains (50 Hz from ``fs`` = 112 up, 60 Hz from 134), 4 s for the wander, three beats for
        reversals.

    Raises:
        ValueError: the signal is not (12, T) of real numbers with T >= 1, or fs is not in
            0.5..1,000,000.
    """
    signal = np.asarray(signal)
    if signal.dtype.kind not in "iuf":
        raise ValueError(f"signal has dtype {signal.dtype}: it must be real numbers, in mV")
    signal = signal.astype(np.float32, copy=False)
    if signal.ndim != 2 or signal.shape[0] != len(STANDARD_LEADS) or signal.shape[1] == 0:
        raise ValueError(f"signal must be (12, T) with T >= 1, not {signal.shape}")
    if not 0.5 <= fs <= 1e6:
        raise ValueError(f"fs must be in 0.5..1000000 Hz, not {fs}")
    low, high = signal.min(axis=1), signal.max(axis=1)
    missing = np.zeros(len(STANDARD_LEADS))
    absurd = np.zeros(len(STANDARD_LEADS), bool)
    gaps: Mask | None = None
    # A lead with a missing sample has no minimum, and no comparison holds for it.
    if not (ordinary := (low >= -ABSURD_MV) & (high <= ABSURD_MV)).all():
        given = signal
        signal, gaps = _without_gaps(given, ~ordinary)
        for lead in np.flatnonzero(~ordinary):
            num_missing = np.count_nonzero(np.isnan(given[lead]))
            missing[lead] = num_missing / given.shape[1]
            absurd[lead] = np.count_nonzero(gaps[lead]) > num_missing
        low, high = signal.min(axis=1), signal.max(axis=1)
    flat = ~absurd & (high - low < FLAT_RANGE_MV)
    out_of_range = absurd | (high > OUT_OF_RANGE_MV) | (low < -OUT_OF_RANGE_MV)
    segments = _segments(signal, fs)
    clipped = _clipped(signal, segments.blocks, low, high, fs) & ~flat & ~out_of_range
    quality: QualityFlags = {}
    if flat.any():
        quality["flat"] = _names(flat)
    if missing.any():
        quality["missing"] = _values(missing, missing > 0, 6)
    if clipped.any():
        quality["clipped"] = _names(clipped)
    if out_of_range.any():
        quality["out_of_range"] = _names(out_of_range)
    in_range = (missing < 0.5) & ~out_of_range
    sound = in_range & ~clipped
    rate = fs / _block(fs)
    limbs_agree = bool(sound[:6].all())
    if limbs_agree:
        limbs = segments.blocks[:6]
        if gaps is not None and gaps[:6].any():
            limbs = limbs[:, _whole_blocks(gaps[:6], fs)]
        if limb_leads := check_equations(limbs, flat[:6]):
            quality["limb_leads"] = limb_leads
            limbs_agree = False
    if reversal := suspect_reversals(segments.blocks, rate, sound, flat, limbs_agree=limbs_agree):
        quality["reversal"] = reversal
    legible = in_range & ~flat
    mains = _mains(signal, fs, segments.mains)
    if (noisy := legible & (mains > MAINS_UV)).any():
        quality["mains"] = _values(mains, noisy, 1)
    wander = _wander(segments.blocks, rate)
    if (noisy := legible & (wander > WANDER_UV)).any():
        quality["wander"] = _values(wander, noisy, 1)
    return quality


def _names(mask: Mask) -> list[str]:
    return [STANDARD_LEADS[lead] for lead in np.flatnonzero(mask)]


def _values(level: NDArray[np.float64], mask: Mask, digits: int) -> dict[str, float]:
    return {STANDARD_LEADS[i]: round(float(level[i]), digits) for i in np.flatnonzero(mask)}


def _without_gaps(signal: Signal, leads: Mask) -> tuple[Signal, Mask]:
    """The signal with straight lines across its gaps, or 0 in an empty lead; and the gaps."""
    filled, gaps = signal.copy(), np.zeros(signal.shape, bool)
    position = np.arange(signal.shape[1])
    for lead in np.flatnonzero(leads):
        gaps[lead] = gap = ~(np.abs(signal[lead]) <= ABSURD_MV)
        if gap.all():
            filled[lead] = 0.0
        else:
            filled[lead, gap] = np.interp(position[gap], position[~gap], signal[lead, ~gap])
    return filled, gaps


def _block(fs: float) -> int:
    return max(1, round(_BLOCK_S * fs))


@lru_cache(maxsize=64)
def _weights(fs: float) -> NDArray[np.float32]:
    """What a segment's samples are multiplied by, (length, 20 + waves): for the means of its
    blocks, and for its components at 50 and 60 Hz as far as ``fs`` allows.
    """
    length = _BLOCKS * _block(fs)
    blocks = np.kron(np.eye(_BLOCKS), np.full((length // _BLOCKS, 1), _BLOCKS / length))
    waves = _waves(tuple(hz for hz in _MAINS_HZ if hz + fs / length < fs / 2), fs)
    return np.concatenate([blocks, waves], axis=1).astype(np.float32)


@lru_cache(maxsize=64)
def _waves(frequencies: tuple[float, ...], fs: float) -> NDArray[np.float32]:
    """Cosine and sine of each frequency over a segment, (length, 2 * frequencies).

    The squares of a pair's products add up to the squared RMS.
    """
    length = _BLOCKS * _block(fs)
    time = (np.arange(length) - (length - 1) / 2) / fs
    phase = 2 * np.pi * np.outer(time, frequencies)
    waves = np.stack([np.cos(phase), np.sin(phase)], axis=2).reshape(length, -1)
    # Baseline and T waves are far larger than mains: what a parabola explains is not counted.
    parabola, _ = np.linalg.qr(np.vander(time, 3))
    waves -= parabola @ (parabola.T @ waves)
    return (waves * (math.sqrt(2) / length)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Segments:
    """A record in whole segments.

    Attributes:
        blocks: (12, 20 * segments) mV, block means.
        mains: (12, segments, frequencies) mV^2, squared RMS at 50 and 60 Hz.
    """

    blocks: Signal
    mains: Signal


def _segments(signal: Signal, fs: float) -> _Segments:
    parts = _split(signal, _BLOCKS * _block(fs))
    num_leads, num_segments, _ = parts.shape
    if not num_segments:
        return _Segments(signal[:, :0], signal[:, :0, None])
    # A product per lead: one of all leads is large enough for BLAS to wake its other threads.
    product = parts @ _weights(fs)
    waves = np.square(product[:, :, _BLOCKS:])
    return _Segments(
        blocks=product[:, :, :_BLOCKS].reshape(num_leads, num_segments * _BLOCKS),
        mains=waves[:, :, ::2] + waves[:, :, 1::2],
    )


def _split(signal: Signal, length: int) -> Signal:
    """(leads, segments, length); what is left over of a record is not looked at."""
    num_segments = signal.shape[1] // length
    return signal[:, : num_segments * length].reshape(len(signal), num_segments, length)


def _whole_blocks(gaps: Mask, fs: float) -> Mask:
    """Which blocks of whole segments have all samples of all of these leads."""
    block = _block(fs)
    num_samples = gaps.shape[1] // (_BLOCKS * block) * (_BLOCKS * block)
    some: Mask = np.logical_or.reduce(gaps[:, :num_samples], axis=0)
    whole: Mask = ~np.logical_or.reduce(some.reshape(-1, block), axis=1)
    return whole


def _clipped(signal: Signal, blocks: Signal, low: Signal, high: Signal, fs: float) -> Mask:
    """Leads that rest at an extreme of theirs."""
    clipped = np.zeros(len(signal), bool)
    if not blocks.shape[1]:
        return clipped
    run = max(CLIPPED_SAMPLES, round(CLIPPED_S * fs))
    # Such a run holds a whole block, which spares most leads the scan.
    at_high = blocks.max(axis=1) > high - _SAME_MV
    at_low = blocks.min(axis=1) < low + _SAME_MV
    for extreme, at_extreme in ((high, at_high), (low, at_low)):
        for lead in np.flatnonzero(at_extreme):
            resting = signal[lead] == extreme[lead]
            if np.count_nonzero(resting) < run:
                continue
            baseline = np.sort(blocks[lead])[blocks.shape[1] // 2]
            if abs(extreme[lead] - baseline) > SATURATION_MV:
                clipped[lead] |= _rests(resting, run, round(HELD_S * fs))
    return clipped


def _rests(at_extreme: Mask, run: int, held: int) -> bool:
    """Whether a run has ``run`` samples at least, and ``held`` if it touches an end."""
    edges = np.flatnonzero(np.diff(at_extreme, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    touches = (starts == 0) | (ends == len(at_extreme))
    return bool((ends - starts >= np.where(touches, max(run, held), run)).any())


def _mains(signal: Signal, fs: float, power: Signal) -> NDArray[np.float64]:
    """Level of the mains, (12,) uV RMS; 0 where it cannot exceed the threshold.

    The level is the power at the mains frequency less that beside it, so that muscle noise
    and QRS complexes do not count; the lower quartile over the segments, so that it lasts.
    """
    level = np.zeros(len(signal))
    loud = _lower_quartile(power) > (MAINS_UV / 1000) ** 2
    for column in np.flatnonzero(loud.any(axis=0)):
        leads = np.flatnonzero(loud[:, column])
        hz = _MAINS_HZ[column]
        # The nearest frequencies to which mains does not leak from a segment.
        apart = fs / (_BLOCKS * _block(fs))
        waves = _waves((hz - apart, hz + apart), fs)
        squares = np.square(_split(signal[leads], len(waves)) @ waves)
        beside = _lower_quartile(squares[:, :, ::2] + squares[:, :, 1::2]).mean(axis=1)
        excess = _lower_quartile(power[leads, :, column : column + 1])[:, 0] - beside
        level[leads] = np.maximum(level[leads], 1000 * np.sqrt(np.maximum(excess, 0.0)))
    return level


def _lower_quartile(power: Signal) -> NDArray[np.float64]:
    """(leads, segments, frequencies) -> (leads, frequencies); 0 without segments."""
    num_segments = power.shape[1]
    if not num_segments:
        return np.zeros((len(power), power.shape[2]))
    ordered = np.sort(power.transpose(0, 2, 1), axis=2)
    return ordered[:, :, num_segments // 4].astype(np.float64)


def _wander(blocks: Signal, rate: float) -> NDArray[np.float64]:
    """RMS below 0.5 Hz, (12,) uV, from ``rate`` blocks a second; 0 for less than 4 s."""
    num_segments = blocks.shape[1] // _BLOCKS
    seconds = blocks.shape[1] / rate
    if seconds < _WANDER_S:
        return np.zeros(len(blocks))
    parts = blocks.reshape(len(blocks), num_segments, _BLOCKS)
    means = parts @ np.full(_BLOCKS, 1 / _BLOCKS, np.float32)
    spectrum = means @ _slow_waves(num_segments, seconds)
    level: NDArray[np.float64] = 1000 * np.sqrt(np.square(spectrum, dtype=np.float64).sum(axis=1))
    return level


@lru_cache(maxsize=64)
def _slow_waves(num_segments: int, seconds: float) -> NDArray[np.float32]:
    """Cosines and sines of a record's harmonics below 0.5 Hz, (num_segments, 2 * harmonics)."""
    harmonics = np.arange(1, math.ceil(_WANDER_HZ * seconds))
    phase = 2 * np.pi / num_segments * np.outer(np.arange(num_segments), harmonics)
    waves = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    return (waves * (math.sqrt(2) / num_segments)).astype(np.float32)


def assess_records(signal: NDArray[np.int16], fs: float) -> list[QualityFlags]:
    """`assess` of many records, (n, 12, T) int16 in uV, -32768 where missing."""
    missing = signal == -32768
    millivolts = signal.astype(np.float32) / np.float32(1000)
    millivolts[missing] = np.nan
    return [assess(record, fs) for record in millivolts]
