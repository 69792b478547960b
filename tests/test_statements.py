"""The statement normaliser against a table of device-style lines written for this test."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from esi_fast.cqa.caption import (
    concept_key_of,
    concept_key_of_report,
    display_name,
    findings_of,
    prompts_for,
)
from esi_fast.cqa.concepts import codes, concepts, split_concept
from esi_fast.cqa.coverage import coverage_of
from esi_fast.cqa.folding import fold
from esi_fast.cqa.phrases import phrase
from esi_fast.cqa.statements import normalize

# A line and the concepts that it states, in its order; "-X" is X denied.
TABLE = {
    # rhythm
    "Sinus rhythm": "sinus_rhythm",
    "SINUS RHYTHM.": "sinus_rhythm",
    "Normal sinus rhythm": "sinus_rhythm",
    "NSR": "sinus_rhythm",
    "Sinus bradycardia": "sinus_bradycardia",
    "Marked sinus bradycardia": "sinus_bradycardia",
    "Sinus tachycardia": "sinus_tachycardia",
    "Probable sinus tachycardia": "sinus_tachycardia",
    "Sinus rhythm with sinus arrhythmia": "sinus_rhythm sinus_arrhythmia",
    "Atrial fibrillation": "atrial_fibrillation",
    "*** Atrial fibrillation ***": "atrial_fibrillation",
    "Atrial fibrillation with rapid ventricular response": "atrial_fibrillation",
    "Afib with RVR": "atrial_fibrillation",
    "Atrial fibrillation with a slow ventricular response": "atrial_fibrillation",
    "Atrial fibrillation with PVC(s)": "atrial_fibrillation premature_ventricular_complexes",
    "Atrial flutter with 4:1 A-V block": "atrial_flutter",
    "Atrial flutter with variable A-V conduction": "atrial_flutter",
    "Supraventricular tachycardia": "supraventricular_tachycardia",
    "PSVT": "supraventricular_tachycardia",
    "Multifocal atrial tachycardia": "multifocal_atrial_tachycardia",
    "Possible ectopic atrial rhythm": "ectopic_atrial_rhythm",
    "Accelerated junctional rhythm": "junctional_rhythm",
    "Wide QRS tachycardia": "wide_qrs_tachycardia",
    "Ventricular tachycardia": "ventricular_tachycardia",
    "Undetermined rhythm": "undetermined_rhythm",
    "Ventricular premature complexes": "premature_ventricular_complexes",
    "with PVC(s)": "premature_ventricular_complexes",
    "Sinus rhythm with frequent PVCs": "sinus_rhythm premature_ventricular_complexes",
    "Multiple ventricular premature beats": "premature_ventricular_complexes",
    "Sinus tachycardia with PAC(s)": "sinus_tachycardia premature_atrial_complexes",
    "Premature atrial contraction": "premature_atrial_complexes",
    "Ventricular bigeminy": "bigeminy",
    "with fusion complexes": "fusion_complexes",
    "Atrial fibrillation with PVCs or aberrant ventricular conduction": (
        "atrial_fibrillation premature_ventricular_complexes aberrant_conduction"
    ),
    # pacing
    "Ventricular pacing": "ventricular_paced_rhythm",
    "A-V sequential pacemaker": None,  # two readings are fair: see test_pacing
    "Atrial-sensed ventricular-paced rhythm": "ventricular_paced_rhythm",
    # conduction
    "First degree A-V block": "first_degree_av_block",
    "1st degree AV block": "first_degree_av_block",
    "Sinus rhythm with borderline 1st degree A-V block": "sinus_rhythm first_degree_av_block",
    "Second degree A-V block, Mobitz I (Wenckebach)": "mobitz_i_av_block",
    "Mobitz type II AV block": "mobitz_ii_av_block",
    "Sinus rhythm with 2:1 A-V block": "sinus_rhythm second_degree_av_block",
    "Complete heart block": "third_degree_av_block",
    "3rd degree A-V block": "third_degree_av_block",
    "AV dissociation": "av_dissociation",
    "Isorhythmic A-V dissociation": "av_dissociation",
    "Sinus rhythm with atrioventricular dissociation": "sinus_rhythm av_dissociation",
    "Complete heart block with AV dissociation": "third_degree_av_block av_dissociation",
    "Left bundle branch block": "left_bundle_branch_block",
    "LBBB": "left_bundle_branch_block",
    "Right bundle branch block": "right_bundle_branch_block",
    "RBBB with left anterior fascicular block": (
        "right_bundle_branch_block left_anterior_fascicular_block"
    ),
    "Incomplete RBBB": "incomplete_right_bundle_branch_block",
    "Left posterior hemiblock": "left_posterior_fascicular_block",
    "IV conduction defect": "intraventricular_conduction_delay",
    "Nonspecific intraventricular conduction delay": "intraventricular_conduction_delay",
    "Wolff-Parkinson-White": "wolff_parkinson_white",
    "Short PR interval": "short_pr",
    "Prolonged PR interval": "prolonged_pr",
    # hypertrophy
    "Left ventricular hypertrophy": "left_ventricular_hypertrophy",
    "Consider left ventricular hypertrophy": "left_ventricular_hypertrophy",
    "LVH with secondary repolarization abnormality": (
        "left_ventricular_hypertrophy st_t_abnormality"
    ),
    "Left ventricular hypertrophy by voltage only": "left_ventricular_hypertrophy",
    "Minimal voltage criteria for LVH, may be normal variant": (
        "voltage_criteria_for_left_ventricular_hypertrophy"
    ),
    "Possible right ventricular hypertrophy": "right_ventricular_hypertrophy",
    "Possible left atrial abnormality": "left_atrial_enlargement",
    "Right atrial enlargement": "right_atrial_enlargement",
    "Biatrial enlargement": "biatrial_enlargement",
    # infarct
    "Inferior infarct - age undetermined": "inferior_myocardial_infarction",
    "Cannot rule out anterior infarct - age undetermined": "anterior_myocardial_infarction",
    "*** INFERIOR INFARCT - ACUTE ***": "inferior_myocardial_infarction",
    "Anteroseptal MI, old": "anteroseptal_myocardial_infarction",
    "Anterior/septal infarct, possibly acute": "anteroseptal_myocardial_infarction",
    "Probable lateral infarct, recent": "lateral_myocardial_infarction",
    "Inferolateral myocardial infarction": "inferolateral_myocardial_infarction",
    "Posterior infarct": "posterior_myocardial_infarction",
    # ST-T
    "Anterior ST elevation, consider acute infarct": "anterior_st_elevation",
    "Inferior ST elevation, consider acute infarct": "inferior_st_elevation",
    "ST elevation in II, III, aVF": "inferior_st_elevation",
    "ST depression in V4-V6": "anterolateral_st_depression",
    "Nonspecific ST-T wave abnormality": "st_t_abnormality",
    "Inferior ST-T changes are nonspecific": "inferior_st_t_abnormality",
    "Lateral T wave changes may be due to myocardial ischemia": "lateral_t_wave_abnormality",
    "T wave abnormality, consider inferior ischemia": "inferior_t_wave_abnormality",
    "Inferior/lateral ST-T changes may be due to myocardial ischemia": (
        "inferolateral_st_t_abnormality"
    ),
    "Anterior T wave inversion": "anterior_t_wave_inversion",
    "Ischaemic in anterolateral leads": "anterolateral_ischemia",
    "ST elev, probable normal early repol pattern": "st_elevation",
    "(9@128) suggests early repolarization": "early_repolarization",
    "No ST elevation": "-st_elevation",
    "No ST elevation or T wave inversion": "-st_elevation -t_wave_inversion",
    # intervals, axis, voltage
    "Prolonged QT interval": "prolonged_qt",
    "Borderline prolonged QT": "prolonged_qt",
    "QTc prolongation": "prolonged_qt",
    "Left axis deviation": "left_axis_deviation",
    "Leftward axis": "left_axis_deviation",
    "Right axis deviation": "right_axis_deviation",
    "Left axis deviation and LBBB": "left_axis_deviation left_bundle_branch_block",
    "Left axis deviation, consider left anterior fascicular block": "left_axis_deviation",
    "Indeterminate axis": "indeterminate_axis",
    "Low QRS voltages": "low_qrs_voltage",
    "Low QRS voltages in limb leads": "low_qrs_voltage",
    "Low voltage QRS in precordial leads": "low_qrs_voltage",
    "Poor R wave progression - cannot rule out anterior infarct": "poor_r_wave_progression",
    "Abnormal R-wave progression, early transition": "early_r_wave_transition",
    "Abnormal Q waves": "abnormal_q_waves",
    # gone or denied
    "Premature ventricular complexes are no longer present": "-premature_ventricular_complexes",
    "Sinus rhythm has replaced atrial fibrillation": "sinus_rhythm -atrial_fibrillation",
    "Sinus rhythm without PVCs": "sinus_rhythm -premature_ventricular_complexes",
    # summaries
    "Normal ECG": "normal_ecg",
    "Abnormal ECG": "abnormal_ecg",
    "Borderline ECG": "borderline_ecg",
    "Summary: abnormal ECG": "abnormal_ecg",
    "Normal ECG except for rate": "otherwise_normal_ecg",
    # notices
    "Lead(s) unsuitable for analysis: V3": "technical",
    "LEAD(S) UNSUITABLE FOR ANALYSIS: V1 V2": "technical",
    "** INTERPRETATION MADE WITHOUT KNOWING PATIENT'S GENDER/AGE **": "technical",
    "Limb lead reversal suspected": "technical",
    "Baseline wander in lead(s) II III": "technical",
    "*UnconfirmedAnalysis* Unconfirmed": "technical",
    "When compared with ECG of 12-MAR-2019, T wave inversion is now evident": "technical",
    "--- Warning: Data quality may affect interpretation ---": "technical",
    "Pacemaker rhythm - no further analysis": "paced_rhythm technical",
    "Sinus rhythm, no significant change since previous": "sinus_rhythm technical",
    "Sinus rhythm with artifact": "sinus_rhythm technical",
    # fragments and the unknown
    "age undetermined": "fragment",
    "or": "fragment",
    "Clinical correlation suggested": "fragment",
    "Quixotic deflections throughout": "unknown:quixotic deflections throughout",
    "-- Ask the vendor. --": "unknown:ask the vendor",
    "": "",
    " *** ": "",
}


@pytest.mark.parametrize(("line", "expected"), [x for x in TABLE.items() if x[1] is not None])
def test_line_states_these_concepts(line: str, expected: str) -> None:
    said = [("-" if one.negated else "") + one.concept for one in normalize(line)]
    if expected.startswith("unknown:"):
        assert said == [expected]
    else:
        assert said == expected.split()
    assert all(one.raw == line for one in normalize(line))


def test_table_is_large_and_what_is_read_leaves_no_words_over() -> None:
    assert len(TABLE) >= 120
    left_over = {
        line: one.remainder
        for line, expected in TABLE.items()
        if expected and not expected.startswith("unknown:")
        for one in normalize(line)
        if one.remainder
    }
    assert left_over == {}


def test_pacing() -> None:
    said = normalize("A-V sequential pacemaker")
    assert [one.kind for one in said] == ["pacing"]


@pytest.mark.parametrize(
    ("line", "certainty", "acuity", "territory", "degree"),
    [
        ("Inferior infarct", "definite", None, ("inferior",), None),
        ("Possible inferior infarct", "possible", None, ("inferior",), None),
        ("Probable anterior infarct", "probable", None, ("anterior",), None),
        ("Consider septal infarct", "consider", None, ("septal",), None),
        ("Cannot rule out inferior infarct", "cannot_rule_out", None, ("inferior",), None),
        ("Can not rule out inferior infarct", "cannot_rule_out", None, ("inferior",), None),
        ("Borderline left axis deviation", "borderline", None, (), None),
        ("Non-specific T-wave changes", "nonspecific", None, (), None),
        ("Lateral ST-T changes are nonspecific", "nonspecific", None, ("lateral",), None),
        ("Possible non-specific ischemic", "possible", None, (), None),
        ("Anterior infarct, possibly acute", "definite", "possibly_acute", ("anterior",), None),
        ("Acute anterior infarct", "definite", "acute", ("anterior",), None),
        ("Possible acute anterior infarct", "possible", "acute", ("anterior",), None),
        ("Anterior infarct - age undetermined", "definite", "undetermined", ("anterior",), None),
        ("Anterior infarct of indeterminate age", "definite", "undetermined", ("anterior",), None),
        ("Old inferior infarct", "definite", "old", ("inferior",), None),
        ("Inferior infarct, recent", "definite", "recent", ("inferior",), None),
        ("Anterolateral ischemia", "definite", None, ("anterior", "lateral"), None),
        ("First degree A-V block", "definite", None, (), "first"),
        ("Marked ST depression", "definite", None, (), "marked"),
        ("Frequent PVCs", "definite", None, (), "frequent"),
        ("Atrial flutter with 2:1 A-V conduction", "definite", None, (), "2:1"),
        ("? old inferior infarct", "possible", "old", ("inferior",), None),
    ],
)
def test_modifiers(
    line: str, certainty: str, acuity: str | None, territory: tuple[str, ...], degree: str | None
) -> None:
    (said,) = normalize(line)
    assert (said.certainty, said.acuity, said.territory, said.degree) == (
        certainty,
        acuity,
        territory,
        degree,
    )


def test_rate_response_cause_and_leads() -> None:
    assert normalize("Atrial fibrillation with rapid ventricular response")[0].rate_response == (
        "rapid"
    )
    assert normalize("Anterior ST elevation, consider acute infarct")[0].cause == (
        "consider acute myocardial infarction"
    )
    assert normalize("ST elevation, consider early repolarization, pericarditis, or injury")[
        0
    ].cause == ("consider early repolarization or pericarditis or injury")
    assert normalize("Lead(s) unsuitable for analysis: V3 aVR")[0].leads == ("aVR", "V3")
    assert normalize("ST depression in V4-V6")[0].leads == ("V4", "V5", "V6")
    alternatives = normalize("PVCs or aberrant ventricular conduction")
    assert [one.certainty for one in alternatives] == ["possible", "possible"]


def test_case_stars_dashes_codes_and_dots_do_not_matter() -> None:
    variants = (
        "Inferior infarct - age undetermined",
        "INFERIOR INFARCT, AGE UNDETERMINED.",
        "*** Inferior infarct -- age undetermined ***",
        "(4@17) inferior infarction, age undetermined",
        "  inferior   infarct: age undetermined. ",
    )
    assert len({phrase(normalize(line)[0]) for line in variants}) == 1


def test_codes_give_the_concepts_of_the_words() -> None:
    for code, words in (
        ("IMI", "Inferior myocardial infarction"),
        ("AFIB", "Atrial fibrillation"),
        ("1AVB", "First degree AV block"),
        ("CLBBB", "Left bundle branch block"),
        ("LNGQT", "Prolonged QT interval"),
        ("426783006", "Sinus rhythm"),
        ("111975006", "Prolonged QT interval"),
        ("39732003", "Left axis deviation"),
        ("50799005", "AV dissociation"),
    ):
        assert findings_of([code]) == findings_of([words])
        assert normalize(code)[0].raw == code
    assert findings_of(["Dx: 427084000,59931005"]) == ("sinus_tachycardia", "t_wave_inversion")
    # Every code of the tables is read without rest.
    for code in codes():
        said = normalize(code)
        assert said, code
        assert all(one.kind != "unknown" and not one.remainder for one in said), code


def test_findings_leave_out_what_is_no_finding() -> None:
    lines = [
        "Sinus rhythm",
        "Possible inferior infarct",
        "Quixotic deflections",
        "Abnormal ECG",
        "Lead(s) unsuitable for analysis: V3",
        "PVCs are no longer present",
        "age undetermined",
        "",
        "Sinus rhythm",
    ]
    assert findings_of(lines) == ("inferior_myocardial_infarction", "sinus_rhythm")
    assert findings_of([]) == ()


def test_concept_key_is_the_documented_hash() -> None:
    import hashlib

    key = concept_key_of(("b", "a"))
    assert key == hashlib.sha256(b"a|b").hexdigest()[:16]
    assert key == concept_key_of(("a", "b"))
    assert key != concept_key_of(("a",))


def test_reports_without_findings_share_a_key_only_if_they_say_the_same() -> None:
    different = (
        [],
        ["Normal ECG"],
        ["Abnormal ECG"],
        ["Quixotic deflections"],
        ["Baroque deflections"],
        ["Abnormal ECG", "Quixotic deflections"],
        ["Sinus rhythm"],
    )
    assert len({concept_key_of_report(lines) for lines in different}) == len(different)
    # Order, repetitions, spelling and what is no statement of the heart do not matter.
    for lines, equal in (
        (["Normal ECG"], ["*** NORMAL ECG ***", "Normal ECG", "Unconfirmed", "age undetermined"]),
        (["Abnormal ECG", "Quixotic waves"], ["QUIXOTIC WAVES.", "Abnormal ECG"]),
        ([], ["Unconfirmed"]),
        ([], ["PVCs are no longer present"]),
        ([], ["Not a normal ECG"]),
        # A line that captions withhold, for it may identify, is not said either.
        ([], ["Ref 4711 of Mr X"]),
    ):
        assert concept_key_of_report(lines) == concept_key_of_report(equal), (lines, equal)


def test_findings_alone_decide_the_key_where_there_are_any() -> None:
    lines = ["Sinus rhythm", "LBBB", "Abnormal ECG", "Quixotic deflections"]
    assert concept_key_of_report(lines) == concept_key_of(findings_of(lines))
    assert concept_key_of_report(lines[:2]) == concept_key_of_report(lines)
    assert concept_key_of_report([]) != concept_key_of(())


def test_names_and_prompts() -> None:
    assert display_name("atrial_fibrillation") == "atrial fibrillation"
    assert display_name("first_degree_av_block") == "first-degree AV block"
    assert display_name("anterior_st_elevation") == "anterior ST elevation"
    assert display_name("inferolateral_t_wave_inversion") == "inferolateral T-wave inversion"
    assert split_concept("inferolateral_t_wave_inversion") == (
        "t_wave_inversion",
        ("inferior", "lateral"),
    )
    for concept in concepts():
        prompts = prompts_for(concept)
        assert len(prompts) >= 3
        assert all(display_name(concept).casefold() in prompt.casefold() for prompt in prompts)
        # The name of a concept is itself read as that concept.
        said = normalize(display_name(concept))
        assert [one.concept for one in said] == [concept]
    with pytest.raises(ValueError, match="unknown concept 'flying_saucer'"):
        prompts_for("flying_saucer")


def test_fold_is_idempotent_and_plain() -> None:
    for line in TABLE:
        folded = fold(line)
        assert fold(folded) == folded
        assert re.fullmatch(r"[\w ,:'?+]*", folded)


def test_long_and_odd_lines_are_read_quickly_and_without_error() -> None:
    for line in (
        "possible " * 2000,
        ", or and " * 2000,
        "v1 " * 3000,
        "\x00\n\t\u200b",
        "((((",
        "é" * 500,
    ):
        for one in normalize(line):
            assert one.kind in {"unknown", "fragment", "technical"}


def test_coverage_of_mimic_like_statements(shared_data: Path) -> None:
    lines: Counter[str] = Counter()
    with (shared_data / "mimic-like" / "machine_measurements.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            reports = (value for name, value in row.items() if name.startswith("report_"))
            lines.update(line for line in reports if line.strip())
    coverage = coverage_of(lines)
    assert coverage.lines == len(lines) > 50
    assert coverage.share_read >= 0.95, coverage.unknown
    assert coverage.partly_read / coverage.lines <= 0.05


def test_coverage_of_scp_and_snomed_codes(shared_data: Path) -> None:
    lines: Counter[str] = Counter()
    with (shared_data / "ptb-xl" / "scp_statements.csv").open(encoding="utf-8") as file:
        lines.update(row[0] for row in list(csv.reader(file))[1:])
    for header in sorted((shared_data / "cinc2021").glob("*.hea")):
        for line in header.read_text(encoding="utf-8").splitlines():
            if "Dx:" in line:
                lines.update(re.findall(r"\d{6,}", line))
    assert len(lines) > 80
    assert coverage_of(lines).unknown == ()


def test_coverage_counts() -> None:
    coverage = coverage_of({"Sinus rhythm": 5, "Quixotic": 2, "Unconfirmed": 1})
    assert (coverage.lines, coverage.statements, coverage.technical) == (3, 8, 1)
    assert coverage.unknown == (("Quixotic", 2),)
    assert coverage.share_read == pytest.approx(2 / 3)
    assert coverage_of({"Sinus rhythm of marsupials": 1}).partly_read == 1
