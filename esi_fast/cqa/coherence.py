"""Keeps a caption from contradicting itself where the report or the measurements do.

Of two statements that exclude each other nobody knows which is right: both are told, each as
possible, as in a report that says "A or B". A measured value that a finding excludes is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from esi_fast.cqa.reading import Statement

Ranges = dict[str, tuple[float, float]]

_ASSERTED = ("definite", "probable")
_SINUS = ("sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia", "sinus_arrhythmia")
_NO_RHYTHM = ("ventricular_fibrillation", "ventricular_flutter", "asystole")
_FIXED_PR = ("first_degree_av_block", "prolonged_pr", "short_pr")
_RIGHT_BLOCK = ("right_bundle_branch_block", "incomplete_right_bundle_branch_block")
_LEFT_BLOCK = ("left_bundle_branch_block", "incomplete_left_bundle_branch_block")
# Each of the first excludes each of the second, on one strip of ten seconds. Runs of a tachycardia
# within sinus rhythm, or atrial fibrillation over a junctional rhythm, do not exclude each other.
_EXCLUDES = (
    (_SINUS, ("atrial_fibrillation", "atrial_flutter", "multifocal_atrial_tachycardia")),
    (_SINUS, _NO_RHYTHM),
    (("sinus_bradycardia", "bradycardia"), ("supraventricular_tachycardia",)),
    (("mobitz_i_av_block", "mobitz_ii_av_block"), ("first_degree_av_block",)),
    (("atrial_fibrillation", "atrial_flutter"), (*_FIXED_PR, *_NO_RHYTHM)),
    (("atrial_fibrillation",), ("mobitz_i_av_block", "mobitz_ii_av_block")),
    (("atrial_fibrillation",), ("multifocal_atrial_tachycardia", "regular_rhythm")),
    (("third_degree_av_block",), (*_FIXED_PR, "mobitz_i_av_block", "mobitz_ii_av_block")),
    (("first_degree_av_block", "prolonged_pr"), ("short_pr", "wolff_parkinson_white")),
    (("sinus_bradycardia", "bradycardia"), ("sinus_tachycardia", "tachycardia")),
    (("irregular_rhythm",), ("regular_rhythm",)),
    (_LEFT_BLOCK, _RIGHT_BLOCK),
    (_LEFT_BLOCK[:1], _LEFT_BLOCK[1:]),
    (_RIGHT_BLOCK[:1], _RIGHT_BLOCK[1:]),
    (("left_bundle_branch_block",), ("left_anterior_fascicular_block",)),
    (("left_anterior_fascicular_block",), ("left_posterior_fascicular_block",)),
    (("left_axis_deviation", "left_anterior_fascicular_block"), ("right_axis_deviation",)),
    (("left_axis_deviation", "right_axis_deviation"), ("extreme_axis_deviation",)),
    (("left_axis_deviation", "right_axis_deviation"), ("indeterminate_axis",)),
    (("left_posterior_fascicular_block",), ("left_axis_deviation",)),
    (("horizontal_axis",), ("vertical_axis", "right_axis_deviation")),
    (("vertical_axis",), ("left_axis_deviation",)),
    (("prolonged_qt",), ("short_qt",)),
    (("low_qrs_voltage",), ("high_qrs_voltage",)),
)
_PAIRS = frozenset(
    frozenset((one, other)) for these, those in _EXCLUDES for one in these for other in those
)

# What beside a definite finding of this kind, or of this name, "otherwise normal" still says.
_MINOR = frozenset(
    {
        *_SINUS, "sinus_pause", "ectopic_atrial_rhythm", "wandering_atrial_pacemaker",
        "bradycardia", "tachycardia", "irregular_rhythm", "regular_rhythm",
        "premature_atrial_complexes", "premature_ventricular_complexes",
        "premature_supraventricular_complexes", "premature_junctional_complexes",
        "premature_complexes", "fusion_complexes",
        "first_degree_av_block", "incomplete_right_bundle_branch_block",
        "left_anterior_fascicular_block", "early_repolarization", "low_t_wave_amplitude",
        "short_pr", "prolonged_pr", "low_qrs_voltage", "high_qrs_voltage",
        "voltage_criteria_for_left_ventricular_hypertrophy", "poor_r_wave_progression",
        "early_r_wave_transition", "late_r_wave_transition", "rsr_pattern", "s1_s2_s3_pattern",
        "left_axis_deviation", "right_axis_deviation", "indeterminate_axis", "vertical_axis",
        "horizontal_axis",
    }
)  # fmt: skip

# Finding -> the values that go with it: beats/min, ms, degrees. Wider than its criteria by what
# two programs, or two ways of measuring, may differ; a value beyond is of another heart.
_NEVER = (1.0, 0.0)
_INF = float("inf")
_SLOW, _FAST = (0.0, 66.0), (92.0, _INF)
_LEFTWARD, _RIGHTWARD = (-110.0, -15.0), (75.0, 180.0)
_WIDE, _NARROWER = (110.0, _INF), (0.0, 128.0)
_VALUES: dict[str, Ranges] = {
    "sinus_rhythm": {"heart_rate": (20.0, 220.0)},
    "sinus_bradycardia": {"heart_rate": _SLOW},
    "bradycardia": {"heart_rate": _SLOW},
    "sinus_tachycardia": {"heart_rate": _FAST},
    "tachycardia": {"heart_rate": _FAST},
    "supraventricular_tachycardia": {"heart_rate": _FAST},
    "junctional_tachycardia": {"heart_rate": (65.0, _INF)},
    "multifocal_atrial_tachycardia": {"heart_rate": _FAST, "pr": _NEVER},
    "ventricular_tachycardia": {"heart_rate": _FAST, "qrs": _WIDE},
    "wide_qrs_tachycardia": {"heart_rate": _FAST, "qrs": _WIDE},
    "torsades_de_pointes": {"heart_rate": _FAST, "qrs": _NEVER, "qtc": _NEVER, "qrs_axis": _NEVER},
    **dict.fromkeys(
        _NO_RHYTHM,
        dict.fromkeys(("heart_rate", "pr", "qrs", "qtc", "qrs_axis"), _NEVER),
    ),
    "first_degree_av_block": {"pr": (188.0, _INF)},
    "prolonged_pr": {"pr": (188.0, _INF)},
    "short_pr": {"pr": (0.0, 132.0)},
    "wolff_parkinson_white": {"pr": (0.0, 140.0), "qrs": (95.0, _INF)},
    "left_bundle_branch_block": {"qrs": _WIDE},
    "right_bundle_branch_block": {"qrs": _WIDE},
    "bifascicular_block": {"qrs": _WIDE},
    "trifascicular_block": {"qrs": _WIDE},
    "wide_qrs": {"qrs": _WIDE},
    "incomplete_left_bundle_branch_block": {"qrs": _NARROWER},
    "incomplete_right_bundle_branch_block": {"qrs": _NARROWER},
    "ventricular_paced_rhythm": {"qrs": _WIDE},
    "biventricular_paced_rhythm": {"qrs": (90.0, _INF)},
    "prolonged_qt": {"qtc": (430.0, _INF)},
    "short_qt": {"qtc": (0.0, 400.0)},
    "left_axis_deviation": {"qrs_axis": _LEFTWARD},
    "left_anterior_fascicular_block": {"qrs_axis": _LEFTWARD},
    "right_axis_deviation": {"qrs_axis": _RIGHTWARD},
    "left_posterior_fascicular_block": {"qrs_axis": _RIGHTWARD},
    "vertical_axis": {"qrs_axis": (45.0, 115.0)},
    "horizontal_axis": {"qrs_axis": (-45.0, 50.0)},
    "indeterminate_axis": {"qrs_axis": _NEVER},
    "extreme_axis_deviation": {"qrs_axis": (-180.0, -80.0)},
    "third_degree_av_block": {"heart_rate": (0.0, 80.0)},
    "idioventricular_rhythm": {"heart_rate": (0.0, 130.0), "qrs": _WIDE},
    "sinus_pause": {"heart_rate": (0.0, 150.0)},
    "normal_axis": {"qrs_axis": (-40.0, 105.0)},
    # with some slack, what an ECG called normal may measure
    "normal_ecg": {
        "heart_rate": (45.0, 110.0),
        "pr": (100.0, 225.0),
        "qrs": (0.0, 122.0),
        "qtc": (340.0, 475.0),
        "qrs_axis": (-40.0, 105.0),
    },
}  # fmt: skip
# Denied finding -> the values that go with its absence.
_ABSENT: dict[str, Ranges] = {
    "prolonged_qt": {"qtc": (0.0, 475.0)},
    "short_qt": {"qtc": (340.0, _INF)},
    "first_degree_av_block": {"pr": (0.0, 212.0)},
    "prolonged_pr": {"pr": (0.0, 212.0)},
    "short_pr": {"pr": (108.0, _INF)},
    "left_axis_deviation": {"qrs_axis": (-40.0, 180.0)},
    "right_axis_deviation": {"qrs_axis": (-180.0, 105.0)},
    "bradycardia": {"heart_rate": (48.0, _INF)},
    "sinus_bradycardia": {"heart_rate": (48.0, _INF)},
    "tachycardia": {"heart_rate": (0.0, 110.0)},
    "sinus_tachycardia": {"heart_rate": (0.0, 110.0)},
    "wide_qrs": {"qrs": (0.0, 128.0)},
}
_RATE_RESPONSE: dict[str, Ranges] = {
    "rapid": {"heart_rate": (90.0, _INF)},
    "slow": {"heart_rate": (0.0, 72.0)},
    "controlled": {"heart_rate": (50.0, 112.0)},
}


def reconciled(said: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements, those that another one excludes or denies only possible."""
    doubted: set[int] = set()
    asserted = [
        (place, one)
        for place, one in enumerate(said)
        if one.is_finding and one.certainty in _ASSERTED
    ]
    for (place, one), (other_place, other) in combinations(asserted, 2):
        if frozenset((one.base, other.base)) in _PAIRS:
            doubted |= {place, other_place}
    denied = [one for one in said if one.negated]
    doubted |= {place for place, one in asserted if any(_denies(no, one) for no in denied)}
    normal_axis = any(one.base == "normal_axis" and not one.negated for one in said)
    if normal_axis:
        doubted |= {place for place, one in asserted if one.base.endswith("axis_deviation")}
    return tuple(
        replace(one, certainty="possible") if place in doubted else one
        for place, one in enumerate(said)
    )


def _denies(denial: Statement, finding: Statement) -> bool:
    """Whether a denial is of this finding; one that names a wall, or an age, is of that alone."""
    return (
        denial.base == finding.base
        and set(denial.territory) <= set(finding.territory)
        and denial.acuity in (None, finding.acuity)
    )


def is_otherwise_normal(said: Iterable[Statement]) -> bool:
    """Whether "otherwise normal ECG" may be said beside all that is asserted."""
    return all(
        one.base in _MINOR or one.certainty not in _ASSERTED for one in said if one.is_finding
    )


def value_ranges(said: Iterable[Statement], is_normal: bool) -> Ranges:
    """What each measured value may be beside the statements, as (lowest, highest).

    Args:
        said: statements; only what they assert counts.
        is_normal: whether the caption calls the ECG normal.
    """
    ranges: Ranges = {}
    asserted = [
        one
        for one in said
        if not one.negated and one.certainty in _ASSERTED and one.base in _VALUES
    ]
    limits = [_VALUES[one.base] for one in asserted if one.base != "normal_ecg"]
    limits += [_ABSENT[one.base] for one in said if one.negated and one.base in _ABSENT]
    limits += [_RATE_RESPONSE.get(one.rate_response or "", {}) for one in said if one.is_finding]
    if is_normal:
        limits.append(_VALUES["normal_ecg"])
    for limit in limits:
        for name, (low, high) in limit.items():
            known_low, known_high = ranges.get(name, (-_INF, _INF))
            ranges[name] = (max(low, known_low), min(high, known_high))
    return ranges
