"""Whether a record's leads are what they are called: the limb leads' equations, and reversals.

Everything here works on block means at about 100 Hz, which keep what is needed of P and QRS: the
equations hold for any linear filter, and a lead's polarity and likeness to others need no more.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS

# Residual RMS over that of the limb leads: at most 0.021 on 503 recordings in ADC units, 0.155 and
# more (of a record's worst) on LUDB's 120 with a gain of its own for each lead. The floor spares
# small signals in steps of 5 uV.
EQUATION_TOLERANCE = 0.05
EQUATION_FLOOR_MV = 0.005
# A limb lead's range over that of the largest of I, II and III, on the average beat: 0.139 and more
# on the same 503 recordings.
FLAT_LIMB_SHARE = 0.1
# Correlation of I (or II) with V6 on the average beat, and what the sum of the correlations of
# neighbouring chest leads gains when two are exchanged back.
OPPOSED = -0.4
ORDER_GAIN = 0.2
COHERENT_SHARE = 0.2  # of the power round the beats: less in common, and a lead shows no beat

# The same signs, fainter, in the steps of 80 ms of the whole record.
_LAG_S = 0.08
_FAINT_FLAT, _FAINT_OPPOSED, _FAINT_ORDER = 0.25, -0.1, 0.02

_BEAT_S = (0.30, 0.35)  # the window before and after a beat
_MIN_BEATS = 3
_MIN_RATE = 50.0  # Hz; below, a P wave is not told from the QRS complex
_QRS_S = 0.08
_PART_S = 0.12  # less between two steep stretches, and they are one complex
# Reversals are judged on the eight leads from which the others follow: I, II, V1..V6.
_INDEPENDENT = np.array([0, 1, 6, 7, 8, 9, 10, 11])
_V6 = 7  # among those eight; V1..V6 are 2..7
_PAIRS = tuple(combinations(range(6), 2))
_FLAT_LIMB = ("RA/RL+LA/LL", "RA/RL", "LA/RL")  # by which of I, II and III is flat

_EQUATIONS: Final = {
    "I+III=II": (1.0, -1.0, 1.0, 0.0, 0.0, 0.0),
    "aVR=-(I+II)/2": (0.5, 0.5, 0.0, 1.0, 0.0, 0.0),
    "aVL=(I-III)/2": (-0.5, 0.0, 0.5, 0.0, 1.0, 0.0),
    "aVF=(II+III)/2": (0.0, -0.5, -0.5, 0.0, 0.0, 1.0),
}
_NAMES = tuple(_EQUATIONS)
_RESIDUALS = np.array(list(_EQUATIONS.values()))
# Times the mean products of the limb leads: each equation's residual power, and the mean power.
_POWERS = np.stack([*(np.outer(row, row) for row in _RESIDUALS), np.eye(6) / 6]).reshape(5, 36)

Signal = NDArray[np.float32]
Mask = NDArray[np.bool_]


class LimbLeads(TypedDict, total=False):
    """Limb leads that contradict each other.

    Attributes:
        equations: the equations that fail, each with its residual: RMS over that of the limb leads.
        exchanged: the two leads whose exchange restores all four equations, if just one does.
        lead: the one lead without which all equations hold, if just one does.
        gain: the factor by which ``lead`` is too large (negative: inverted), where that is all.
    """

    equations: dict[str, float]
    exchanged: list[str]
    lead: str
    gain: float


def check_equations(limbs: Signal, flat: Mask) -> LimbLeads:
    """Hold the limb leads against Einthoven's law and Goldberger's definitions.

    Args:
        limbs: (6, N) mV, the limb leads where all have samples.
        flat: (6,) which are flat: an equation with one is not judged, its flag says enough.

    Returns:
        The failing equations and what explains them; empty where all hold.
    """
    num_samples = limbs.shape[1]
    if not num_samples:
        return {}
    limbs = limbs - (limbs @ _mean_weights(num_samples))[:, None]
    gram = (limbs @ limbs.T).astype(np.float64) / num_samples
    power = _POWERS @ gram.ravel()
    scale = math.sqrt(power[-1])
    tolerance = max(EQUATION_TOLERANCE * scale, EQUATION_FLOOR_MV)
    failing = power[:-1] > tolerance**2
    if not failing.any():
        return {}
    failing &= ~(_RESIDUALS[:, flat] != 0).any(axis=1)
    if not failing.any():
        return {}
    found: LimbLeads = {
        "equations": {
            _NAMES[i]: round(math.sqrt(power[i]) / scale, 3) for i in np.flatnonzero(failing)
        }
    }
    if not flat.any():
        found.update(_explanation(gram, tolerance))
    return found


@lru_cache(maxsize=64)
def _mean_weights(num_samples: int) -> Signal:
    return np.full(num_samples, 1 / num_samples, np.float32)


def _explanation(gram: NDArray[np.float64], tolerance: float) -> LimbLeads:
    """The exchange or the lead that explains failing equations, if just one does.

    Args:
        gram: (6, 6) mean products of the limb leads, mV^2.
        tolerance: residual RMS up to which an equation holds, mV.
    """

    def restored(residuals: NDArray[np.float64]) -> bool:
        return bool(((residuals @ gram) * residuals).sum(axis=1).max() <= tolerance**2)

    found: list[LimbLeads] = []
    for pair in _PAIRS:
        exchanged = _RESIDUALS.copy()
        exchanged[:, pair] = _RESIDUALS[:, pair[::-1]]
        if restored(exchanged):
            found.append({"exchanged": [STANDARD_LEADS[lead] for lead in pair]})
    for lead in range(6):
        column = _RESIDUALS[:, lead]
        others = _RESIDUALS.copy()
        others[:, lead] = 0.0
        length = column @ column
        # Whatever the lead should hold, it changes the residuals along its own column only.
        if restored(others - np.outer(column, column @ others) / length):
            found.append({"lead": STANDARD_LEADS[lead]})
            factor = -(column @ others @ gram[:, lead]) / (length * gram[lead, lead])
            others[:, lead] = factor * column
            if factor and restored(others):
                found[-1]["gain"] = round(float(1 / factor), 3)
    return found[0] if len(found) == 1 else {}


def suspect_reversals(
    blocks: Signal, rate: float, sound: Mask, flat: Mask, *, limbs_agree: bool
) -> list[str]:
    """Exchanges of electrodes that the average beat makes likely.

    Args:
        blocks: (12, N) mV.
        rate: blocks per second.
        sound: (12,) leads whose samples can be relied on.
        flat: (12,) leads without a signal.
        limbs_agree: whether the limb leads are sound and obey their equations.

    Returns:
        One name at most for the limb electrodes and one for the chest's.
    """
    sound = (sound & ~flat)[_INDEPENDENT]
    leads = blocks[_INDEPENDENT]
    limbs_agree = limbs_agree and bool(sound[:2].any())
    chest_sound = bool(sound[2:].all())
    if rate < _MIN_RATE or not (limbs_agree or chest_sound) or not _is_suspicious(leads, rate):
        return []
    before, after = (round(seconds * rate) for seconds in _BEAT_S)
    peaks = find_beats(leads[sound], rate)
    peaks = peaks[(peaks >= before) & (peaks < leads.shape[1] - after)]
    if len(peaks) < _MIN_BEATS:
        return []
    beats = leads[:, peaks[:, None] + np.arange(-before, after)]
    beats -= beats.mean(axis=2, keepdims=True)  # the baseline moves between beats
    beat = beats.mean(axis=1)
    energy = np.square(beat).sum(axis=1)
    total = np.square(beats).sum(axis=(1, 2))
    num_beats = len(peaks)
    # Of noise alone, 1 / num_beats is left in the average.
    common = (num_beats * num_beats * energy - total) / (num_beats - 1)
    usable = sound & (common > COHERENT_SHARE * total)
    correlation = _normalised(beat @ beat.T)
    found = []
    if limbs_agree and (name := _limb_reversal(beat, before, rate, correlation[_V6], usable)):
        found.append(name)
    if usable[2:].all():
        pair, gain = _best_exchange(correlation)
        if gain > ORDER_GAIN:
            found.append("/".join(f"V{1 + lead}" for lead in pair))
    return found


def _is_suspicious(leads: Signal, rate: float) -> bool:
    """Whether one of the signs is there in the whole record, more faintly than is asked for.

    It spares nine of ten records the search for beats; of 6,300 simulated exchanges of chest leads
    that the average beat tells, it lets none pass.
    """
    lag = max(1, round(_LAG_S * rate))
    steps = leads[:, lag:] - leads[:, :-lag]
    products = steps @ steps.T
    power_i, power_ii = float(products[0, 0]), float(products[1, 1])
    power_iii = power_i + power_ii - 2 * float(products[0, 1])
    if min(power_i, power_ii, power_iii) < _FAINT_FLAT**2 * max(power_i, power_ii, power_iii):
        return True
    correlation = _normalised(products)
    if correlation[_V6, :2].min() < _FAINT_OPPOSED:
        return True
    return _best_exchange(correlation)[1] > _FAINT_ORDER


def _normalised(products: Signal) -> Signal:
    """Products of leads of mean 0 to correlations; 0 for a lead that is 0 throughout."""
    norm = np.sqrt(products.diagonal())
    norm[norm == 0] = np.inf
    correlation: Signal = products / (norm[:, None] * norm)
    return correlation


def _best_exchange(correlation: Signal) -> tuple[tuple[int, int], float]:
    """The pair of V1..V6 whose exchange makes neighbours most alike, and by how much."""
    sums = _neighbours() @ correlation[2:, 2:].ravel()
    best = int(sums[:-1].argmax())
    return _PAIRS[best], float(sums[best] - sums[-1])


def _limb_reversal(
    beat: Signal, peak: int, rate: float, likeness: Signal, usable: Mask
) -> str | None:
    """The limb electrodes' suspected exchange; ``likeness`` is each lead's correlation with V6."""
    if not (usable[0] or usable[1]):
        return None
    limbs = np.stack([beat[0], beat[1], beat[1] - beat[0]])
    span = limbs.max(axis=1) - limbs.min(axis=1)
    flattest = int(span.argmin())
    if span[flattest] < FLAT_LIMB_SHARE * span.max():
        return _FLAT_LIMB[flattest]
    # With RA and LL exchanged I may be upside down too, but II is so more clearly.
    lead = int(likeness[:2].argmin())
    if not (usable[lead] and usable[_V6] and likeness[lead] < OPPOSED):
        return None
    return ("RA/LA", "RA/LL")[lead] if _upside_down(beat[lead], peak, rate) else None


def _upside_down(beat: Signal, peak: int, rate: float) -> bool:
    """Whether the QRS complex of an average beat is negative and its P wave not positive."""

    def at(seconds: float) -> int:
        return peak + round(seconds * rate)

    qrs = beat[at(-0.06) : at(0.08)] - beat[at(-0.08) : at(-0.05)].mean()
    p_wave = beat[at(-0.26) : at(-0.07)]
    # Against the line through its ends; 2 uV of mean height are a P wave of 4 to 5 uV: none.
    p_height = p_wave.mean() - (p_wave[0] + p_wave[-1]) / 2
    return bool(qrs.max() + qrs.min() < 0 and p_height < 0.002)


@lru_cache(maxsize=1)
def _neighbours() -> NDArray[np.float32]:
    """(16, 36): which correlations of V1..V6 are neighbours', by exchanged pair; last: by none."""
    rows = np.zeros((len(_PAIRS) + 1, 6, 6), np.float32)
    for row, pair in zip(rows, (*_PAIRS, (0, 0)), strict=True):
        order = np.arange(6)
        order[list(pair)] = order[list(pair[::-1])]
        row[order[:-1], order[1:]] = 1.0
    return rows.reshape(len(rows), 36)


def find_beats(leads: Signal, rate: float) -> NDArray[np.int64]:
    """Where the QRS complexes are: steep stretches of all leads together, each of equal weight.

    Args:
        leads: (L, N) mV, none of them flat.
        rate: samples per second.

    Returns:
        (num_beats,) indices of the middle of each, ascending; empty for less than 3 s.
    """
    second, width = round(rate), max(1, round(_QRS_S * rate))
    num_slopes = leads.shape[1] - 2
    if not len(leads) or num_slopes < 3 * second:
        return np.empty(0, np.int64)
    slopes = np.abs(leads[:, 2:] - leads[:, :-2])
    strength = slopes @ _mean_weights(num_slopes)
    total = ((1 / (strength + np.float32(1e-6))) @ slopes).cumsum(dtype=np.float64)
    steepness = total[width:] - total[:-width]
    num_seconds = len(steepness) // second
    of_seconds = steepness[: num_seconds * second].reshape(num_seconds, second).max(axis=1)
    usual, quiet = (np.sort(values)[len(values) // 2] for values in (of_seconds, steepness))
    above = np.zeros(len(steepness) + 2, bool)
    above[1:-1] = steepness > quiet + 0.4 * (usual - quiet)
    edges = np.flatnonzero(above[1:] != above[:-1])
    # A notch within a complex does not part it: its two edges are dropped.
    kept = np.ones(len(edges), bool)
    kept[1:-1] = np.repeat(edges[2::2] - edges[1:-1:2] >= _PART_S * rate, 2)
    middles: NDArray[np.int64] = edges[kept].reshape(-1, 2).sum(axis=1) // 2
    # Slope k lies at sample k + 1, and steepness k sums the slopes k + 1 .. k + width.
    return middles + 1 + width // 2
