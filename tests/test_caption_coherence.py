"""Captions of reports that contradict themselves or their measurements, or may name people."""

from __future__ import annotations

import itertools

import pytest

from esi_fast.cqa import coherence
from esi_fast.cqa.caption import CaptionDictionary, compose, concept_key_of_report
from esi_fast.cqa.concepts import concepts
from esi_fast.cqa.generate import describe_reports
from esi_fast.cqa.statements import statements_of
from esi_fast.cqa.values import plausible

NORMAL = {"heart_rate": 64.0, "pr": 160.0, "qrs": 92.0, "qtc_bazett": 410.0, "qrs_axis": 45.0}


def certainties(*lines: str) -> dict[str, str]:
    told = coherence.reconciled(statements_of(lines))
    return {one.base: one.certainty for one in told if one.is_finding}


def test_the_tables_name_concepts_that_exist() -> None:
    named = {base for group in coherence._EXCLUDES for side in group for base in side}
    named |= set(coherence._VALUES) | set(coherence._ABSENT) | coherence._MINOR
    assert named <= set(concepts())


@pytest.mark.parametrize(
    "pair",
    [
        ("Atrial fibrillation", "Sinus rhythm"),
        ("Atrial fibrillation", "First degree AV block"),
        ("First degree AV block", "Short PR interval"),
        ("Sinus bradycardia", "Sinus tachycardia"),
        ("Left bundle branch block", "Right bundle branch block"),
        ("Left axis deviation", "Right axis deviation"),
        ("Prolonged QT interval", "Short QT interval"),
        ("Third degree AV block", "First degree AV block"),
        ("Ventricular fibrillation", "Sinus rhythm"),
    ],
)
def test_of_two_that_exclude_each_other_neither_is_asserted(pair: tuple[str, str]) -> None:
    for lines in itertools.permutations(pair):
        assert set(certainties(*lines).values()) == {"possible"}
        assert compose(lines).text.casefold().count("possible") == 2


@pytest.mark.parametrize(
    "lines",
    [
        ("Sinus rhythm", "First degree AV block"),
        ("Sinus tachycardia", "Nonsustained ventricular tachycardia"),
        ("Sinus rhythm", "Possible atrial fibrillation"),
        ("Right bundle branch block", "Left anterior fascicular block", "Left axis deviation"),
        ("Atrial fibrillation", "Left bundle branch block", "Left axis deviation"),
        ("Third degree AV block", "Junctional rhythm", "Sinus rhythm"),
    ],
)
def test_what_goes_together_stays_as_it_was(lines: tuple[str, ...]) -> None:
    before = {one.base: one.certainty for one in statements_of(lines)}
    assert certainties(*lines) == before


def test_a_finding_that_the_report_denies_is_only_possible() -> None:
    assert certainties("Inferior infarct", "No inferior infarct") == {
        "myocardial_infarction": "possible"
    }
    assert certainties("Inferior infarct", "No infarct")["myocardial_infarction"] == "possible"
    other_wall = certainties("Inferior infarct", "No anterior infarct")
    assert other_wall["myocardial_infarction"] == "definite"
    assert certainties("LBBB", "No RBBB") == {"left_bundle_branch_block": "definite"}
    acute = certainties("Old inferior infarct", "No acute infarct")
    assert acute["myocardial_infarction"] == "definite"


@pytest.mark.parametrize("order", [1, -1])
def test_no_statement_hides_one_that_says_more(order: int) -> None:
    def text(*lines: str) -> str:
        return compose(lines[::order]).text.casefold()

    both = text("Old inferior infarct", "Acute inferior infarct")
    assert "acute inferior" in both
    assert "old inferior" in both
    assert text("Inferior infarct", "Acute inferior infarct").count("infarct") == 1
    assert "acute" in text("Inferior infarct", "Acute inferior infarct")
    both = text("Inferior infarct", "Possible acute inferior infarct")
    assert "possible acute inferior" in both
    assert both.count("inferior myocardial") == 2
    assert text("Possible inferior infarct", "Inferior infarct").count("infarct") == 1


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["Acute inferior infarct", "Otherwise normal ECG"], False),
        (["LBBB", "Otherwise normal ECG"], False),
        (["Atrial fibrillation", "Otherwise normal ECG"], False),
        (["Left ventricular hypertrophy", "Normal variant ECG"], False),
        (["Sinus bradycardia", "Otherwise normal ECG"], True),
        (["First degree AV block", "PVCs", "Otherwise normal ECG"], True),
        (["Cannot rule out anterior infarct", "Otherwise normal ECG"], True),
    ],
)
def test_otherwise_normal_is_said_beside_minor_findings_only(lines: list[str], kept: bool) -> None:
    assert (" normal" in compose(lines).text) == kept


@pytest.mark.parametrize(
    ("lines", "measured", "absent"),
    [
        (["Sinus bradycardia"], {"heart_rate": 130.0}, "130"),
        (["Sinus tachycardia"], {"heart_rate": 62.0}, "62"),
        (["Atrial fibrillation with RVR"], {"heart_rate": 55.0}, "55"),
        (["Atrial fibrillation with slow ventricular response"], {"heart_rate": 140.0}, "140"),
        (["Ventricular fibrillation"], NORMAL, "axis"),
        (["Ventricular fibrillation"], NORMAL, "QRS 92"),
        (["Asystole"], NORMAL, "bpm"),
        (["LBBB"], {"qrs": 85.0}, "85"),
        (["Incomplete RBBB"], {"qrs": 160.0}, "160"),
        (["WPW"], {"pr": 150.0}, "150"),
        (["First degree AV block"], {"pr": 150.0}, "150"),
        (["Prolonged QT"], {"qtc_bazett": 380.0}, "380"),
        (["Left axis deviation"], {"qrs_axis": 100.0}, "axis 100"),
        (["Right axis deviation"], {"qrs_axis": -40.0}, "-40"),
        (["Multifocal atrial tachycardia"], {"pr": 160.0}, "PR"),
        (["Ventricular tachycardia"], {"qrs": 84.0}, "84"),
        (["Normal ECG"], {"heart_rate": 160.0}, "160"),
        (["Normal ECG"], {"pr": 260.0}, "260"),
        (["Normal ECG"], {"qrs": 160.0}, "160"),
        (["Normal ECG"], {"pr": 206.0}, "ong"),
        (["Normal ECG"], {"qtc_bazett": 470.0}, "ong"),
        (["Normal axis"], {"qrs_axis": 150.0}, "150"),
        (["Sinus rhythm", "No prolonged QT"], {"qtc_bazett": 560.0}, "560"),
        (["Sinus rhythm", "No first degree AV block"], {"pr": 280.0}, "280"),
        (["No left axis deviation"], {"qrs_axis": -70.0}, "70"),
        (["No bradycardia or tachycardia"], {"heart_rate": 35.0}, "35"),
        (["Complete heart block"], {"heart_rate": 110.0}, "110"),
        (["Extreme axis deviation"], {"qrs_axis": 0.0}, "degrees"),
        (["Torsades de pointes"], {"heart_rate": 60.0}, "60"),
        (["Sinus rhythm"], {"heart_rate": 380.0}, "380"),
        (["Sinus rhythm"], {"heart_rate": 200.0, "pr": 580.0, "qrs": 310.0}, "ms"),
    ],
)
def test_a_value_that_the_findings_exclude_is_left_out(
    lines: list[str], measured: dict[str, float], absent: str
) -> None:
    assert absent not in compose(lines, measurements=measured).text


def test_a_hedged_finding_excludes_no_value() -> None:
    text = compose(["Possible LBBB"], measurements={"qrs": 85.0}).text
    assert "QRS 85 ms" in text


def test_values_are_called_by_what_is_printed() -> None:
    def told(**measured: float) -> str:
        return compose([], measurements=measured, sex="male").text.removesuffix(" Male patient.")

    assert told(qrs_axis=-30.4) == "Normal axis -30 degrees."
    assert told(qrs_axis=-30.6) == "Left axis -31 degrees."
    assert told(qtc_bazett=449.6) == "Long QTc 450 ms."
    assert told(qrs=119.6) == "Wide QRS 120 ms."
    assert told(qrs_axis=-120) == "Extreme axis -120 degrees."
    assert told(qrs_axis=180) == "Right axis 180 degrees."
    assert told(qrs_axis=-180) == "Right axis 180 degrees."
    assert plausible({"qrs_axis": 269.7}) == {"qrs_axis": -90}


def test_a_measurement_that_is_no_number_is_named() -> None:
    assert compose(["LBBB"], measurements={"pr": None}) == compose(["LBBB"])
    with pytest.raises(ValueError, match="measurement pr is '160'"):
        compose(["LBBB"], measurements={"pr": "160"})  # type: ignore[dict-item]


NAMES = (
    "Patient: John Smith",
    "JOHN SMITH",
    "Referred by White",
    "Dr. Young",
    "Mr. Long",
    "Ref 4711 of Mr X",
    "Seen on 3/4/2019",
    "Called Dr Y 12-03",
    "Maria Garcia, Room B",
    "Unusual deflections, discussed with Wolff",
    "Mark White",
    "May Long",
    "Young / Short",
    "Waves as per White",
    "Unusual wave, Peak Lead",
)


@pytest.mark.parametrize("line", NAMES)
def test_a_line_that_may_name_a_person_stays_out(line: str) -> None:
    assert compose([line]).text == "Twelve-lead electrocardiogram."
    assert len(describe_reports([[line]])) == 0
    assert concept_key_of_report([line]) == concept_key_of_report([])


def test_an_unread_line_of_known_words_is_quoted() -> None:
    assert compose(["*** Unusual deflections ***"]).text == "Also reported: Unusual deflections."


def test_contradicting_findings_are_described_without_contradiction() -> None:
    lines = ["Atrial fibrillation", "Sinus rhythm", "Normal ECG"]
    words: CaptionDictionary = describe_reports([lines])
    text = compose(lines, measurements=NORMAL, dictionary=words, max_tokens=300).text
    assert "Normal ECG" not in text
    assert "PR" not in text
    assert "P waves in I" not in text
