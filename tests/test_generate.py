"""Describing statements: one request each, one more after a refusal, then the template."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from esi_fast.cqa.checks import CHECKS
from esi_fast.cqa.dictionary import CaptionDictionary, Description
from esi_fast.cqa.generate import Described, describe_all, retrieve, write_checks
from esi_fast.cqa.knowledge import passage_retriever, passages
from esi_fast.cqa.requests import Answer, Request
from esi_fast.cqa.statements import normalize, statements_of
from esi_fast.cqa.template import TemplateBackend
from esi_fast.retriever import Document, Retriever


def describe(line: str, backend: object) -> Description:
    described = describe_all(normalize(line)[:1], backend, passage_retriever())  # type: ignore[arg-type]
    (made,) = described.descriptions
    return made


class Scripted:
    """A backend that says what it is told, None for no answer, and keeps the requests."""

    name = "scripted"
    model = "none"

    def __init__(self, *answers: str | None) -> None:
        self.script = list(answers)
        self.requests: list[Request] = []

    def parameters(self) -> dict[str, object]:
        return {}

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        for index, request in enumerate(requests):
            self.requests.append(request)
            text = self.script[len(self.requests) - 1]
            yield index, Answer("", "server on fire") if text is None else Answer(text)


def test_a_good_answer_is_used_as_it_is() -> None:
    backend = Scripted("Chaotic baseline without P waves.")
    made = describe("Atrial fibrillation", backend)
    assert (made.text, made.backend) == ("Chaotic baseline without P waves.", "scripted")
    assert made.sources == ("atrial-fibrillation",)
    assert made.checks == tuple(CHECKS)
    assert made.failures == ()
    assert len(made.prompt_sha256) == 64


def test_a_failure_is_retried_once_with_the_reason() -> None:
    backend = Scripted("P waves before each QRS.", "Chaotic baseline without P waves.")
    made = describe("Atrial fibrillation", backend)
    assert made.text == "Chaotic baseline without P waves."
    assert [request.attempt for request in backend.requests] == [0, 1]
    assert "polarity" in backend.requests[1].reasons[0]
    assert len(made.failures) == 1


def test_two_failures_give_the_template() -> None:
    backend = Scripted("P waves before each QRS.", "Sorry, I cannot.", "never asked")
    made = describe("Atrial fibrillation", backend)
    template = describe("Atrial fibrillation", TemplateBackend())
    assert (made.backend, made.text) == ("template", template.text)
    assert len(backend.requests) == 2
    assert {failure.split(":")[0] for failure in made.failures} == {"scripted"}


def test_what_gets_no_answer_is_written_by_the_template_and_counted() -> None:
    backend = Scripted(None, "never asked")
    described = describe_all(normalize("Atrial fibrillation"), backend, passage_retriever())
    (made,) = described.descriptions
    assert made.backend == "template"
    assert made.failures == ("scripted: error: server on fire",)
    assert described.errors == {"server on fire": 1}
    assert len(backend.requests) == 1
    retried = describe("Atrial fibrillation", Scripted("P waves before each QRS.", None))
    assert retried.backend == "template"
    assert [one.split(":")[1].strip() for one in retried.failures] == ["polarity", "error"]


@pytest.mark.parametrize("line", ["Lead(s) unsuitable for analysis: V3", "Abnormal ECG"])
def test_what_has_no_passage_stays_bare_and_no_backend_is_asked(line: str) -> None:
    backend = Scripted()
    made = describe(line, backend)
    assert (made.text, made.backend, made.sources) == ("", "statement", ())
    assert backend.requests == []


def test_one_description_per_canonical_statement() -> None:
    lines = ("Atrial fibrillation", "ATRIAL FIBRILLATION.", "*** afib ***", "No ST elevation")
    backend = Scripted(*["Chaotic baseline without P waves."] * 4)
    described = describe_all(statements_of(lines), backend, passage_retriever())
    assert [one.statement for one in described.descriptions] == ["atrial fibrillation"]
    assert len(backend.requests) == described.asked == 1


def test_the_prompt_hash_changes_with_what_is_asked() -> None:
    lines = ("Inferior infarct", "Possible inferior infarct", "Anterior infarct")
    assert len({describe(line, TemplateBackend()).prompt_sha256 for line in lines}) == 3


def test_acuity_is_a_hard_filter() -> None:
    retriever = passage_retriever()
    acute = retrieve(normalize("Acute inferior infarct")[0], retriever)
    assert [one.metadata["acuity"] for one in acute] == ["acute"]
    for line in ("Inferior infarct", "Old inferior infarct", "Inferior infarct, possibly acute"):
        (other,) = normalize(line)
        assert {one.metadata["acuity"] for one in retrieve(other, retriever)} == {""}
    assert "ST" in describe("Acute inferior infarct", TemplateBackend()).text
    assert "Q waves" in describe("Old inferior infarct", TemplateBackend()).text


@pytest.mark.parametrize("backend", ["bm25", "dense", "exact", "hnsw", "hybrid"])
def test_every_retriever_finds_the_same_first_passage(backend: str) -> None:
    words, other = passage_retriever(), Retriever(backend)
    other.add_documents(passages())
    for line in ("Inferior infarct", "LBBB", "Septal infarct", "afib", "Mobitz II block"):
        (statement,) = normalize(line)
        assert retrieve(statement, other)[:1] == retrieve(statement, words)[:1] != ()
    assert retrieve(normalize("Quixotic deflections")[0], other) == ()


@pytest.mark.parametrize("backend", ["bm25", "dense", "exact", "hnsw", "hybrid"])
def test_a_passage_that_does_not_speak_of_the_statement_is_none(backend: str) -> None:
    gardening = Document(
        "roses",
        "Water them in the evening and prune the hedge in spring.",
        metadata={"concept": "left_bundle_branch_block", "acuity": ""},
    )
    retriever = Retriever(backend)
    retriever.add_documents([gardening])
    assert retrieve(normalize("LBBB")[0], retriever) == ()


def test_only_the_template_has_paraphrases_and_they_pass() -> None:
    made = describe("Possible inferior infarct", TemplateBackend())
    assert made.paraphrases
    assert made.text not in made.paraphrases
    assert all("ossibl" in one for one in made.paraphrases)
    assert describe("afib", Scripted("Chaotic baseline without P waves.")).paraphrases == ()


def test_progress_counts_every_statement_once() -> None:
    lines = ("afib", "LBBB", "Abnormal ECG", "Sinus rhythm")
    done: list[int] = []
    backend = Scripted("Chaotic baseline without P waves.", None, "Sorry.", "Sorry.")
    describe_all(statements_of(lines), backend, passage_retriever(), progress=done.append)
    assert sum(done) == len(lines)


def test_checks_are_counted_in_a_file(tmp_path: Path) -> None:
    backend = Scripted("P waves before each QRS.", "A wide QRS.", "A chaotic baseline.")
    described = describe_all(statements_of(("afib", "LBBB")), backend, passage_retriever())
    write_checks(described, tmp_path / "checks.csv")
    with (tmp_path / "checks.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["backend"], row["attempt"], row["check"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * len(CHECKS)
    assert rows["scripted", "0", "polarity"] | {} == {
        "backend": "scripted",
        "attempt": "0",
        "check": "polarity",
        "texts": "2",
        "failed": "1",
    }
    assert rows["scripted", "1", "polarity"]["texts"] == "1"
    assert rows["scripted", "1", "polarity"]["failed"] == "0"
    assert [path.name for path in tmp_path.iterdir()] == ["checks.csv"]
    write_checks(Described(), tmp_path / "checks.csv")
    assert (tmp_path / "checks.csv").read_text().splitlines() == [
        "backend,attempt,check,texts,failed"
    ]


def test_a_dictionary_refuses_two_descriptions_of_one_statement() -> None:
    one = Description("sinus rhythm", "sinus_rhythm", "rhythm", "definite")
    with pytest.raises(ValueError, match="'sinus rhythm' is described twice"):
        CaptionDictionary([one, one])
