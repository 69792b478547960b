"""Signal quality of records: what is wrong with their leads, electrodes and baseline.

The compiled core looks at the samples (csrc/quality.hpp); here its findings get their names. A
record costs some tens of microseconds and can be assessed whenever it is read.
"""

from __future__ import annotations

import os
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from esi_fast.leads import NUM_LEADS, STANDARD_LEADS
from esi_fast.signal.resample import _core

_STORED: Final = (np.dtype(np.float32), np.dtype(np.int16))
_EQUATIONS: Final = ("I+III=II", "aVR=-(I+II)/2", "aVL=(I-III)/2", "aVF=(II+III)/2")

Signal = NDArray[np.float32]


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
    if signal.ndim != 2 or signal.shape[0] != NUM_LEADS or signal.shape[1] == 0:
        raise ValueError(f"signal must be (12, T) with T >= 1, not {signal.shape}")
    return assess_records(signal.astype(np.float32, copy=False)[None], fs)[0]


def assess_records(
    signal: Signal | NDArray[np.int16], fs: float, *, threads: int = 1
) -> list[QualityFlags]:
    """Flags of many 12-lead records, each as :func:`assess` gives them.

    Args:
        signal: (n, 12, T), standard lead order: float32 in mV with NaN where samples are missing,
            or int16 in uV with -32768 there, which is as good as its float32 quotient by 1000.
        fs: sampling rate, Hz.
        threads: 0 takes as many as there are usable CPUs. The result does not depend on it.

    Returns:
        A mapping a record, in their order.

    Raises:
        ValueError: the signal is neither float32 nor int16 or not (n, 12, T) with T >= 1, fs is not
            in 0.5..1,000,000, or threads is negative.
    """
    if signal.dtype not in _STORED:
        raise ValueError(f"signal has dtype {signal.dtype}: it must be float32 (mV) or int16 (uV)")
    if signal.ndim != 3 or signal.shape[1] != NUM_LEADS or signal.shape[2] == 0:
        raise ValueError(f"signal must be (n, 12, T) with T >= 1, not {signal.shape}")
    if not 0.5 <= fs <= 1e6:
        raise ValueError(f"fs must be in 0.5..1000000 Hz, not {fs}")
    if threads < 0:
        raise ValueError(f"threads must be 0 (all CPUs) or more, got {threads}")
    num_threads = threads or len(os.sched_getaffinity(0))
    found = _core.assess_records(np.ascontiguousarray(signal), fs, threads=num_threads)
    return [{} if findings is None else _flags(findings) for findings in found]


def _flags(found: _core.QualityFindings) -> QualityFlags:
    quality: QualityFlags = {}
    if found.flat:
        quality["flat"] = _names(found.flat)
    if found.missing:
        quality["missing"] = _levels(found.missing, 6)
    if found.clipped:
        quality["clipped"] = _names(found.clipped)
    if found.out_of_range:
        quality["out_of_range"] = _names(found.out_of_range)
    if found.equations:
        quality["limb_leads"] = _limb_leads(found)
    if reversal := _reversals(found):
        quality["reversal"] = reversal
    if found.mains:
        quality["mains"] = _levels(found.mains, 1)
    if found.wander:
        quality["wander"] = _levels(found.wander, 1)
    return quality


def _names(leads: list[int]) -> list[str]:
    return [STANDARD_LEADS[lead] for lead in leads]


def _levels(levels: list[tuple[int, float]], digits: int) -> dict[str, float]:
    return {STANDARD_LEADS[lead]: round(level, digits) for lead, level in levels}


def _limb_leads(found: _core.QualityFindings) -> LimbLeads:
    limb_leads: LimbLeads = {
        "equations": {_EQUATIONS[i]: round(residual, 3) for i, residual in found.equations}
    }
    if found.exchanged is not None:
        limb_leads["exchanged"] = _names(list(found.exchanged))
    if found.lead is not None:
        limb_leads["lead"] = STANDARD_LEADS[found.lead]
    if found.gain is not None:
        limb_leads["gain"] = round(found.gain, 3)
    return limb_leads


def _reversals(found: _core.QualityFindings) -> list[str]:
    names = [] if found.limb_reversal is None else [found.limb_reversal]
    if found.chest_reversal is not None:
        names.append("/".join(f"V{1 + lead}" for lead in found.chest_reversal))
    return names
