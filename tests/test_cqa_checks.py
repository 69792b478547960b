"""Each grounding check on texts that it must pass and texts that it must refuse."""

from __future__ import annotations

import pytest

from esi_fast.cqa.checks import CHECKS, Allowed, run_checks
from esi_fast.cqa.concepts import WALLS_OF_WORD
from esi_fast.cqa.dictionary import CaptionDictionary, Description
from esi_fast.cqa.generate import Request, TemplateBackend, describe, describe_all
from esi_fast.cqa.knowledge import passage_retriever, passages
from esi_fast.cqa.polarity import claims_of, forbidden_claims
from esi_fast.cqa.statements import Statement, normalize, statements_of


def said(line: str) -> Statement:
    return normalize(line)[0]


def allowed(line: str, *texts: str, **more: object) -> Allowed:
    return Allowed(said(line), passages=texts, **more)  # type: ignore[arg-type]


INFERIOR = allowed("Inferior infarct", leads=("II", "III", "aVF", "I", "aVL"))
LBBB = allowed("LBBB", "QRS of 120 ms or more; R in V5 and V6 lasts 60 ms.", leads=("V5", "V6"))

# check, what may be used, text, whether it passes
CASES = [
    ("numbers", LBBB, "QRS of at least 120 ms.", True),
    ("numbers", LBBB, "Broad R in V5 and V6.", True),
    ("numbers", LBBB, "Every other beat, 2:1.", False),
    ("numbers", allowed("Atrial flutter with 2:1 block"), "Conducted 2:1.", True),
    ("numbers", allowed("Left axis deviation", "between -30 and -90"), "Axis near 30.", False),
    ("numbers", LBBB, "QRS of 134 ms.", False),
    ("numbers", LBBB, "Axis of -45 degrees.", False),
    ("numbers", allowed("LBBB", measurements={"qrs": 133.6}), "QRS of 134 ms.", True),
    ("numbers", allowed("LBBB", measurements={"qrs": 133.6}), "QRS of 140 ms.", False),
    ("numbers", allowed("Left axis deviation", "between -30 and -90"), "Axis under -30.", True),
    ("territory", INFERIOR, "Q waves in II, III and aVF.", True),
    ("territory", INFERIOR, "Q waves in the inferior leads.", True),
    ("territory", INFERIOR, "Q waves in V2 to V4.", False),
    ("territory", INFERIOR, "Q waves in II and V1-V3.", False),
    ("territory", INFERIOR, "Q waves of the anterior wall.", False),
    ("territory", INFERIOR, "Inferolateral Q waves.", False),
    ("territory", allowed("Anterior infarct"), "Q waves in V1 to V4.", True),
    ("certainty", allowed("Inferior infarct"), "Q waves in II.", True),
    ("certainty", allowed("Possible inferior infarct"), "Possibly Q waves in II.", True),
    ("certainty", allowed("Possible inferior infarct"), "Q waves may be seen.", True),
    ("certainty", allowed("Possible inferior infarct"), "Q waves in II, III and aVF.", False),
    ("certainty", allowed("Probable inferior infarct"), "Probably Q waves.", True),
    ("certainty", allowed("Probable inferior infarct"), "Q waves.", False),
    ("certainty", allowed("Consider inferior infarct"), "To consider: Q waves.", True),
    ("certainty", allowed("Consider inferior infarct"), "There are Q waves.", False),
    ("certainty", allowed("Cannot rule out infarct"), "Not excluded: Q waves.", True),
    ("certainty", allowed("Cannot rule out infarct"), "Q waves.", False),
    ("certainty", allowed("Borderline prolonged QT"), "Borderline: late T end.", True),
    ("certainty", allowed("Borderline prolonged QT"), "Late T end.", False),
    ("certainty", allowed("Nonspecific ST changes"), "Nonspecific ST shift.", True),
    ("certainty", allowed("Nonspecific ST changes"), "Ischemic ST shift.", False),
    ("polarity", allowed("Atrial fibrillation"), "No P waves, irregular RR intervals.", True),
    ("polarity", allowed("Atrial fibrillation"), "P waves before each QRS complex.", False),
    ("polarity", allowed("Atrial fibrillation"), "Each QRS is preceded by a P wave.", False),
    ("polarity", allowed("Atrial fibrillation"), "A regular rhythm without P waves.", False),
    ("polarity", allowed("First degree AV block"), "Long constant PR interval.", True),
    ("polarity", allowed("First degree AV block"), "A normal PR interval.", False),
    ("polarity", allowed("AV dissociation"), "P waves and QRS are unrelated.", True),
    ("polarity", allowed("AV dissociation"), "1:1 AV conduction.", False),
    ("polarity", allowed("LBBB"), "Wide notched QRS.", True),
    ("polarity", allowed("LBBB"), "A narrow QRS.", False),
    ("polarity", allowed("Sinus rhythm"), "P waves before each QRS complex.", True),
    ("polarity", allowed("Left axis deviation"), "Normal axis.", False),
    ("diagnoses", allowed("Left axis deviation"), "QRS negative in II and aVF.", True),
    ("diagnoses", allowed("Left axis deviation"), "Left axis from left anterior hemiblock.", False),
    ("diagnoses", allowed("Nonspecific ST changes"), "Old inferior infarct.", False),
    ("diagnoses", allowed("Nonspecific ST changes"), "No sign of infarct.", True),
    ("diagnoses", allowed("ST elevation, consider acute infarct"), "Acute infarct.", True),
    (
        "diagnoses",
        allowed("Septal hypertrophy", mentions=("left_ventricular_strain",)),
        "Often with left ventricular strain.",
        True,
    ),
    ("diagnoses", allowed("Lead(s) unsuitable for analysis: V3"), "Inferior infarct.", False),
    ("diagnoses", allowed("Lead(s) unsuitable for analysis: V3"), "V3 is not usable.", True),
    ("diagnoses", allowed("Abnormal ECG"), "Left ventricular hypertrophy.", False),
    ("diagnoses", allowed("Quixotic deflections"), "Atrial fibrillation.", False),
    ("chatter", LBBB, "Wide QRS with broad notched R in V5 and V6.", True),
    ("chatter", LBBB, "The potential ECG waveform for LBBB is wide.", False),
    ("chatter", LBBB, "I'm sorry, the context does not say.", False),
    ("chatter", LBBB, "**Wide** QRS.", False),
    ("chatter", LBBB, "Wide QRS.\nNotched R.", False),
    ("chatter", LBBB, "Figure 14 shows a wide QRS.", False),
    ("chatter", LBBB, "A wide QRS; a pacemaker is recommended.", False),
    ("chatter", LBBB, "Wide QRS, see https://example.org.", False),
    ("chatter", LBBB, "Wide\u200b QRS.", False),
    ("length", LBBB, "Wide notched QRS.", True),
    ("length", LBBB, "Wide.", False),
    ("length", LBBB, "Wide " * 80 + ".", False),
    ("length", LBBB, "Wide notched QRS with a broad", False),
]


@pytest.mark.parametrize(("check", "given", "text", "passes"), CASES)
def test_check(check: str, given: Allowed, text: str, passes: bool) -> None:
    reason = CHECKS[check](text, given)
    assert (reason == "") == passes, reason


def test_every_check_has_cases_of_both_kinds() -> None:
    for check in CHECKS:
        assert {case[3] for case in CASES if case[0] == check} == {True, False}


def test_run_checks_names_all_failures_with_reasons() -> None:
    given = allowed("Possible atrial fibrillation")
    failed = run_checks("P waves before each QRS at 72 per minute", given)
    assert set(failed) == {"numbers", "certainty", "polarity", "length"}
    assert "72" in failed["numbers"]
    assert run_checks("P waves before each QRS at 72 per minute", given, ["chatter"]) == {}


def test_forbidden_claims_of_several_findings_add_up() -> None:
    both = forbidden_claims(("atrial_fibrillation", "inferior_st_elevation"))
    assert {"p_before_each_qrs", "isoelectric_st", "normal_ecg"} <= both
    assert forbidden_claims(("sinus_rhythm",)) == frozenset()
    assert claims_of("Normal PR 160 ms, wide QRS, left axis") == {
        "normal_pr",
        "wide_qrs",
        "left_axis",
    }


class Scripted:
    """A backend that says what it is told and counts the calls."""

    name = "scripted"
    model = "none"

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def generate(self, request: Request) -> str:
        self.requests.append(request)
        return self.answers[len(self.requests) - 1]


def test_a_good_answer_is_used_as_it_is() -> None:
    backend = Scripted("Chaotic baseline without P waves.")
    made = describe(said("Atrial fibrillation"), backend, passage_retriever())
    assert (made.text, made.backend) == ("Chaotic baseline without P waves.", "scripted")
    assert made.sources == ("atrial-fibrillation",)
    assert made.checks == tuple(CHECKS)
    assert made.failures == ()
    assert len(made.prompt_sha256) == 64


def test_a_failure_is_retried_once_with_the_reason() -> None:
    backend = Scripted("P waves before each QRS.", "Chaotic baseline without P waves.")
    made = describe(said("Atrial fibrillation"), backend, passage_retriever())
    assert made.text == "Chaotic baseline without P waves."
    assert [request.attempt for request in backend.requests] == [0, 1]
    assert "polarity" in backend.requests[1].reasons[0]
    assert len(made.failures) == 1


def test_two_failures_give_the_template() -> None:
    backend = Scripted("P waves before each QRS.", "Sorry, I cannot.", "never asked")
    made = describe(said("Atrial fibrillation"), backend, passage_retriever())
    template = describe(said("Atrial fibrillation"), TemplateBackend(), passage_retriever())
    assert (made.backend, made.text) == ("template", template.text)
    assert len(backend.requests) == 2
    assert {failure.split(":")[0] for failure in made.failures} == {"scripted"}


@pytest.mark.parametrize(
    "line",
    [
        "Lead(s) unsuitable for analysis: V3",
        "Abnormal ECG",
        "Quixotic deflections",
        "Ventricular aneurysm",
    ],
)
def test_what_has_no_passage_stays_bare_and_no_backend_is_asked(line: str) -> None:
    backend = Scripted()
    made = describe(said(line), backend, passage_retriever())
    assert (made.text, made.backend, made.sources) == ("", "statement", ())
    assert backend.requests == []


def test_one_description_per_canonical_statement() -> None:
    lines = ("Atrial fibrillation", "ATRIAL FIBRILLATION.", "*** afib ***", "No ST elevation")
    backend = Scripted(*["Chaotic baseline without P waves."] * 4)
    made = list(describe_all(statements_of(lines), backend, passage_retriever()))
    assert [one.statement for one in made] == ["atrial fibrillation"]
    assert len(backend.requests) == 1


def test_the_template_passes_its_own_checks_for_every_passage_and_hedge() -> None:
    retriever = passage_retriever()
    hedges = ("", "Possible ", "Probable ", "Consider ", "Cannot rule out ", "Borderline ")
    for passage in passages():
        concept = passage.metadata["concept"]
        for hedge in hedges:
            from esi_fast.cqa.caption import display_name

            statement = said(f"{hedge}{display_name(concept)}")
            assert statement.concept == concept
            made = describe(statement, TemplateBackend(), retriever)
            assert made.failures == ()
            assert made.sources == (passage.id,)
            assert "{" not in made.text
            again = describe(statement, TemplateBackend(), retriever)
            assert again == made


@pytest.mark.parametrize(
    ("line", "leads"),
    [
        ("Inferior ischemia", "II, III and aVF"),
        ("Lateral T wave inversion", "I, aVL, V5 and V6"),
        ("ST depression in V4-V6", "V4, V5 and V6"),
        ("ST depression in V4", "in V4."),
        ("ST depression", "the affected leads"),
    ],
)
def test_the_template_names_the_leads_of_the_wall(line: str, leads: str) -> None:
    assert leads in describe(said(line), TemplateBackend(), passage_retriever()).text


# Walls as reports write them: the leads that see them from the front, and whether V1 to V3 see them
# from behind (they do not where they already see another wall from the front).
WALLS = {
    "Inferior": ("II, III and aVF", False),
    "Posterior": ("", True),
    "Anterior": ("V2, V3 and V4", False),
    "Septal": ("V1 and V2", False),
    "Apical": ("V3, V4, V5 and V6", False),
    "Lateral": ("I, aVL, V5 and V6", False),
    "Anteroseptal": ("V1, V2, V3 and V4", False),
    "Anterolateral": ("I, aVL, V3, V4, V5 and V6", False),
    "Anteroseptolateral": ("I, aVL, V1, V2, V3, V4, V5 and V6", False),
    "Inferolateral": ("I, II, III, aVL, aVF, V5 and V6", False),
    "Inferoposterior": ("II, III and aVF", True),
    "Inferoposterolateral": ("I, II, III, aVL, aVF, V5 and V6", True),
    "Posterolateral": ("I, aVL, V5 and V6", True),
    "Inferoapical": ("II, III, aVF, V3, V4, V5 and V6", False),
    "Septoapical": ("V1, V2, V3, V4, V5 and V6", False),
    "Anteroapical": ("V1, V2, V3, V4, V5 and V6", False),
    "Anterior/posterior": ("V2, V3 and V4", False),
    "Septal/posterior": ("V1 and V2", False),
}
# What is seen from the front, and what V1 to V3 show of the posterior wall: the reverse. None: a
# thing that has no direction, so that the leads simply add up. "": nothing is said of them.
LOOKS = {
    "ST elevation": (
        "ST segment above the baseline in {}",
        "ST segment below the baseline in V1 to V3, the mirror of the posterior wall",
    ),
    "ST depression": ("ST segment below the baseline in {}", None),
    "ST abnormality": ("ST segment off its normal course in {}, without a diagnostic shape", None),
    "ST-T abnormality": ("ST segment and T wave off their normal course in {}", None),
    "T wave abnormality": (
        "flat or shallowly negative T waves in {}, without a diagnostic shape",
        "T waves of unusual height in V1 to V3, the mirror of the posterior wall",
    ),
    "T wave inversion": (
        "negative T waves in {}",
        "tall upright T waves in V1 to V3, the mirror of the posterior wall",
    ),
    "low T wave amplitude": ("flat T waves in {}", None),
    "ischemia": (
        "horizontal or down-sloping ST lowering or symmetrical T inversion in {}",
        "horizontal ST lowering or tall upright T waves in V1 to V3, "
        "the mirror of the posterior wall",
    ),
    "subendocardial injury": ("marked ST lowering in {}", ""),
    "injury": (
        "ST deviation of a current of injury in {}",
        "ST segment below the baseline in V1 to V3, the mirror of the posterior wall",
    ),
    "myocardial infarction": (
        "pathological Q waves or loss of R in {}",
        "tall broad R with upright T in V1 and V2, the mirror of the posterior wall",
    ),
    "abnormal Q waves": (
        "deep or broad Q waves in {}",
        "tall broad R in V1 and V2, the mirror of the posterior wall",
    ),
}
# Those with a passage of their own, which is about that very wall.
OWN = {
    "Anterior ST elevation": (
        "ST segment raised in V1 to V4, often with reciprocal lowering in II, III and aVF"
    ),
    "Inferior ST elevation": (
        "ST segment raised in II, III and aVF, often with reciprocal lowering in I and aVL"
    ),
    "Lateral ST elevation": (
        "ST segment raised in I, aVL, V5 and V6, at times with reciprocal lowering in III and aVF"
    ),
    "Inferior myocardial infarction": "pathological Q waves in II, III and aVF",
    "Anterior myocardial infarction": "pathological Q waves or lost R waves in V1 to V4",
    "Anteroseptal myocardial infarction": "QS or Q waves in V1 to V3 or V4",
    "Lateral myocardial infarction": "pathological Q waves in I, aVL, V5 and V6",
    "Posterior myocardial infarction": (
        "tall broad R in V1 and V2 with upright T, the mirror of a Q wave"
    ),
}
# V1 to V3 beside the leads of the other walls, for what has no direction.
ADDED = {
    "Posterior": "V1, V2 and V3",
    "Inferoposterior": "II, III, aVF, V1, V2 and V3",
    "Inferoposterolateral": "I, II, III, aVL, aVF, V1, V2, V3, V5 and V6",
    "Posterolateral": "I, aVL, V1, V2, V3, V5 and V6",
    "Anterior/posterior": "V1, V2, V3 and V4",
    "Septal/posterior": "V1, V2 and V3",
}


def looks(wall: str, thing: str) -> str:
    if f"{wall} {thing}" in OWN:
        return OWN[f"{wall} {thing}"]
    leads, behind = WALLS[wall]
    front, mirror = LOOKS[thing]
    if mirror is None:
        return front.format(ADDED.get(wall, leads))
    seen = [front.format(leads)] if leads else []
    if behind and mirror:
        seen.append(mirror)
    return "; ".join(seen) or front.format("the affected leads")


@pytest.mark.parametrize("thing", LOOKS)
@pytest.mark.parametrize("wall", WALLS)
def test_every_wall_is_described_as_its_leads_show_it(wall: str, thing: str) -> None:
    (statement,) = normalize(f"{wall} {thing}")
    assert statement.territory
    made = describe(statement, TemplateBackend(), passage_retriever())
    expected = looks(wall, thing)
    assert made.text == f"{expected[0].upper()}{expected[1:]}."
    assert made.failures == ()


def test_the_walls_and_things_of_the_table_are_all_there_are() -> None:
    joined = {wall.casefold() for wall in WALLS if "/" not in wall}
    assert joined == {word for word, walls in WALLS_OF_WORD.items() if walls}
    placed = {
        passage.metadata["base"]
        for passage in passages()
        if "{leads}" in str(passage.metadata["appearance"])
    }
    assert {said(thing).base for thing in LOOKS} == placed


@pytest.mark.parametrize(
    ("line", "text"),
    [
        # A hedge stands before both sides of the mirror.
        (
            "Possible inferoposterior infarct",
            "Possibly pathological Q waves or loss of R in II, III and aVF; tall broad R with "
            "upright T in V1 and V2, the mirror of the posterior wall.",
        ),
        # PTB-XL's codes.
        (
            "IPMI",
            "Pathological Q waves or loss of R in II, III and aVF; tall broad R with upright T "
            "in V1 and V2, the mirror of the posterior wall.",
        ),
        # Of leads that a report names beside the posterior wall, V1 to V3 may be meant either way.
        (
            "Inferoposterior infarct in leads II, III, aVF, V1, V2",
            "Pathological Q waves or loss of R in II, III and aVF.",
        ),
        ("Posterior ST elevation in V1-V3", "ST segment above the baseline in the affected leads."),
        # The wall of the cause: "due to posterior infarct" is a depression in V1 to V3.
        (
            "ST depression, consider posterior infarct",
            "ST segment below the baseline in V1, V2 and V3.",
        ),
    ],
)
def test_the_posterior_wall_in_reports(line: str, text: str) -> None:
    assert describe(said(line), TemplateBackend(), passage_retriever()).text == text


def test_passages_state_the_adult_criteria() -> None:
    text = {passage.id: passage.text for passage in passages()}
    assert "PR below 120 ms" in text["wolff-parkinson-white"]
    assert "QRS usually 120 ms or more" in text["wolff-parkinson-white"]
    assert "110" not in text["wolff-parkinson-white"]
    for name in ("abnormal-q-waves", "myocardial-infarction"):
        assert "a Q of 20 ms or more, or QS, in V2 and V3" in text[name]
        assert "any Q" not in text[name]


def test_av_dissociation_is_described_as_itself() -> None:
    made = describe(said("AV dissociation"), TemplateBackend(), passage_retriever())
    assert made.sources == ("av-dissociation",)
    assert "escape" not in made.text
    assert "slow" not in made.text
    assert made.text


def test_the_prompt_hash_changes_with_what_is_asked() -> None:
    hashes = {
        describe(said(line), TemplateBackend(), passage_retriever()).prompt_sha256
        for line in ("Inferior infarct", "Possible inferior infarct", "Anterior infarct")
    }
    assert len(hashes) == 3


def test_a_dictionary_refuses_two_descriptions_of_one_statement() -> None:
    one = Description("sinus rhythm", "sinus_rhythm", "rhythm", "definite")
    with pytest.raises(ValueError, match="'sinus rhythm' is described twice"):
        CaptionDictionary([one, one])
