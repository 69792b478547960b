"""Lines of one report that bear on each other: continued lines and comparisons."""

from __future__ import annotations

import pytest
from statement_lines import told

from esi_fast.cqa.caption import findings_of
from esi_fast.cqa.statements import statements_of


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("", ""),
        (" | ||", ""),
        ("Sinus rhythm||LBBB", "sinus_rhythm; left_bundle_branch_block"),
        # a line that continues the one before it
        ("Atrial fibrillation|with rapid ventricular response", "atrial_fibrillation [rapid]"),
        ("Atrial fibrillation||with slow ventricular response", "atrial_fibrillation [slow]"),
        ("Atrial flutter|with 2:1 A-V conduction", "atrial_flutter (2:1)"),
        ("Atrial flutter|with variable A-V block", "atrial_flutter (variable)"),
        (
            "PVCs|OR ABERRANT VENTRICULAR CONDUCTION",
            "possible premature_ventricular_complexes; possible aberrant_conduction",
        ),
        (
            "PVCs|or|aberrant conduction",
            "possible premature_ventricular_complexes; possible aberrant_conduction",
        ),
        ("Sinus rhythm|with fusion complexes", "sinus_rhythm; fusion_complexes"),
        (
            "Sinus rhythm|with frequent PVCs|and consecutive",
            "sinus_rhythm; premature_ventricular_complexes (frequent)",
        ),
        ("Inferior infarct|age undetermined", "undetermined inferior_myocardial_infarction"),
        ("Inferior infarct|, age undetermined", "undetermined inferior_myocardial_infarction"),
        ("Inferior infarct|probable", "probable inferior_myocardial_infarction"),
        ("Anterior infarct|possibly acute", "possibly_acute anterior_myocardial_infarction"),
        ("ST elevation|in leads V1-V3", "anterior_st_elevation"),
        ("T wave abnormality|inferolateral leads", "inferolateral_t_wave_abnormality"),
        ("ST depression|marked", "st_depression (marked)"),
        ("ST-T changes|may be due to ischemia", "st_t_abnormality <possibly due to ischemia>"),
        ("PVCs|are no longer present", "not premature_ventricular_complexes"),
        # a line whose end is open
        (
            "T wave abnormality,|consider inferior ischemia",
            "inferior_t_wave_abnormality <consider ischemia>",
        ),
        (
            "T wave abnormality, consider|inferior ischemia",
            "inferior_t_wave_abnormality <consider ischemia>",
        ),
        ("Sinus rhythm with|PVCs", "sinus_rhythm; premature_ventricular_complexes"),
        # over a notice, but not over a summary or an unread line
        (
            "Inferior infarct|Lead(s) unsuitable for analysis: V3|age undetermined",
            "undetermined inferior_myocardial_infarction; technical:unsuitable_leads",
        ),
        (
            "Inferior infarct|Abnormal ECG|age undetermined",
            "inferior_myocardial_infarction; abnormal_ecg; undetermined fragment",
        ),
        (
            "Inferior infarct|Quixotic waves|age undetermined",
            "inferior_myocardial_infarction; unknown:quixotic wave; undetermined fragment",
        ),
        ("age undetermined|LBBB", "undetermined fragment; left_bundle_branch_block"),
        # what says nothing of the line before it
        ("LBBB|Possible LVH", "left_bundle_branch_block; possible left_ventricular_hypertrophy"),
        ("LBBB|No acute changes", "left_bundle_branch_block; fragment"),
        ("LBBB|Clinical correlation suggested", "left_bundle_branch_block; fragment"),
        ("Sinus rhythm|with artifact", "sinus_rhythm; technical:artifact"),
        # what has changed since another ECG is no finding of this one
        (
            "Sinus rhythm|When compared with ECG of 01-JAN-2150 10:00,"
            "|Premature ventricular complexes are no longer present"
            "|T wave inversion now evident in Inferior leads|Abnormal ECG",
            "sinus_rhythm; technical:notice; abnormal_ecg",
        ),
        ("PVCs|Since previous tracing|QT has shortened|LVH", "premature_ventricular_complexes; "
         "technical:notice; left_ventricular_hypertrophy"),
    ],
)  # fmt: skip
def test_report_says_this(report: str, expected: str) -> None:
    assert told(statements_of(tuple(report.split("|")))) == expected


def test_a_continued_line_keeps_the_words_of_both() -> None:
    (said,) = statements_of(("Atrial fibrillation", "", "with rapid ventricular response "))
    assert said.raw == "Atrial fibrillation with rapid ventricular response"
    (said,) = statements_of(("Inferior infarct", "age undetermined"))
    assert said.raw == "Inferior infarct, age undetermined"
    assert said.remainder == ""


def test_findings_of_a_report_are_those_of_its_joined_lines() -> None:
    assert findings_of(["T wave abnormality", "in lateral leads"]) == (
        "lateral_t_wave_abnormality",
    )
    assert findings_of(["Sinus rhythm", "has replaced", "atrial fibrillation"]) == ("sinus_rhythm",)
