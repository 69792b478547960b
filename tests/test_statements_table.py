"""The statement normaliser against tables of device-style lines and of database codes."""

from __future__ import annotations

import csv
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from statement_lines import LINES as PLAIN_LINES
from statement_lines import table, told

from esi_fast.cqa.concepts import codes, concepts
from esi_fast.cqa.coverage import LineRead, coverage_of
from esi_fast.cqa.folding import fold
from esi_fast.cqa.phrases import phrase
from esi_fast.cqa.statements import normalize, statements_of
from esi_fast.signal.catalogues import open_catalogue

LINES = PLAIN_LINES | table("statements_denied")


@pytest.mark.parametrize(("line", "expected"), LINES.items())
def test_line_says_this(line: str, expected: str) -> None:
    said = normalize(line)
    assert told(said) == expected
    assert all(one.raw == line for one in said)


def test_the_table_is_large_and_no_words_of_it_are_left_over() -> None:
    assert len(LINES) >= 600
    # Modifiers are tested as well as concepts.
    for mark in ("possible ", "acute ", "cannot_rule_out ", "(", "[", "<", "not ", "technical:"):
        assert sum(mark in expected for expected in LINES.values()) >= 10, mark
    left_over = {
        line: one.remainder
        for line in LINES
        for one in normalize(line)
        if one.remainder and one.kind != "unknown"
    }
    assert left_over == {}


@pytest.mark.parametrize("line", LINES)
def test_canonical_words_say_the_same_again(line: str) -> None:
    for one in normalize(line):
        if one.is_finding:
            (again,) = normalize(phrase(one))
            for name in ("concept", "territory", "certainty", "acuity", "rate_response", "cause"):
                assert getattr(again, name) == getattr(one, name), (name, phrase(one))


def test_a_notice_is_never_a_finding_and_a_finding_never_a_notice() -> None:
    table_of_concepts = concepts()
    for line in LINES:
        for one in normalize(line):
            if one.is_finding or one.negated or one.kind == "summary":
                assert table_of_concepts[one.base].kind == one.kind
            else:
                assert one.base not in table_of_concepts


def test_every_code_of_the_databases_is_known() -> None:
    expected = table("statement_codes")
    assert set(expected) | {"233896004"} == set(codes())
    for code, words in expected.items():
        said = normalize(code)
        assert told(said) == words, code
        assert all(one.raw == code and not one.remainder for one in said)


def test_the_codes_are_those_of_ptb_xl_and_of_the_challenge(shared_data: Path) -> None:
    with (shared_data / "ptb-xl" / "scp_statements.csv").open(encoding="utf-8") as file:
        listed = {row[0] for row in list(csv.reader(file))[1:]}
    named = {code for code in table("statement_codes") if not code.isdecimal()}
    assert len(listed) == 71
    assert named == listed
    # 30 scored and 103 unscored diagnoses.
    assert sum(code.isdecimal() for code in table("statement_codes")) == 133


@pytest.mark.parametrize("name", ["mimic-like", "cinc2021", "ludb", "ptb-xl"])
def test_coverage_of_real_statements(name: str, shared_data: Path) -> None:
    lines: Counter[str] = Counter()
    for entry in open_catalogue(shared_data / name, "auto"):
        lines.update(entry.statements)
    coverage = coverage_of(lines)
    assert coverage.lines >= 20
    assert coverage.share_read >= 0.98, coverage.rows
    assert coverage.share_of_statements_read >= 0.98, coverage.rows
    assert coverage.partly_read / coverage.lines <= 0.02, coverage.rows


LUDB = """Irregular sinus rhythm|sinus_rhythm; irregular_rhythm
Atrial flutter, typical|atrial_flutter
Sinoatrial blockade, undetermined|sinoatrial_block
III degree AV-block|third_degree_av_block (third)
Non-specific intravintricular conduction delay|nonspecific intraventricular_conduction_delay
Atrial extrasystole: undetermined|premature_atrial_complexes
Atrial extrasystole: low atrial|premature_atrial_complexes
Atrial extrasystole: SA-nodal extrasystole|premature_atrial_complexes
Atrial extrasystole, type: single PAC|premature_atrial_complexes (single)
Atrial extrasystole, type: allorhythmic pattern|premature_atrial_complexes
Ventricular extrasystole, localisation: LVOT, LVS|premature_ventricular_complexes
Ventricular extrasystole, localisation: RVOT, antero-septal part|premature_ventricular_complexes
Ventricular extrasystole, localisation: RV, undefined|premature_ventricular_complexes
Ventricular extrasystole, morphology: polymorphic|premature_ventricular_complexes (polymorphic)
Ventricular extrasystole, type: bigemini|premature_ventricular_complexes; bigeminy
Ventricular extrasystole, type: couplets|premature_ventricular_complexes (couplet)
Atrial hypertrophy|atrial_enlargement
Biventricular overload|biventricular_hypertrophy
UNIpolar ventricular pacing|ventricular_paced_rhythm
BIpolar atrial pacing|atrial_paced_rhythm
Biventricular pacing|biventricular_paced_rhythm
P-synchrony|ventricular_paced_rhythm
STEMI: septal|acute septal_myocardial_infarction
Ischemia: posterior wall|posterior_ischemia
Scar formation: apical|old apical_myocardial_infarction
Undefined ischemia/scar/supp.NSTEMI: inferior wall|possible inferior_ischemia; \
possible old inferior_myocardial_infarction; \
possible acute inferior_non_st_elevation_myocardial_infarction
Non-specific repolarization abnormalities: septal|nonspecific septal_st_t_abnormality
Early repolarization syndrome|early_repolarization
Electric axis of the heart: normal|normal_axis
Electric axis of the heart: right axis deviation|right_axis_deviation"""


@pytest.mark.parametrize("row", LUDB.split("\n"))
def test_vocabulary_of_ludb(row: str) -> None:
    line, expected = row.split("|")
    for spelling in (line, line.casefold(), line.upper(), line.capitalize()):
        said = normalize(spelling)
        assert told(said) == expected
        assert not any(one.remainder for one in said)


def test_fold_is_idempotent_and_plain() -> None:
    for line in LINES:
        folded = fold(line)
        assert fold(folded) == folded
        assert re.fullmatch(r"[\w ,:'?+]*", folded)


_WORDS = [*" ".join(LINES).split(), ",", "-", "(", "[", "...", "\x00", "\xa0", "\u2013"]


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(_WORDS), max_size=30).map(" ".join)))
@example("sinus rhythm or " * 700)
@example("x ... " * 1700)
@example("(" * 10_000)
@example("v1 " * 3300)
@example(", or and " * 1200)
@example("possible " * 1200)
def test_any_text_is_read_without_error(text: str) -> None:
    said = normalize(text)
    assert said == normalize(text)
    assert all(one.raw == text for one in said)
    assert bool(said) or not re.search(r"[^\W_]", fold(text))
    assert len(statements_of((text,))) == len(said)


def test_an_overlong_line_is_read_fast_and_its_end_stays_unread() -> None:
    line = "Sinus rhythm, LBBB, " + "quixotic deflections " * 470
    taken = []
    for number in range(3):
        start = time.perf_counter()
        said = normalize(f"{line} {number}")
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.05
    assert told(said) == "sinus_rhythm; left_bundle_branch_block"
    assert said[-1].remainder.endswith("quixotic deflections 2")
    (unread,) = normalize("quixotic deflections " * 470)
    assert unread.kind == "unknown"
    assert unread.concept.count("quixotic") == 470


def test_coverage_counts() -> None:
    coverage = coverage_of(
        {"Sinus rhythm": 5, "Quixotic": 2, "Unconfirmed": 1, "Baroque": 2, "LBBB of marsupials": 4}
    )
    assert (coverage.lines, coverage.statements, coverage.technical) == (5, 14, 1)
    assert coverage.unknown == (("Baroque", 2), ("Quixotic", 2))
    assert coverage.partly_read == 1
    assert coverage.share_read == pytest.approx(3 / 5)
    assert coverage.share_of_statements_read == pytest.approx(10 / 14)
    assert coverage.rows == (
        LineRead("LBBB of marsupials", 4, ("left_bundle_branch_block",), "marsupials"),
        LineRead("Baroque", 2, (), "baroque"),
        LineRead("Quixotic", 2, (), "quixotic"),
    )
    nothing = coverage_of({})
    assert (nothing.share_read, nothing.share_of_statements_read) == (1.0, 1.0)
