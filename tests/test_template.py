"""The template: every wall, hedge and passage as a sentence that passes its own checks."""

from __future__ import annotations

import pytest

from esi_fast.cqa.concepts import WALLS_OF_WORD, display_name
from esi_fast.cqa.dictionary import Description
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.knowledge import passage_retriever, passages
from esi_fast.cqa.statements import Statement, normalize
from esi_fast.cqa.template import TemplateBackend

RETRIEVER = passage_retriever()


def said(line: str) -> Statement:
    return normalize(line)[0]


def describe(statement: Statement) -> Description:
    (made,) = describe_all([statement], TemplateBackend(), RETRIEVER).descriptions
    return made


def test_the_template_passes_its_own_checks_for_every_passage_and_hedge() -> None:
    hedges = ("", "Possible ", "Probable ", "Consider ", "Cannot rule out ", "Borderline ")
    for passage in passages():
        concept = passage.metadata["concept"]
        for hedge in hedges:
            age = "acute " if passage.metadata["acuity"] else ""
            statement = said(f"{hedge}{age}{display_name(concept)}")
            assert statement.concept == concept
            made = describe(statement)
            assert made.failures == ()
            assert made.sources == (passage.id,)
            assert "{" not in made.text
            again = describe(statement)
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
    assert leads in describe(said(line)).text


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
    "tall T waves": ("T waves of unusual height in {}", ""),
    "non-ST-elevation myocardial infarction": (
        "ST lowering or inverted T waves in {} without pathological Q waves",
        "",
    ),
    "abnormal Q waves": (
        "deep or broad Q waves in {}",
        "tall broad R in V1 and V2, the mirror of the posterior wall",
    ),
}
# Those with a passage of their own, which is about that very wall.
OWN = {
    "Anterior ST elevation": "ST segment raised in V2, V3 and V4",
    "Inferior ST elevation": "ST segment raised in II, III and aVF",
    "Lateral ST elevation": "ST segment raised in I, aVL, V5 and V6",
    "Anterolateral ST elevation": "ST segment raised in I, aVL, V3, V4, V5 and V6",
    "Septal myocardial infarction": "QS complexes without the septal r in V1 and V2",
    "Apical myocardial infarction": "pathological Q waves or lost R waves in V3 to V6",
    "Anterolateral myocardial infarction": (
        "pathological Q waves or lost R waves in V3 to V6, I and aVL"
    ),
    "Anteroseptolateral myocardial infarction": "QS or Q waves from V1 to V6, in I and aVL",
    "Inferolateral myocardial infarction": (
        "pathological Q waves in II, III and aVF as well as V5 and V6"
    ),
    "Inferoposterolateral myocardial infarction": (
        "Q waves in II, III, aVF, V5 and V6 with tall broad R and upright T in V1 and V2"
    ),
    "Posterolateral myocardial infarction": (
        "Q waves in I, aVL, V5 and V6 with tall broad R and upright T in V1 and V2"
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
    made = describe(statement)
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
    assert describe(said(line)).text == text


def test_passages_state_the_adult_criteria() -> None:
    text = {passage.id: passage.text for passage in passages()}
    assert "PR below 120 ms" in text["wolff-parkinson-white"]
    assert "QRS usually 120 ms or more" in text["wolff-parkinson-white"]
    assert "110" not in text["wolff-parkinson-white"]
    for name in ("abnormal-q-waves", "myocardial-infarction"):
        assert "a Q of 20 ms or more, or QS, in V2 and V3" in text[name]
        assert "any Q" not in text[name]


def test_av_dissociation_is_described_as_itself() -> None:
    made = describe(said("AV dissociation"))
    assert made.sources == ("av-dissociation",)
    assert "escape" not in made.text
    assert "slow" not in made.text
    assert made.text
