"""What cannot be said beside a finding: atrial fibrillation has no P wave before each QRS.

``claims_of`` reads what a text asserts, ``forbidden_claims`` what findings rule out. Both keep a
description from contradicting its statement, and a composed caption from contradicting itself.
"""

from __future__ import annotations

import re
from functools import lru_cache

from esi_fast.cqa.concepts import split_concept

# What a text may assert, by the words that assert it.
_QRS = r"(?:qrs(?: complex(?:es)?)?|beats?|complex(?:es)?)"
_CLAIMS = {
    "p_before_each_qrs": rf"\b(?:a |one )?p[ -]waves? (?:\w+ ){{0,2}}?(?:before|preced\w+) "
    rf"(?:each|every|all|the) {_QRS}"
    rf"|(?:each|every) {_QRS} (?:\w+ )?(?:preceded by|follows|has) (?:a|one) (?:\w+ )?p\b"
    r"|\b1:1 (?:av |atrioventricular )?(?:conduction|relationship|association)"
    r"|\bregular p[ -]waves?\b|\bnormal p[ -]waves?\b|\b(?:sinus )?p[ -]waves? (?:are )?present\b",
    "no_p": r"\b(?:no|absent|without) (?:\w+ )?p[ -]waves?\b|\bp[ -]waves? (?:are )?absent\b",
    "normal_pr": r"\bnormal pr\b|\bpr (?:interval )?(?:is |of |stays |remains )?(?:within )?normal",
    "long_pr": r"\b(?:long|prolonged) (?:but )?(?:constant )?pr\b"
    r"|\bpr (?:interval )?\S* ?prolonged",
    "short_pr": r"\bshort(?:ened)? pr\b|\bpr (?:interval )?(?:is )?short",
    "normal_qrs": r"\b(?:normal|narrow) qrs\b"
    r"|\bqrs (?:complex(?:es)? )?(?:is |are )?(?:narrow|normal|of normal)"
    r"|\bnarrow(?:[ -]qrs)? complex(?:es)?\b",
    "wide_qrs": r"\b(?:wide|broad)(?: \w+)? (?:qrs|complex(?:es)?)\b|\bqrs (?:is )?(?:wide|broad)",
    "normal_qtc": r"\bnormal qtc?\b|\bqtc? (?:interval )?(?:is )?(?:within )?normal",
    "long_qtc": r"\b(?:long|prolonged) qtc?\b|\bqtc? (?:interval )?(?:is )?(?:long|prolonged)",
    "short_qtc": r"\bshort(?:ened)? qtc?\b",
    "normal_axis": r"\bnormal (?:\w+ )?axis\b|\baxis (?:is )?normal",
    "left_axis": r"\bleft(?:ward)? axis\b",
    "right_axis": r"\bright(?:ward)? axis\b",
    "regular": r"(?<!ir)(?<!ir-)\bregular (?:rhythm|rr|r-r|intervals|ventricular)\b"
    r"|\brr intervals? (?:is |are )?(?:regular|constant)",
    "normal_ecg": r"\bnormal ecg\b",
    "st_elevation": r"\bst(?:[ -]segment)?[ -]elevations?\b|\belevated st\b"
    r"|\bst(?:[ -]segment)?s? (?:is |are )?elevated",
    "isoelectric_st": r"\bisoelectric st\b|\bnormal st\b|\bst(?:[ -]segment)? (?:is )?isoelectric",
    "normal_voltage": r"\bnormal (?:qrs )?voltage",
}
_CLAIM_PATTERNS = {name: re.compile(pattern) for name, pattern in _CLAIMS.items()}
_CLAUSE = re.compile(r"[.;,]|\b(?:but|with|and)\b")
_DENIES = re.compile(r"\b(?:no|not|without|absen\w+|lack\w*|loss of|never|nor|rather than)\b")
_DENIAL = frozenset({"no_p"})

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
_OUTSIDE: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            "st_depression", "st_abnormality", "st_t_abnormality", "t_wave_abnormality",
            "t_wave_inversion", "low_t_wave_amplitude", "ischemia", "subendocardial_injury",
            "digitalis_effect", "electrolyte_or_drug_effect", "hypokalemia", "prominent_u_waves",
            "left_ventricular_strain", "left_ventricular_hypertrophy", "poor_r_wave_progression",
        ),
        frozenset({"st_elevation"}),
    ),
    **dict.fromkeys(
        ("sinus_rhythm", "sinus_bradycardia", "sinus_tachycardia", "sinus_arrhythmia"),
        frozenset({"no_p", "wide_qrs", "long_pr", "long_qtc", "st_elevation"}),
    ),
}  # fmt: skip
# Beside these alone an ECG may be called normal.
_NORMAL_FINDINGS = frozenset({"sinus_rhythm", "sinus_arrhythmia"})


def claims_of(text: str) -> frozenset[str]:
    """What a text asserts about P waves, intervals, axis, rhythm and ST segment, by name.

    What a clause denies ("no P waves before the QRS") is not asserted.
    """
    lowered = text.casefold()
    return frozenset(
        name
        for name, pattern in _CLAIM_PATTERNS.items()
        if any(
            name in _DENIAL or not _is_denied(lowered, match.start())
            for match in pattern.finditer(lowered)
        )
    )


def _is_denied(text: str, position: int) -> bool:
    clause = 0
    for end in _CLAUSE.finditer(text, 0, position):
        clause = end.end()
    return _DENIES.search(text, clause, position) is not None


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


def contradictions(text: str, concept: str) -> frozenset[str]:
    """What a description of one concept asserts and must not."""
    outside = _OUTSIDE.get(split_concept(concept)[0], frozenset())
    return claims_of(text) & (forbidden_claims((concept,)) | outside)
