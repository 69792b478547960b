"""What cannot be said beside a finding: atrial fibrillation has no P wave before each QRS.

``claims_of`` reads what a text asserts, ``forbidden_claims`` what findings rule out. Both keep a
description from contradicting its statement, and a composed caption from contradicting itself.
"""

from __future__ import annotations

from functools import lru_cache

from esi_fast.cqa.claims import claims_and_denials
from esi_fast.cqa.concepts import split_concept

# Finding -> what may not be said beside it. "pr": no PR interval can be measured at all.
# "qtc_word": RR intervals vary too much for one strip's corrected QT to be called anything.
_NO_P = frozenset({"p_before_each_qrs", "pr", "normal_pr", "long_pr", "short_pr"})
_WIDE = frozenset({"normal_qrs"})
_FORBIDDEN: dict[str, frozenset[str]] = {
    "atrial_fibrillation": _NO_P | {"regular", "qtc_word"},
    "atrial_flutter": _NO_P | {"qtc_word"},
    "multifocal_atrial_tachycardia": frozenset({"regular", "qtc_word"}),
    "supraventricular_tachycardia": _NO_P,
    "junctional_rhythm": _NO_P,
    "junctional_tachycardia": _NO_P,
    "ventricular_tachycardia": _NO_P | _WIDE,
    "wide_qrs_tachycardia": _NO_P | _WIDE,
    "torsades_de_pointes": _NO_P | _WIDE | {"regular", "qtc_word"},
    "ventricular_fibrillation": _NO_P | _WIDE | {"regular", "wide_qrs", "qtc_word"},
    "ventricular_flutter": _NO_P | _WIDE | {"qtc_word"},
    "asystole": _NO_P | _WIDE | {"regular", "wide_qrs", "qtc_word"},
    "idioventricular_rhythm": _NO_P | _WIDE,
    "ventricular_paced_rhythm": _NO_P | _WIDE,
    "dual_chamber_paced_rhythm": _NO_P | _WIDE,
    "biventricular_paced_rhythm": _NO_P | _WIDE,
    "paced_rhythm": _NO_P | _WIDE,
    "atrial_paced_rhythm": frozenset({"p_before_each_qrs"}),
    "undetermined_rhythm": _NO_P,
    "irregular_rhythm": frozenset({"regular"}),
    "sinoatrial_block": frozenset({"regular"}),
    "sinus_node_dysfunction": frozenset({"regular"}),
    "wandering_atrial_pacemaker": frozenset({"regular"}),
    "ventricular_parasystole": frozenset({"regular"}),
    "third_degree_av_block": _NO_P,
    "av_dissociation": _NO_P,
    "high_degree_av_block": frozenset({"p_before_each_qrs", "normal_pr"}),
    "second_degree_av_block": frozenset({"p_before_each_qrs", "normal_pr"}),
    "mobitz_i_av_block": frozenset({"p_before_each_qrs", "normal_pr", "regular"}),
    "mobitz_ii_av_block": frozenset({"p_before_each_qrs", "regular"}),
    "av_block": frozenset({"normal_pr", "short_pr"}),
    "first_degree_av_block": frozenset({"normal_pr", "short_pr"}),
    "prolonged_pr": frozenset({"normal_pr", "short_pr"}),
    "short_pr": frozenset({"normal_pr", "long_pr"}),
    "wolff_parkinson_white": frozenset({"normal_pr", "long_pr", "normal_qrs"}),
    "left_bundle_branch_block": _WIDE,
    "right_bundle_branch_block": _WIDE,
    "incomplete_left_bundle_branch_block": _WIDE,
    "incomplete_right_bundle_branch_block": _WIDE,
    "bundle_branch_block": _WIDE,
    "intraventricular_conduction_delay": _WIDE,
    "bifascicular_block": _WIDE,
    "trifascicular_block": _WIDE | {"normal_pr"},
    "abnormal_qrs": _WIDE,
    "wide_qrs": _WIDE,
    "prolonged_qt": frozenset({"normal_qtc", "short_qtc"}),
    "short_qt": frozenset({"normal_qtc", "long_qtc"}),
    "left_axis_deviation": frozenset({"normal_axis", "right_axis"}),
    "right_axis_deviation": frozenset({"normal_axis", "left_axis"}),
    "extreme_axis_deviation": frozenset({"normal_axis"}),
    "indeterminate_axis": frozenset({"normal_axis", "left_axis", "right_axis"}),
    "left_anterior_fascicular_block": frozenset({"normal_axis", "right_axis"}),
    "left_posterior_fascicular_block": frozenset({"normal_axis", "left_axis"}),
    "hypercalcemia": frozenset({"long_qtc"}),
    "hypocalcemia": frozenset({"short_qtc"}),
    "premature_ventricular_complexes": frozenset({"regular"}),
    "premature_atrial_complexes": frozenset({"regular"}),
    "premature_supraventricular_complexes": frozenset({"regular"}),
    "premature_junctional_complexes": frozenset({"regular"}),
    "premature_complexes": frozenset({"regular"}),
    "bigeminy": frozenset({"regular"}),
    "trigeminy": frozenset({"regular"}),
    "sinus_arrhythmia": frozenset({"regular"}),
    "sinus_pause": frozenset({"regular"}),
    "st_elevation": frozenset({"isoelectric_st"}),
    "st_depression": frozenset({"isoelectric_st"}),
    "st_abnormality": frozenset({"isoelectric_st"}),
    "low_qrs_voltage": frozenset({"normal_voltage"}),
    "high_qrs_voltage": frozenset({"normal_voltage"}),
}
# Statement -> what its own description may not say, though other findings of the ECG may.
_SINUS = ("sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia", "sinus_arrhythmia")
_RAISED = (
    "st_elevation", "early_repolarization", "pericarditis", "brugada_pattern",
    "ventricular_aneurysm", "right_ventricular_infarction",
)  # fmt: skip
_PACED = tuple(name for name in _FORBIDDEN if name.endswith("paced_rhythm"))
_LEFT_BLOCKS = ("left_bundle_branch_block", "incomplete_left_bundle_branch_block")
_RIGHT_BLOCKS = ("right_bundle_branch_block", "incomplete_right_bundle_branch_block")
_PREMATURE = tuple(name for name in _FORBIDDEN if name.startswith("premature_"))
_ESCAPES = tuple(f"{place}_escape_complexes" for place in ("atrial", "junctional", "ventricular"))
_LARGE = (
    "left_ventricular_hypertrophy", "right_ventricular_hypertrophy", "biventricular_hypertrophy",
    "ventricular_hypertrophy", "voltage_criteria_for_left_ventricular_hypertrophy",
    "high_qrs_voltage",
)  # fmt: skip
_FAST_ONES = (
    "sinus_tachycardia", "tachycardia", "supraventricular_tachycardia", "atrial_tachycardia",
    "ventricular_tachycardia", "wide_qrs_tachycardia", "junctional_tachycardia",
    "multifocal_atrial_tachycardia", "torsades_de_pointes", "ventricular_flutter",
    "ventricular_fibrillation",
)  # fmt: skip
_P_CHANGES = (
    "left_atrial_enlargement", "right_atrial_enlargement", "biatrial_enlargement",
    "atrial_enlargement", "interatrial_block", "tall_p_waves", "wide_p_waves",
    "p_wave_abnormality", "abnormal_p_axis",
)  # fmt: skip
_OUTSIDE_ROWS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "st_depression",
            "st_abnormality",
            "st_t_abnormality",
            "t_wave_abnormality",
            "t_wave_inversion",
            "low_t_wave_amplitude",
            "ischemia",
            "subendocardial_injury",
            "digitalis_effect",
            "electrolyte_or_drug_effect",
            "hypokalemia",
            "prominent_u_waves",
            "left_ventricular_strain",
            "left_ventricular_hypertrophy",
            "poor_r_wave_progression",
            "non_st_elevation_myocardial_infarction",
            "old infarct",
        ),
        "st_elevation",
    ),
    (_SINUS, "no_p wide_qrs long_pr long_qtc st_elevation flutter_waves dissociated"),
    (("sinus_rhythm",), "irregular fast_rate slow_rate"),
    (("sinus_bradycardia", "bradycardia"), "fast_rate normal_rate irregular"),
    (_FAST_ONES, "slow_rate normal_rate"),
    (("atrial_fibrillation",), "p_waves flutter_waves all_conducted none_blocked even_distances"),
    (("ventricular_fibrillation",), "p_waves all_conducted normal_rate"),
    (("atrial_flutter",), "p_waves all_conducted"),
    (("third_degree_av_block", "av_dissociation"), "all_conducted none_blocked associated"),
    (("mobitz_i_av_block",), "all_conducted none_blocked associated"),
    (
        ("mobitz_ii_av_block", "second_degree_av_block", "high_degree_av_block"),
        "all_conducted none_blocked",
    ),
    (("regular_rhythm",), "irregular"),
    (("junctional_rhythm", "supraventricular_tachycardia", "junctional_tachycardia"), "wide_qrs"),
    (("idioventricular_rhythm",), "fast_rate"),
    ((*_PREMATURE,), "late_beats"),
    (("premature_ventricular_complexes", "ventricular_escape_complexes"), "normal_qrs"),
    (_ESCAPES, "early_beats"),
    (_LEFT_BLOCKS, "rsr_in_v1"),
    (_RIGHT_BLOCKS, "broad_r_lateral"),
    (_LARGE, "low_voltage normal_voltage"),
    (("right_ventricular_hypertrophy",), "left_axis normal_axis"),
    (("low_qrs_voltage",), "high_voltage"),
    (_P_CHANGES, "no_p p_before_each_qrs"),
    (("left_axis_deviation",), "qrs_negative_in_i"),
    (("right_axis_deviation",), "qrs_positive_in_i"),
    (("t_wave_inversion", "left_ventricular_strain", "right_ventricular_strain"), "tall_t"),
    (("low_t_wave_amplitude",), "tall_t"),
    (("tall_t_waves", "hyperkalemia"), "flat_t inverted_t"),
    (("hypokalemia",), "tall_t"),
    (("wolff_parkinson_white",), "normal_qrs"),
    (("ischemia", "injury", "subendocardial_injury", "acute infarct", *_RAISED), "isoelectric_st"),
)
_OUTSIDE = {
    name: frozenset(
        claim for names, claims in _OUTSIDE_ROWS if name in names for claim in claims.split()
    )
    for names, _ in _OUTSIDE_ROWS
    for name in names
}
# Statement -> the claims that make it: denying one denies the finding.
_MADE_OF_ROWS: tuple[tuple[tuple[str, ...], str], ...] = (
    (_SINUS, "p_waves"),
    ((*_RAISED, "acute infarct"), "st_elevation"),
    (("old infarct", "abnormal_q_waves"), "q_waves"),
    (("st_depression", "subendocardial_injury"), "st_depression"),
    (("t_wave_inversion",), "inverted_t"),
    (("low_t_wave_amplitude",), "flat_t"),
    (("tall_t_waves", "hyperkalemia"), "tall_t"),
    (("atrial_fibrillation", "irregular_rhythm", "multifocal_atrial_tachycardia"), "irregular"),
    (("regular_rhythm",), "regular"),
    (("atrial_flutter",), "flutter_waves"),
    (_PACED, "spikes"),
    ((*_FAST_ONES,), "fast_rate"),
    (("sinus_bradycardia", "bradycardia"), "slow_rate"),
    (("first_degree_av_block", "prolonged_pr"), "long_pr"),
    (("short_pr",), "short_pr"),
    (("wolff_parkinson_white",), "delta_wave short_pr"),
    (("third_degree_av_block", "av_dissociation"), "dissociated"),
    (
        (
            "left_bundle_branch_block", "right_bundle_branch_block", "bundle_branch_block",
            "intraventricular_conduction_delay", "wide_qrs", "ventricular_tachycardia",
            "wide_qrs_tachycardia", "idioventricular_rhythm", "premature_ventricular_complexes",
            "bifascicular_block", "trifascicular_block", "ventricular_escape_complexes",
        ),
        "wide_qrs",
    ),
    (_PREMATURE, "early_beats"),
    (("prolonged_qt",), "long_qtc"),
    (("short_qt",), "short_qtc"),
    (("left_axis_deviation", "left_anterior_fascicular_block"), "left_axis"),
    (("right_axis_deviation", "left_posterior_fascicular_block"), "right_axis"),
    (_LARGE, "high_voltage"),
    (("low_qrs_voltage",), "low_voltage"),
)  # fmt: skip
_MADE_OF = {
    name: frozenset(
        claim for names, claims in _MADE_OF_ROWS if name in names for claim in claims.split()
    )
    for names, _ in _MADE_OF_ROWS
    for name in names
}
# The reverse of a claim stands only beside the claim: depression, as the mirror of elevation.
_ONLY_BESIDE = {
    "st_elevation": "st_depression",
    "inverted_t": "upright_t",
    "flat_t": "upright_t",
    "left_axis": "right_axis",
}
# Beside these alone an ECG may be called normal.
_NORMAL_FINDINGS = frozenset({"sinus_rhythm", "sinus_arrhythmia"})


def claims_of(text: str) -> frozenset[str]:
    """What a text asserts about P waves, intervals, axis, rhythm and ST segment, by name.

    What a clause denies ("no P waves before the QRS") is not asserted.
    """
    return claims_and_denials(text)[0]


@lru_cache(maxsize=16384)
def forbidden_claims(findings: tuple[str, ...]) -> frozenset[str]:
    """What may not be said of an ECG with these findings (names as ``findings_of`` gives them)."""
    forbidden: set[str] = set()
    for concept in findings:
        base = split_concept(concept)[0]
        forbidden |= _FORBIDDEN.get(base, frozenset())
        if base not in _NORMAL_FINDINGS:
            forbidden.add("normal_ecg")
    return frozenset(forbidden)


def contradictions(text: str, concept: str, acuity: str | None = None) -> frozenset[str]:
    """What a description of one concept asserts and must not, or denies and must not ("not ...").

    Args:
        text: the description.
        concept: what it describes, with its wall.
        acuity: how old it is; an infarct is another thing to see while it is acute.
    """
    base, walls = split_concept(concept)
    kind = _KIND_OF_INFARCT.get(acuity or "", "old infarct")
    kinds = (base, kind) if base == "myocardial_infarction" else (base,)
    asserted, denied = claims_and_denials(text)
    # V1 to V3 see the posterior wall from behind, with every sign reversed.
    is_mirrored = "posterior" in walls
    made_of = set[str]() if is_mirrored else _rows(_MADE_OF, kinds)
    forbidden = set(forbidden_claims((concept,))) | _rows(_OUTSIDE, kinds)
    if base not in _NORMAL_FINDINGS:
        forbidden.add("nothing_abnormal")
    if is_mirrored:
        forbidden -= {"tall_t", "upright_t"}
    clash = asserted & forbidden
    clash |= {
        _ONLY_BESIDE[claim] for claim in made_of - asserted if claim in _ONLY_BESIDE
    } & asserted
    return frozenset(clash | {f"not {claim}" for claim in made_of & denied - asserted})


_KIND_OF_INFARCT = {"acute": "acute infarct", "recent": "acute infarct"}
_KIND_OF_INFARCT |= {"possibly_acute": "infarct of any age"}


def _rows(table: dict[str, frozenset[str]], names: tuple[str, ...]) -> set[str]:
    return {claim for name in names for claim in table.get(name, ())}
