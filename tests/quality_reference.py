"""What the flags of a record mean, restated sample by sample in double precision: the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import STANDARD_LEADS

Array = NDArray[Any]
SEGMENT = 20  # blocks


def reference(signal: NDArray[np.float32], fs: float) -> dict[str, Any]:
    """The flags of (12, T) mV, unrounded."""
    missing = np.isnan(signal).mean(axis=1)
    gaps = ~(np.abs(signal) <= 1e6)
    absurd = (gaps & ~np.isnan(signal)).any(axis=1)
    x = np.stack([bridged(row, gap) for row, gap in zip(signal, gaps, strict=True)])
    block = max(1, round(0.01 * fs))
    num_segments = x.shape[1] // (SEGMENT * block)
    whole = x[:, : num_segments * SEGMENT * block].astype(float)
    blocks = whole.reshape(12, -1, block).mean(axis=2)
    rate = fs / block

    flat = ~absurd & (np.ptp(x, axis=1) < np.float32(0.01))
    out_of_range = absurd | (np.abs(x).max(axis=1) > 20)
    judged = ~flat & ~out_of_range
    clipped = np.array([judged[i] and is_clipped(x[i], blocks[i], fs) for i in range(12)])
    in_range = (missing < 0.5) & ~out_of_range
    sound = in_range & ~clipped
    limbs: dict[str, Any] = {}
    if sound[:6].all():
        is_whole = ~gaps[:6, : whole.shape[1]].reshape(6, -1, block).any(axis=(0, 2))
        limbs = limb_leads(blocks[:6, is_whole], flat[:6])
    limbs_agree = bool(sound[:6].all()) and not limbs
    found = {
        "flat": names(flat),
        "missing": levels(missing, missing > 0),
        "clipped": names(clipped),
        "out_of_range": names(out_of_range),
        "limb_leads": limbs,
        "reversal": reversals(blocks, rate, sound & ~flat, limbs_agree),
    }
    legible = in_range & ~flat
    mains = np.array([mains_level(row, fs, SEGMENT * block) for row in whole])
    found["mains"] = levels(mains, legible & (mains > 50 / np.sqrt(8)))
    wander = wander_level(blocks, rate)
    found["wander"] = levels(wander, legible & (wander > 1000 / np.sqrt(8)))
    return {name: value for name, value in found.items() if value}


def names(mask: Array) -> list[str]:
    return [lead for lead, holds in zip(STANDARD_LEADS, mask, strict=True) if holds]


def levels(level: Array, mask: Array) -> dict[str, float]:
    return {lead: float(level[STANDARD_LEADS.index(lead)]) for lead in names(mask)}


def bridged(row: Array, gap: Array) -> Array:
    if gap.all():
        return np.zeros_like(row)
    at = np.arange(len(row))
    return np.where(gap, np.interp(at, at[~gap], row[~gap]), row).astype(np.float32)


def is_clipped(row: Array, blocks: Array, fs: float) -> bool:
    if not len(blocks):
        return False
    enough = max(5, round(0.03 * fs))
    held = max(enough, round(0.2 * fs))
    baseline = np.sort(blocks)[len(blocks) // 2]
    for extreme in (row.min(), row.max()):
        begin = 0
        for rests, run in groupby(row == extreme):
            end = begin + len(list(run))
            needed = held if begin == 0 or end == len(row) else enough
            if rests and end - begin >= needed and abs(extreme - baseline) > 0.5:
                return True
            begin = end
    return False


def residuals(limbs: Array) -> dict[str, Array]:
    lead_i, lead_ii, lead_iii, avr, avl, avf = limbs
    return {
        "I+III=II": lead_i + lead_iii - lead_ii,
        "aVR=-(I+II)/2": avr + (lead_i + lead_ii) / 2,
        "aVL=(I-III)/2": avl - (lead_i - lead_iii) / 2,
        "aVF=(II+III)/2": avf - (lead_ii + lead_iii) / 2,
    }


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def limb_leads(limbs: Array, flat: Array) -> dict[str, Any]:
    if not limbs.shape[1]:
        return {}
    limbs = limbs - limbs.mean(axis=1, keepdims=True)
    scale = rms(limbs)
    tolerance = max(0.05 * scale, 0.005)

    def part(lead: int) -> Array:
        """Which equations hold the lead, and with what factor."""
        return np.array([r[0] for r in residuals(np.eye(6)[lead][:, None]).values()])

    def hold(leads: Array) -> bool:
        return max(map(rms, residuals(leads).values())) <= tolerance

    is_judged = ~np.array([part(lead) != 0 for lead in np.flatnonzero(flat)] or [[False] * 4]).any(
        0
    )
    equations = {
        name: rms(residual) / scale
        for (name, residual), judged in zip(residuals(limbs).items(), is_judged, strict=True)
        if judged and rms(residual) > tolerance
    }
    if not equations:
        return {}
    found: list[dict[str, Any]] = []
    for a, b in combinations(range(6), 2):
        order = list(range(6))
        order[a], order[b] = b, a
        if hold(limbs[order]):
            found.append({"exchanged": [STANDARD_LEADS[a], STANDARD_LEADS[b]]})
    for lead in range(6):
        # What the lead would have to be, to make the equations hold as far as one lead can.
        others = limbs.copy()
        others[lead] = 0
        needed = -part(lead) @ np.stack(list(residuals(others).values())) / (part(lead) ** 2).sum()
        others[lead] = needed
        if not hold(others):
            continue
        found.append({"lead": STANDARD_LEADS[lead]})
        factor = needed @ limbs[lead] / (limbs[lead] @ limbs[lead])
        others[lead] = factor * limbs[lead]
        if factor and hold(others):
            found[-1]["gain"] = 1 / factor
    explanation = found[0] if len(found) == 1 and not flat.any() else {}
    return {"equations": equations, **explanation}


def reversals(blocks: Array, rate: float, sound: Array, limbs_agree: bool) -> list[str]:
    independent = [0, 1, 6, 7, 8, 9, 10, 11]
    sound, leads = sound[independent], blocks[independent]
    limbs_agree = limbs_agree and bool(sound[:2].any())
    if rate < 50 or not (limbs_agree or sound[2:].all()) or not is_suspicious(leads, rate):
        return []
    before, after = round(0.30 * rate), round(0.35 * rate)
    beats = np.array(
        [
            leads[:, peak - before : peak + after]
            for peak in peaks(leads[sound], rate)
            if before <= peak < leads.shape[1] - after
        ]
    )
    if len(beats) < 3:
        return []
    beats -= beats.mean(axis=2, keepdims=True)
    beat = beats.mean(axis=0)
    total = np.square(beats).sum(axis=(0, 2))
    common = (len(beats) ** 2 * np.square(beat).sum(axis=1) - total) / (len(beats) - 1)
    usable = sound & (common > 0.2 * total)
    found = []
    if limbs_agree and (usable[0] or usable[1]):
        found += limb_reversal(beat, before, rate, usable)
    if usable[2:].all():
        pair, gain = best_exchange(beat[2:])
        if gain > 0.2:
            found.append(f"V{pair[0] + 1}/V{pair[1] + 1}")
    return found


def likeness(a: Array, b: Array) -> float:
    power = (a @ a) * (b @ b)
    return float(a @ b / np.sqrt(power)) if power else 0.0


def best_exchange(chest: Array) -> tuple[tuple[int, int], float]:
    def sum_of(order: list[int]) -> float:
        return sum(likeness(chest[a], chest[b]) for a, b in pairwise(order))

    def gain(pair: tuple[int, int]) -> float:
        order = list(range(6))
        order[pair[0]], order[pair[1]] = pair[1], pair[0]
        return sum_of(order) - sum_of(list(range(6)))

    best = max(combinations(range(6), 2), key=gain)
    return best, gain(best)


def is_suspicious(leads: Array, rate: float) -> bool:
    lag = max(1, round(0.08 * rate))
    steps = leads[:, lag:] - leads[:, :-lag]
    powers = [float(step @ step) for step in (steps[0], steps[1], steps[1] - steps[0])]
    return (
        min(powers) < 0.25**2 * max(powers)
        or min(likeness(steps[0], steps[7]), likeness(steps[1], steps[7])) < -0.1
        or best_exchange(steps[2:])[1] > 0.02
    )


def limb_reversal(beat: Array, peak: int, rate: float, usable: Array) -> list[str]:
    spans = [np.ptp(lead) for lead in (beat[0], beat[1], beat[1] - beat[0])]
    if min(spans) < 0.1 * max(spans):
        return [("RA/RL+LA/LL", "RA/RL", "LA/RL")[spans.index(min(spans))]]
    alike = [likeness(beat[lead], beat[7]) for lead in (0, 1)]
    lead = alike.index(min(alike))
    if not (usable[lead] and usable[7] and alike[lead] < -0.4):
        return []

    def stretch(begin: float, end: float) -> Array:
        return beat[lead, peak + round(begin * rate) : peak + round(end * rate)]

    qrs = stretch(-0.06, 0.08) - stretch(-0.08, -0.05).mean()
    p_wave = stretch(-0.26, -0.07)
    is_down = qrs.max() + qrs.min() < 0
    has_no_p = p_wave.mean() - (p_wave[0] + p_wave[-1]) / 2 < 0.002
    return [("RA/LA", "RA/LL")[lead]] if is_down and has_no_p else []


def peaks(leads: Array, rate: float) -> Iterator[int]:
    """The middle of each QRS complex."""
    second, width = round(rate), max(1, round(0.08 * rate))
    slopes = np.abs(leads[:, 2:] - leads[:, :-2])
    if not len(leads) or slopes.shape[1] < 3 * second:
        return
    together = (slopes / (slopes.mean(axis=1, keepdims=True) + 1e-6)).sum(axis=0)
    steepness = np.convolve(together, np.ones(width), "valid")[1:]
    of_seconds = [
        max(steepness[i : i + second]) for i in range(0, len(steepness) - second + 1, second)
    ]
    usual, quiet = (sorted(values)[len(values) // 2] for values in (of_seconds, steepness))
    steep = np.flatnonzero(steepness > quiet + 0.4 * (usual - quiet))
    begin = last = None
    for at in [*steep, None]:
        if last is not None and (at is None or (at > last + 1 and at - last - 1 >= 0.12 * rate)):
            yield (begin + last + 1) // 2 + 1 + width // 2
            begin = at
        begin = at if begin is None else begin
        last = at


def mains_level(row: Array, fs: float, length: int) -> float:
    """uV RMS at 50 or 60 Hz in excess of that beside it, by the lower quartile over segments."""
    segments = row.reshape(-1, length)
    if not len(segments):
        return 0.0
    time = (np.arange(length) - (length - 1) / 2) / fs
    scaled = time / time[-1]
    smooth = np.polynomial.polynomial.polyvander(scaled, 2)
    segments = segments - (smooth @ np.linalg.lstsq(smooth, segments.T, rcond=None)[0]).T

    def power(hz: float) -> float:
        waves = segments @ np.exp(2j * np.pi * hz * time) * np.sqrt(2) / length
        return float(np.sort(np.abs(waves) ** 2)[len(waves) // 4])

    apart = fs / length
    level = 0.0
    for hz in (50, 60):
        if hz + apart < fs / 2 and power(hz) > (0.050 / np.sqrt(8)) ** 2:
            excess = power(hz) - (power(hz - apart) + power(hz + apart)) / 2
            level = max(level, 1000 * np.sqrt(max(excess, 0.0)))
    return level


def wander_level(blocks: Array, rate: float) -> Array:
    """uV RMS of the harmonics below 0.5 Hz; 0 for less than 4 s."""
    seconds = blocks.shape[1] / rate
    if seconds < 4:
        return np.zeros(12)
    means = blocks.reshape(12, -1, SEGMENT).mean(axis=2)
    num_segments = means.shape[1]
    harmonics = np.arange(1, int(np.ceil(0.5 * seconds)))
    spectrum = np.fft.fft(means, axis=1)[:, harmonics % num_segments]
    level: Array = 1000 * np.sqrt(2 * (np.abs(spectrum) ** 2).sum(axis=1)) / num_segments
    return level
