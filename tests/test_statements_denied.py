"""No finding of the concept table stays one in a frame that denies, doubts or dates it."""

from __future__ import annotations

import pytest
from statement_lines import told

from esi_fast.cqa.concepts import concepts, display_name
from esi_fast.cqa.statements import normalize, statements_of

ABSENT = """No {}|No evidence of {}|Free of {}|Absence of {}|Denies {}|{}: none|{} is absent
{} not seen|{} not present|{} has been ruled out|{} excluded|{} is effectively excluded|{} not met
Criteria for {} not met|Fails to meet criteria for {}|Insufficient evidence for {}|There is no {}
No longer evident: {}|{} no longer present|{} resolved|{} terminated|Nothing to suggest {}
Evidence against {}|Inconsistent with {}|ST-T change rather than {}|{} wasn't seen"""
DOUBTED = """{} unlikely|{} is highly unlikely|Unlikely to be {}|Doubtful {}|{} is doubtful
{} improbable|{} less likely|{} not likely|Low probability of {}|Hardly {}|I doubt {}
Not certain: {}|{} is not definite|{} uncertain to the reader|{} questionable
Not diagnostic of {}"""
OF_ANOTHER_TIME = """Hx of {}|History of {}|Family history of {}|{} by history|Indication: {}
Reason for test: {}|Screening for {}|Referred for {}|Previous ECG showed {}|Last ECG: {}
Earlier tracing: {}|{} noted on prior|{} on previous ECG|{} in the past|Previously {}|{} previously
Formerly {}|{} yesterday|Status post {}|Known {}|On the prior ECG there was {}"""
NOT_JUDGED = """{} cannot be assessed|{}: cannot be evaluated|Unable to evaluate for {}
Cannot assess {} due to artifact|{} not assessable|{} cannot be reliably diagnosed
Artifact: cannot interpret {}|Pseudo-{}|Mimics {}|Unless {}|{} was considered but rejected"""
FRAMES = "\n".join((ABSENT, DOUBTED, OF_ANOTHER_TIME, NOT_JUDGED)).replace("\n", "|").split("|")
# All frames on all names take a minute: each name meets every fifth frame, each frame every fifth.
STRIDE = 5


@pytest.mark.parametrize("number", range(len(FRAMES)), ids=FRAMES)
def test_no_frame_leaves_a_definite_finding(number: int) -> None:
    names = [name for name, concept in concepts().items() if concept.kind != "summary"]
    assert len(names) >= 130
    for name in names[number % STRIDE :: STRIDE]:
        for dress in ("{}", "Low QRS voltage. {}."):
            line = dress.format(FRAMES[number].format(display_name(name)))
            said = [one for one in normalize(line) if one.base == name and one.is_finding]
            if name in ("low_qrs_voltage", "st_t_abnormality"):
                continue
            assert all(one.certainty not in ("definite", "probable") for one in said), line
            assert normalize(line), line
        line = FRAMES[number].format(display_name(name)).upper()
        assert told(normalize(line)) == told(normalize(line.capitalize()))


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_holds_for_both_findings_of_an_ordered_beat(frame: str) -> None:
    line = frame.format("ventricular bigeminy")
    said = [one for one in normalize(line) if one.is_finding and one.kind == "rhythm"]
    assert all(one.certainty not in ("definite", "probable") for one in said), line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # what else the line says is kept
        (
            "Sinus rhythm, VT was considered but rejected",
            "sinus_rhythm; not ventricular_tachycardia",
        ),
        ("LBBB. Hx of AF", "left_bundle_branch_block; technical:notice"),
        ("AF, no P waves", "atrial_fibrillation"),
        ("AF with absent P waves", "atrial_fibrillation"),
        ("Return to sinus rhythm from AF", "sinus_rhythm; not atrial_fibrillation"),
        ("Sinus rhythm after cardioversion of AF", "sinus_rhythm; not atrial_fibrillation"),
        (
            "ST changes may be due to cardiomyopathy rather than infarct",
            "st_abnormality; not myocardial_infarction",
        ),
        ("Sinus rhythm, AF dismissible", "sinus_rhythm; unknown:atrial fibrillation dismissible"),
        ("Sinus rhythm, erroneous AF", "sinus_rhythm; unknown:erroneous atrial fibrillation"),
        ("No ischemia and infarct", "not ischemia; not myocardial_infarction"),
        ("AF has resolved and sinus rhythm is seen", "not atrial_fibrillation; sinus_rhythm"),
        ("Previous AF", "unknown:previous atrial fibrillation"),
        ("Infarct not analyzable due to LBBB", "left_bundle_branch_block; technical:notice"),
    ],
)
def test_lines_of_which_words_are_left_over(line: str, expected: str) -> None:
    assert told(normalize(line)) == expected


def test_a_denial_on_the_next_line_is_read_with_the_finding() -> None:
    for lines in (
        ("Acute MI", "has been ruled out"),
        ("Inferior infarct", "unlikely"),
        ("LVH", "criteria not met"),
        ("LBBB", "not present"),
    ):
        (said,) = statements_of(lines)
        assert said.negated, lines
