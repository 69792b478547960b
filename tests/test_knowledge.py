"""The passages: how many, their rules and criteria, and that what they say passes the checks."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files

import pytest

from esi_fast.cqa.concepts import WALLS_OF_WORD, concepts, display_name
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.knowledge import passage_retriever, passages, sources_by_key
from esi_fast.cqa.knowledge.passage import check_together, document_of
from esi_fast.cqa.lead_words import leads_named
from esi_fast.cqa.statements import Statement, normalize
from esi_fast.cqa.template import TemplateBackend
from esi_fast.retriever import Document

HEDGES = (
    "",
    "Probable ",
    "Possible ",
    "Consider ",
    "Cannot rule out ",
    "Borderline ",
    "Nonspecific ",
)
ACUTE = "acute-{}-myocardial-infarction"

# Kind, territory, side, degree and acuity, by hand.
ATTRIBUTES = {
    "sinus-rhythm": ("rhythm", [], "", "", ""),
    "ventricular-tachycardia": ("rhythm", [], "", "", ""),
    "biventricular-paced-rhythm": ("pacing", [], "both", "", ""),
    "first-degree-av-block": ("conduction", [], "", "first", ""),
    "mobitz-i-av-block": ("conduction", [], "", "second", ""),
    "mobitz-ii-av-block": ("conduction", [], "", "second", ""),
    "high-degree-av-block": ("conduction", [], "", "high", ""),
    "third-degree-av-block": ("conduction", [], "", "third", ""),
    "left-bundle-branch-block": ("conduction", [], "left", "", ""),
    "incomplete-right-bundle-branch-block": ("conduction", [], "right", "", ""),
    "left-posterior-fascicular-block": ("conduction", [], "left", "", ""),
    "voltage-criteria-for-left-ventricular-hypertrophy": ("hypertrophy", [], "left", "", ""),
    "biatrial-enlargement": ("hypertrophy", [], "both", "", ""),
    "right-ventricular-strain": ("ST-T", [], "right", "", ""),
    "myocardial-infarction": ("infarct", [], "", "", ""),
    "inferior-myocardial-infarction": ("infarct", ["inferior"], "", "", ""),
    ACUTE.format("inferior"): ("infarct", ["inferior"], "", "", "acute"),
    ACUTE.format("anteroseptal"): ("infarct", ["anterior", "septal"], "", "", "acute"),
    "anterolateral-ischemia": ("ST-T", ["anterior", "lateral"], "", "", ""),
    "inferior-st-elevation": ("ST-T", ["inferior"], "", "", ""),
    "left-axis-deviation": ("axis", [], "left", "", ""),
    "prolonged-qt": ("interval", [], "", "", ""),
}
# Leads that a wording must name: those in which the sign is.
PLACES = {
    "left-bundle-branch-block": {"I", "aVL", "V1", "V5", "V6"},
    "right-bundle-branch-block": {"I", "V1", "V2", "V6"},
    "left-anterior-fascicular-block": {"aVL", "II", "III", "aVF"},
    "brugada-pattern": {"V1", "V2"},
    "left-atrial-enlargement": {"II", "V1"},
    "inferior-myocardial-infarction": {"II", "III", "aVF"},
    "anterolateral-myocardial-infarction": {"I", "aVL", "V3", "V4", "V5", "V6"},
    "posterior-myocardial-infarction": {"V1", "V2"},
    ACUTE.format("inferior"): {"II", "III", "aVF", "aVL"},
    ACUTE.format("lateral"): {"I", "aVL", "V5", "V6", "III", "aVF"},
    ACUTE.format("posterior"): {"V1", "V2", "V3"},
    "epsilon-wave": {"V1", "V2", "V3"},
    "extreme-axis-deviation": {"I", "aVF", "aVR"},
}
# Numbers that the criteria of these findings hold, in the adult.
CRITERIA = {
    "sinus-pause": ("3 seconds",),
    "atrial-flutter": ("240 to 340 per minute", "2:1"),
    "ventricular-tachycardia": ("above 100 per minute", "120 ms", "30 seconds"),
    "first-degree-av-block": ("200 ms",),
    "prolonged-pr": ("200 ms",),
    "high-degree-av-block": ("Two or more consecutive",),
    "left-bundle-branch-block": ("120 ms or more", "60 ms"),
    "incomplete-left-bundle-branch-block": ("110 to 119 ms",),
    "right-bundle-branch-block": ("120 ms or more", "40 ms", "50 ms"),
    "incomplete-right-bundle-branch-block": ("110 to 119 ms",),
    "left-anterior-fascicular-block": ("-45 and -90 degrees", "45 ms"),
    "left-posterior-fascicular-block": ("90 and 180 degrees",),
    "intraventricular-conduction-delay": ("110 ms",),
    "wolff-parkinson-white": ("PR below 120 ms",),
    "brugada-pattern": ("0.2 mV",),
    "left-ventricular-hypertrophy": ("3.5 mV, 35 mm (Sokolow-Lyon)", "2.8 mV", "2.0 mV", "1.1 mV"),
    "right-ventricular-hypertrophy": ("0.6 mV", "1.05 mV"),
    "left-atrial-enlargement": ("120 ms", "40 ms", "0.1 mV"),
    "right-atrial-enlargement": ("0.25 mV", "0.15 mV"),
    "myocardial-infarction": ("30 ms", "20 ms", "0.1 mV"),
    ACUTE.replace("{}-", ""): ("0.1 mV", "0.25 mV", "40 years", "0.2 mV", "0.15 mV"),
    ACUTE.format("posterior"): ("0.05 mV", "V7 to V9"),
    "st-elevation": ("0.1 mV", "0.2 mV", "0.25 mV", "0.15 mV"),
    "t-wave-inversion": ("0.1 mV", "0.5 mV", "1.0 mV"),
    "prolonged-qt": ("450 ms or more in men", "460 ms or more in women", "500 ms"),
    "short-qt": ("390 ms",),
    "low-qrs-voltage": ("0.5 mV", "1.0 mV"),
    "poor-r-wave-progression": ("0.3 mV",),
    "left-axis-deviation": ("-30 and -90 degrees",),
    "right-axis-deviation": ("90 and 180 degrees",),
    "extreme-axis-deviation": ("-90 and -180 degrees",),
}

GOOD = {
    "base": "st_elevation",
    "territory": ["inferior"],
    "title": "Raised ST",
    "appearance": "ST segment high in II",
    "paraphrases": ["raised ST in II"],
    "text": "word " * 34 + "II",
    "leads": ["II"],
    "source": "udmi4",
}
BLOCK = {"base": "first_degree_av_block", "territory": [], "degree": "first"}
LEFT = {"base": "left_bundle_branch_block", "territory": [], "side": "left"}
BAD = [
    ({"text": None}, "lacks text"),
    ({"paraphrases": None}, "lacks paraphrases"),
    ({"apperance": "x"}, "unknown keys: apperance"),
    ({"base": "st_elevated"}, "does not exist: st_elevated"),
    ({"mentions": ["flu"]}, "does not exist: flu"),
    ({"leads": ["II", "V9"]}, "does not exist: V9"),
    ({"territory": ["dorsal"]}, "does not exist: dorsal"),
    ({"source": "hearsay"}, "does not exist: hearsay"),
    ({**BLOCK, "territory": ["inferior"]}, "of no wall"),
    ({**BLOCK, "degree": "second"}, "has degree 'second'"),
    ({**BLOCK, "degree": ""}, "has degree ''"),
    ({"degree": "first"}, "has degree 'first'"),
    ({**LEFT, "side": "right"}, "has side 'right'"),
    ({**LEFT, "side": ""}, "has side ''"),
    ({**LEFT, "base": "biatrial_enlargement"}, "has 'both'"),
    ({"side": "left"}, "has side 'left'"),
    ({"acuity": "old"}, "has acuity 'old'"),
    ({"paraphrases": []}, "0 paraphrases"),
    ({"paraphrases": ["one ST wording", "two ST wordings", "ST wordings again"]}, "3 paraphrases"),
    ({"appearance": "raised ST in {leads}"}, "in one wording and not in another"),
    ({**BLOCK, "appearance": "late in {leads}", "paraphrases": ["slow in {leads}"]}, "of no wall"),
    ({"mirror": "lowered ST in V1"}, "has a mirror, but"),
    ({"appearance": "ST high"}, "wording of 2 words"),
    ({"appearance": "ST " * 21}, "wording of 21 words"),
    ({"appearance": "Raised ST in II"}, "fits no sentence"),
    ({"appearance": "raised ST in II."}, "fits no sentence"),
    ({"appearance": "raised ST in II "}, "fits no sentence"),
    ({"appearance": "ST raised by 2 mm"}, "a number in a wording"),
    ({"paraphrases": ["ST raised in <II"]}, "marks in a wording"),
    ({"appearance": "raised ST in V2"}, "outside its list: V2"),
    ({"paraphrases": ["raised ST in V2 to V4"]}, "outside its list: V2, V3, V4"),
    ({"text": "word " * 34 + "aVF"}, "outside its list: aVF"),
    ({"text": "word " * 34}, "text of 34 words"),
    ({"text": "word " * 131}, "text of 131 words"),
]


def row(**changes: object) -> dict[str, object]:
    return {key: value for key, value in (GOOD | changes).items() if value is not None}


def by_id() -> dict[str, Document]:
    return {one.id: one for one in passages()}


def statement_of(passage: Document, hedge: str = "") -> Statement:
    acuity = f"{passage.metadata['acuity']} " if passage.metadata["acuity"] else ""
    (statement,) = normalize(f"{hedge}{acuity}{display_name(passage.metadata['concept'])}")
    assert statement.concept == passage.metadata["concept"]
    return statement


def test_there_are_enough_and_every_finding_has_one() -> None:
    found = passages()
    assert len(found) >= 180
    plain = {one.metadata["concept"] for one in found if not one.metadata["acuity"]}
    assert {one.name for one in concepts().values() if one.kind != "summary"} <= plain
    kinds = Counter(one.metadata["kind"] for one in found)
    assert min(kinds[kind] for kind in ("rhythm", "conduction", "hypertrophy", "infarct")) >= 12
    assert kinds["ST-T"] >= 50


def test_every_acute_infarct_has_an_old_one_that_looks_different() -> None:
    acute = [one for one in passages() if one.metadata["acuity"]]
    assert len(acute) >= 14
    for one in acute:
        assert one.metadata["base"] == "myocardial_infarction"
        twin = by_id()[one.id.removeprefix("acute-")]
        assert twin.metadata["concept"] == one.metadata["concept"]
        assert "Q" in twin.metadata["appearance"] or "R" in twin.metadata["appearance"]
        assert "ST" in one.metadata["appearance"]


@pytest.mark.parametrize(("name", "expected"), ATTRIBUTES.items())
def test_attributes(name: str, expected: tuple[object, ...]) -> None:
    metadata = by_id()[name].metadata
    keys = ("kind", "territory", "side", "degree", "acuity")
    assert tuple(metadata[key] for key in keys) == expected


@pytest.mark.parametrize(("name", "leads"), PLACES.items())
def test_every_wording_is_specific_to_the_leads(name: str, leads: set[str]) -> None:
    statement = statement_of(by_id()[name])
    (made,) = describe_all([statement], TemplateBackend(), passage_retriever()).descriptions
    assert leads_named(made.text) == leads
    for words in made.paraphrases:
        assert leads & leads_named(words)


@pytest.mark.parametrize(("name", "numbers"), CRITERIA.items())
def test_criteria_have_their_numbers(name: str, numbers: tuple[str, ...]) -> None:
    for number in numbers:
        assert number in by_id()[name].text


def test_a_good_row_is_read() -> None:
    made = document_of(row(text=" \n".join(["word"] * 35) + "\n"), {"udmi4": "Someone, 2018"})
    assert (made.id, made.text) == ("inferior-st-elevation", " ".join(["word"] * 35))
    assert made.metadata["source"] == "Someone, 2018"
    assert made.metadata["mirror"] is None
    assert made.metadata["acuity"] == ""
    assert document_of(row(acuity="acute"), sources_by_key()).id == "acute-inferior-st-elevation"
    # "Type II" is a kind of block, and no lead.
    document_of(row(text="Mobitz type I or II " * 9, **BLOCK), sources_by_key())


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_row_that_breaks_a_rule_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^passage 'Raised ST' .*{re.escape(message)}"):
        document_of(row(**changes), sources_by_key())


def test_passages_that_are_alike_are_refused() -> None:
    one = document_of(row(), sources_by_key())
    with pytest.raises(ValueError, match="'Raised ST' has the id 'inferior-st-elevation'"):
        check_together([one, one])
    other = document_of(row(territory=["lateral"]), sources_by_key())
    with pytest.raises(ValueError, match="'Raised ST' says the same"):
        check_together([one, other])


def test_every_wording_passes_every_check_in_every_certainty() -> None:
    wanted = {(one.id, hedge): statement_of(one, hedge) for one in passages() for hedge in HEDGES}
    assert len({one.certainty for one in wanted.values()}) == len(HEDGES)
    made = describe_all(wanted.values(), TemplateBackend(), passage_retriever()).descriptions
    assert len(made) == len(wanted)
    for (name, hedge), one in zip(wanted, made, strict=True):
        assert (one.sources[0], one.failures) == (name, ()), (name, hedge)
        # A paraphrase that fails a check is left out.
        assert len(one.paraphrases) == len(by_id()[name].metadata["paraphrases"]), (name, hedge)
        assert "{" not in "".join((one.text, *one.paraphrases))


def test_wordings_with_leads_pass_the_checks_on_every_wall() -> None:
    placed = [one for one in passages() if "{leads}" in one.metadata["appearance"]]
    assert len(placed) >= 13
    lines = {
        f"{wall} {display_name(one.metadata['base'])}": one
        for one in placed
        for wall in (wall for wall, walls in WALLS_OF_WORD.items() if walls)
        if not one.metadata["acuity"]
    }
    statements = [normalize(line)[0] for line in lines]
    for one in describe_all(statements, TemplateBackend(), passage_retriever()).descriptions:
        assert one.text
        assert one.failures == ()
        assert one.paraphrases


def test_no_two_passages_share_a_run_of_twelve_words() -> None:
    # The criterion of the Universal Definition, which both passages on Q waves give.
    criterion = "a q of 20 ms or more or qs in v2 and v3"
    seen: dict[str, str] = {}
    for passage in passages():
        words = re.findall(r"[\w.'-]+", re.sub(r"\.(?=\s|$)", "", passage.text.casefold()))
        for first in range(len(words) - 11):
            run = " ".join(words[first : first + 12])
            if run not in criterion:
                assert seen.setdefault(run, passage.id) == passage.id, run


def test_every_source_is_used() -> None:
    assert {one.metadata["source"] for one in passages()} == set(sources_by_key().values())
    assert len(sources_by_key()) == len(set(sources_by_key().values()))


def test_the_files_lie_in_the_package_and_are_all_read() -> None:
    folder = files("esi_fast.cqa.knowledge")
    tables = [one.read_text() for one in folder.iterdir() if one.name.endswith(".toml")]
    assert sum(table.count("[[passage]]") for table in tables) == len(passages())


def test_reading_again_gives_the_same_bytes() -> None:
    def written() -> str:
        return json.dumps([[p.id, p.title, p.text, dict(p.metadata)] for p in passages()])

    before = written()
    passages.cache_clear()
    assert written() == before
