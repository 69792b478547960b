"""Composed captions: order, determinism, no contradictions, nothing invented."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

import pytest

from esi_fast.cqa.caption import (
    CaptionDictionary,
    compose,
    concept_key_of,
    concept_key_of_report,
    display_name,
    findings_of,
    prompts_for,
)
from esi_fast.cqa.dictionary import Description
from esi_fast.cqa.generate import describe_reports
from esi_fast.cqa.polarity import claims_of, forbidden_claims

NORMAL = {"heart_rate": 64.0, "pr": 160.0, "qrs": 92.0, "qtc_bazett": 410.0, "qrs_axis": 45.0}
# The lines of the simulator and some of real devices.
LINES = (
    "Sinus rhythm",
    "Sinus bradycardia",
    "Sinus tachycardia",
    "Atrial fibrillation",
    "Ventricular premature complexes",
    "First degree A-V block",
    "Left bundle branch block",
    "Right bundle branch block",
    "Left ventricular hypertrophy",
    "Anterior ST elevation, consider acute infarct",
    "Inferior ST elevation, consider acute infarct",
    "Prolonged QT interval",
    "Low QRS voltages",
    "Left axis deviation",
    "Right axis deviation",
    "Normal ECG",
    "Abnormal ECG",
    "Borderline ECG",
    "Lead(s) unsuitable for analysis: V3",
    "Possible inferior infarct - age undetermined",
    "Nonspecific ST-T wave changes",
)


@pytest.fixture(scope="module")
def dictionary() -> CaptionDictionary:
    return describe_reports([line] for line in LINES)


def test_findings_come_first_then_values_then_looks_then_person_then_limits(
    dictionary: CaptionDictionary,
) -> None:
    caption = compose(
        ["Left axis deviation", "Lead(s) unsuitable for analysis: V3", "Sinus rhythm"],
        measurements=NORMAL | {"qrs_axis": -45.0},
        age=65.4,
        sex="male",
        dictionary=dictionary,
        max_tokens=200,
    )
    parts = [
        "inus rhythm",
        "eft axis deviation",
        "Heart rate 64 bpm, normal PR 160 ms, normal QRS 92 ms, normal QTc 410 ms, "
        "left axis -45 degrees.",
        "QRS positive in I and aVL, negative in II and aVF.",
        "Upright P waves in I and II",
        "65-year-old male.",
        "Recording limited in V3.",
    ]
    places = [caption.text.index(part) for part in parts]
    assert places == sorted(places)
    assert caption.text.endswith(parts[-1])
    assert caption.findings == ("left_axis_deviation", "sinus_rhythm")
    assert caption.concept_key == concept_key_of(caption.findings)
    assert caption.sources == ("left-axis-deviation", "sinus-rhythm")
    assert [one.concept for one in caption.statements] == [
        "left_axis_deviation",
        "technical",
        "sinus_rhythm",
    ]


def test_severity_orders_the_findings_whatever_the_report_says_first() -> None:
    lines = ["Left axis deviation", "Low QRS voltages", "Acute inferior infarct", "LBBB", "afib"]
    names = [
        "atrial fibrillation",
        "inferior myocardial infarction",
        "left bundle branch block",
        "low QRS voltage",
        "left axis deviation",
    ]
    for order in itertools.permutations(lines):
        text = compose(order).text.casefold()
        places = [text.index(name.casefold()) for name in names]
        assert places == sorted(places)


def test_every_finding_is_named_and_each_name_is_in_a_prompts_sentence(
    dictionary: CaptionDictionary,
) -> None:
    for seed, line in enumerate(LINES):
        for concept in findings_of([line]):
            text = compose([line], dictionary=dictionary, seed=seed, max_tokens=0).text
            assert display_name(concept).casefold() in text.casefold()
    texts = {compose(["Atrial fibrillation"], seed=seed).text for seed in range(50)}
    assert texts == set(prompts_for("atrial_fibrillation"))


def test_equal_arguments_give_equal_captions_and_seeds_give_paraphrases(
    dictionary: CaptionDictionary,
) -> None:
    def texts(seeds: range) -> list[str]:
        return [
            compose(LINES[3:8], measurements=NORMAL, dictionary=dictionary, seed=seed).text
            for seed in seeds
        ]

    assert texts(range(20)) == texts(range(20))
    assert len(set(texts(range(20)))) > 5
    lengths = {len(findings_of(LINES[3:8]))}
    assert lengths == {5}


def test_certainty_age_cause_and_rate_are_kept() -> None:
    for line, words in (
        (
            "Possible inferior infarct - age undetermined",
            "possible inferior myocardial infarction of undetermined age",
        ),
        ("Cannot rule out anterior infarct", "Cannot rule out anterior myocardial infarction"),
        ("Consider LVH", "Consider left ventricular hypertrophy"),
        ("Probable lateral infarct, old", "probable old lateral myocardial infarction"),
        ("Borderline first degree AV block", "borderline first-degree AV block"),
        ("Nonspecific T wave changes", "nonspecific T-wave abnormality"),
        ("Inferior infarct, possibly acute", "inferior myocardial infarction, possibly acute"),
        (
            "Anterior ST elevation, consider acute infarct",
            "anterior ST elevation, consider acute myocardial infarction",
        ),
        ("Afib with RVR", "atrial fibrillation with rapid ventricular response"),
        ("Atrial flutter with 3:1 block", "atrial flutter with 3:1 conduction"),
        ("Marked ST depression in II, III, aVF", "marked inferior ST depression"),
    ):
        for seed in range(8):
            assert words.casefold() in compose([line], seed=seed).text.casefold()


def test_of_one_concept_the_surest_statement_is_told() -> None:
    text = compose(["Possible inferior infarct", "Inferior infarct"]).text
    assert "ossible" not in text
    assert text.casefold().count("infarct") == 1


@pytest.mark.parametrize(
    ("lines", "measured", "present", "absent"),
    [
        (["First degree A-V block"], {"pr": 190.0}, "PR 190 ms", "normal PR"),
        (["First degree A-V block"], {"pr": 240.0}, "long PR 240 ms", "normal PR"),
        (["Prolonged PR interval"], {"pr": 110.0}, "prolonged PR interval", "110"),
        (["Sinus rhythm"], {"pr": 160.0}, "normal PR 160 ms", "long"),
        (["Sinus rhythm"], {"pr": 100.0}, "short PR 100 ms", "normal"),
        (["Atrial fibrillation"], NORMAL, "Heart rate 64", "PR "),
        (["Possible atrial flutter"], NORMAL, "Heart rate 64", "PR "),
        (["Complete heart block"], NORMAL, "QRS 92", "PR "),
        (["AV dissociation"], NORMAL, "QRS 92", "PR "),
        (["LBBB"], {"qrs": 116.0}, "QRS 116 ms", "normal QRS"),
        (["LBBB"], {"qrs": 140.0}, "wide QRS 140 ms", "normal QRS"),
        (["Prolonged QT interval"], {"qtc_bazett": 430.0}, "QTc 430 ms", "normal QTc"),
        (["Prolonged QT interval"], {"qtc_bazett": 500.0}, "long QTc 500 ms", "normal"),
        (["Left axis deviation"], {"qrs_axis": -25.0}, "axis -25 degrees", "normal axis"),
        (["Left axis deviation"], {"qrs_axis": -50.0}, "left axis -50 degrees", "normal"),
        (["Right axis deviation"], {"qrs_axis": 120.0}, "right axis 120 degrees", "normal"),
        (["Sinus rhythm"], {"qrs_axis": 270.0}, "axis -90 degrees", "270"),
    ],
)
def test_values_do_not_contradict_statements(
    lines: list[str], measured: dict[str, float], present: str, absent: str
) -> None:
    text = compose(lines, measurements=measured).text
    assert present.casefold() in text.casefold()
    assert absent not in text


def test_qtc_limits_depend_on_sex() -> None:
    def words(sex: str | None, qtc: float) -> str:
        return compose([], measurements={"qtc_bazett": qtc}, sex=sex).text

    assert words("male", 455.0).startswith("Long QTc")
    assert words("female", 455.0).startswith("Normal QTc")
    assert words(None, 455.0).startswith("QTc")
    assert words(None, 465.0).startswith("Long QTc")
    assert words("male", 380.0).startswith("Short QTc")
    assert compose([], measurements={"qtc_fridericia": 400.0}).text == "Normal QTc 400 ms."


@pytest.mark.parametrize("qtc", [350.0, 410.0, 520.0])
@pytest.mark.parametrize(
    "line", ["Atrial fibrillation", "Possible atrial flutter", "Atrial flutter with 2:1 block"]
)
def test_a_qtc_in_fibrillation_or_flutter_is_not_judged(line: str, qtc: float) -> None:
    for key in ("qtc_bazett", "qtc_fridericia"):
        for sex in ("male", "female", None):
            lines = [line, "Prolonged QT interval"] if qtc > 500 else [line]
            text = compose(lines, measurements={key: qtc}, sex=sex).text
            assert f" QTc {qtc:.0f} ms." in f" {text}"
            assert not re.search(r"(?:short|normal|long) QTc", text, re.IGNORECASE)
    assert re.search(
        r"(?:Short|Normal|Long) QTc",
        compose(["Atrial tachycardia"], measurements={"qtc_bazett": qtc}).text,
    )


def test_captions_without_findings_have_the_key_of_their_report() -> None:
    reports = ([], ["Normal ECG"], ["Abnormal ECG"], ["Unusual deflections"], ["Sinus rhythm"])
    keys = [compose(lines).concept_key for lines in reports]
    assert keys == [concept_key_of_report(lines) for lines in reports]
    assert len(set(keys)) == len(reports)


def test_no_caption_of_any_pair_of_findings_contradicts_itself(
    dictionary: CaptionDictionary,
) -> None:
    for pair in itertools.combinations(LINES, 2):
        if set(pair) == {"Left axis deviation", "Right axis deviation"}:
            continue  # both are told, as possible
        caption = compose(
            ["Sinus rhythm", *pair], measurements=NORMAL, dictionary=dictionary, max_tokens=300
        )
        clash = claims_of(caption.text) & (forbidden_claims(caption.findings) - {"normal_ecg"})
        assert not clash, (pair, caption.text)
        if caption.findings != ("sinus_rhythm",):
            assert "Normal ECG." not in caption.text
        if "atrial_fibrillation" in caption.findings:
            assert not re.search(r"P waves? (before|preced)", caption.text)


def test_a_description_that_the_other_findings_forbid_is_left_out() -> None:
    told = Description(
        "sinus rhythm", "sinus_rhythm", "rhythm", "definite", text="P waves before each QRS."
    )
    words = CaptionDictionary([told])
    assert "before each QRS" in compose(["Sinus rhythm"], dictionary=words).text
    both = compose(["Sinus rhythm", "Atrial fibrillation"], dictionary=words).text
    assert "before each QRS" not in both


def test_the_verdict_is_kept_only_where_nothing_speaks_against_it() -> None:
    assert "Normal ECG." in compose(["Sinus rhythm", "Normal ECG"]).text
    assert "Normal ECG." not in compose(["Low QRS voltages", "Normal ECG"]).text
    assert "Abnormal ECG." in compose(["LBBB", "Abnormal ECG"]).text
    assert "Borderline ECG." in compose(["Sinus rhythm", "Borderline ECG"]).text
    for denied in ("Not a normal ECG", "ECG is not within normal limits"):
        assert "ormal" not in compose([denied]).text
    both = compose(["Normal ECG", "Abnormal ECG"]).text
    assert both == "Abnormal ECG."
    assert "Otherwise normal ECG." in compose(["Sinus bradycardia", "Otherwise normal ECG"]).text


def test_a_technical_notice_is_never_described_as_disease(dictionary: CaptionDictionary) -> None:
    notices = {
        "Lead(s) unsuitable for analysis: V1 V2 V3": "Recording limited in V1 V2 V3.",
        "** INTERPRETATION MADE WITHOUT KNOWING PATIENT'S AGE **": (
            "Twelve-lead electrocardiogram."
        ),
        "Artifact in lead(s) I II": "Recording quality limited.",
        "Suspect arm lead reversal": "Possible lead reversal.",
        "*Unconfirmed Analysis*": "Twelve-lead electrocardiogram.",
        "When compared with ECG of 03-FEB-2019 T wave inversion is new": (
            "Twelve-lead electrocardiogram."
        ),
    }
    for line, expected in notices.items():
        caption = compose([line], dictionary=describe_reports([[line]]))
        assert caption.text == expected
        assert caption.findings == ()
        assert caption.sources == ()


@pytest.mark.parametrize("value", [29999.0, float("nan"), float("inf"), -1.0, 0.0])
def test_what_was_not_measured_never_appears(value: float) -> None:
    keys = ("heart_rate", "rr_interval", "pr", "qrs", "qt", "qtc_bazett", "p_axis")
    assert compose(["Sinus rhythm"], measurements=dict.fromkeys(keys, value)).text == (
        compose(["Sinus rhythm"]).text
    )
    axis = compose(["Sinus rhythm"], measurements={"qrs_axis": 29999.0}).text
    assert "29999" not in axis
    assert "axis" not in axis


def test_demographics() -> None:
    def who(age: float | None, sex: str | None) -> str:
        return compose(["Sinus rhythm"], age=age, sex=sex).text.partition("rhythm. ")[2]

    assert who(65.9, "male") == "65-year-old male."
    assert who(65, None) == "65-year-old patient."
    assert who(None, "female") == "Female patient."
    assert who(None, None) == ""
    assert who(91, "female") == "Female aged 90 or older."
    assert who(300, "male") == "Male aged 90 or older."  # PTB-XL's mark for ages over 89
    assert who(0.3, "male") == "Male under 1 year old."
    assert who(-4, "male") == "Male patient."
    with pytest.raises(ValueError, match="sex is 'M'"):
        compose(["Sinus rhythm"], sex="M")


def test_a_small_budget_cuts_everything_but_findings_and_limits(
    dictionary: CaptionDictionary,
) -> None:
    lines = [*LINES[:2], *LINES[5:15], LINES[18]]
    for budget in (0, 20, 72, 400):
        caption = compose(
            lines, measurements=NORMAL, age=50, dictionary=dictionary, max_tokens=budget
        )
        for concept in findings_of(lines):
            assert display_name(concept).casefold() in caption.text.casefold()
        assert caption.text.endswith("Recording limited in V3.")
        assert ("bpm" in caption.text) == (budget == 400)
    typical = compose(
        LINES[:1], measurements=NORMAL, age=50, sex="male", dictionary=dictionary
    ).text
    assert len(re.findall(r"\w+|[^\w\s]", typical)) <= 72


def test_a_dictionary_survives_its_file(tmp_path: Path, dictionary: CaptionDictionary) -> None:
    dictionary.save(tmp_path / "cqa.jsonl")
    loaded = CaptionDictionary.load(tmp_path / "cqa.jsonl")
    assert sorted(loaded, key=lambda x: x.statement) == sorted(
        dictionary, key=lambda x: x.statement
    )
    for line in LINES:
        assert compose([line], dictionary=loaded) == compose([line], dictionary=dictionary)
    assert [path.name for path in tmp_path.iterdir()] == ["cqa.jsonl"]


def test_a_bad_dictionary_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no caption dictionary"):
        CaptionDictionary.load(tmp_path / "absent.jsonl")
    path = tmp_path / "cqa.jsonl"
    good = '{"statement": "x", "concept": "x", "kind": "rhythm", "certainty": "definite", '
    for text, message in (
        (good + '"text": ""}\n{"statement"', "line 2: not JSON"),
        ("[]", "line 1: lacks a statement"),
        ('{"statement": "x"}', "line 1: lacks"),
        (good + '"text": "", "colour": 1}', "unknown field"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            CaptionDictionary.load(path)


def test_captions_of_real_reports(shared_data: Path) -> None:
    with (shared_data / "mimic-like" / "machine_measurements.csv").open(encoding="utf-8") as file:
        reports = [
            [value for name, value in row.items() if name.startswith("report_") and value.strip()]
            for row in csv.DictReader(file)
        ]
    words = describe_reports(reports)
    lengths = []
    for number, lines in enumerate(reports):
        caption = compose(lines, measurements=NORMAL, age=60, dictionary=words, seed=number)
        clash = claims_of(caption.text) & forbidden_claims(caption.findings) - {"normal_ecg"}
        assert not clash, caption.text
        assert caption.findings == findings_of(lines)
        assert "29999" not in caption.text
        lengths.append(len(re.findall(r"\w+|[^\w\s]", caption.text)))
    assert sum(length <= 72 for length in lengths) / len(lengths) > 0.95


def test_a_dictionary_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "cqa.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"cqa\.jsonl is no UTF-8 text"):
        CaptionDictionary.load(tmp_path / "cqa.jsonl")
