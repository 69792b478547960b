"""The statement normaliser: modifiers, codes, keys, names and odd text."""

from __future__ import annotations

import pytest

from esi_fast.cqa.caption import (
    compose,
    concept_key_of,
    concept_key_of_report,
    display_name,
    findings_of,
    prompts_for,
)
from esi_fast.cqa.concepts import codes, concepts, split_concept
from esi_fast.cqa.phrases import phrase
from esi_fast.cqa.statements import normalize


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


def test_bigeminy_tells_where_its_beats_come_from() -> None:
    snomed = {"ventricular": "11157007", "supraventricular": "251168009", "atrial": "251173003"}
    texts = {"any": compose(["BIGU"])}
    for origin, code in snomed.items():
        caption = texts[origin] = compose([code])
        assert caption.findings == ("bigeminy", f"premature_{origin}_complexes")
        assert caption.findings == findings_of([f"{origin} premature beats in bigeminy"])
    assert len({caption.text for caption in texts.values()}) == len(texts)
    assert len({caption.concept_key for caption in texts.values()}) == len(texts)


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
        ["Unusual deflections"],
        ["Tall deflections"],
        ["Abnormal ECG", "Unusual deflections"],
        ["Sinus rhythm"],
    )
    assert len({concept_key_of_report(lines) for lines in different}) == len(different)
    # Order, repetitions, spelling and what is no statement of the heart do not matter.
    for lines, equal in (
        (["Normal ECG"], ["*** NORMAL ECG ***", "Normal ECG", "Unconfirmed", "age undetermined"]),
        (["Abnormal ECG", "Unusual waves"], ["UNUSUAL WAVES.", "Abnormal ECG"]),
        ([], ["Unconfirmed"]),
        ([], ["PVCs are no longer present"]),
        ([], ["Not a normal ECG"]),
        # A line that captions withhold, for it may identify, is not said either.
        ([], ["Ref 4711 of Mr X"]),
    ):
        assert concept_key_of_report(lines) == concept_key_of_report(equal), (lines, equal)


def test_findings_alone_decide_the_key_where_there_are_any() -> None:
    lines = ["Sinus rhythm", "LBBB", "Abnormal ECG", "Unusual deflections"]
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
