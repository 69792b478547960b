"""Descriptions by an endpoint that fails, answers wrongly or late, or whose client is killed."""

from __future__ import annotations

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_fakes import (
    INJECTION,
    FakeEndpoint,
    Listed,
    Reply,
    Script,
    data_of,
    endpoint,
    findings,
    good_answer,
    good_text,
    request_for,
    retriever,
)
from test_tool_caption import write_tree

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.chat import ChatBackend
from esi_fast.cqa.checks import CHECKS
from esi_fast.cqa.dictionary import Description
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.knowledge import passages
from esi_fast.cqa.phrases import phrase
from esi_fast.cqa.requests import Answer, Request
from esi_fast.cqa.statements import Statement
from esi_fast.cqa.template import TemplateBackend
from esi_fast.retriever import Retriever

# What befalls a finding: the endpoint's replies to its first attempt and to all later ones, the
# requests that come to an answer or none, and who writes the description.
GOOD = Reply()
FATES: dict[str, tuple[Reply, Reply]] = {
    "good": (GOOD, GOOD),
    "429": (Reply(status=429, headers={"Retry-After": "0.01"}), GOOD),
    "500": (Reply(status=500), GOOD),
    "hang": (Reply(how="hang"), GOOD),
    "garbage": (Reply(content=b"{not JSON"), GOOD),
    "cut": (Reply(how="cut"), GOOD),
    "always 500": (Reply(status=500), Reply(status=500)),
    "400": (Reply(status=400), Reply(status=400)),
    "injection": (Reply(text=INJECTION), Reply(text=INJECTION)),
}
NEVER_ANSWERED = {"always 500": "HTTP 500", "400": "HTTP 400"}
LINES = [
    "Sinus rhythm", "Sinus bradycardia", "Sinus tachycardia", "Atrial fibrillation",
    "Atrial flutter", "Left bundle branch block", "Right bundle branch block",
    "Left anterior fascicular block", "First degree A-V block", "Left axis deviation",
    "Right axis deviation", "Left ventricular hypertrophy", "Right ventricular hypertrophy",
    "Left atrial enlargement", "Prolonged QT interval", "Low QRS voltages",
    "Possible inferior infarct", "Anterior infarct", "Early repolarization", "Digitalis effect",
]  # fmt: skip
# A record's own: the tree's ids, date and paths (test_tool_caption.py), and patients.csv's.
PRIVATE = re.compile(
    r"1000000|4000000|6000001|2150|JAN|\bfiles\b|p1000|\b93\b|\b2057\b|\bF\b|female|year|29999"
)


def expected(statements: Sequence[Statement]) -> dict[str, Description]:
    made = describe_all(statements, TemplateBackend(), retriever()).descriptions
    return {one.statement: one for one in made}


def written_for(statement: Statement) -> str:
    request = request_for(statement)
    return good_text(request.words, list(request.leads))


@pytest.mark.parametrize("seed", range(2))
def test_every_description_is_its_own_whatever_the_endpoint_does(seed: int) -> None:
    chance = random.Random(seed)
    statements = list(findings()[:90])
    chance.shuffle(statements)
    bad = list(FATES)[1:]
    fates = {
        phrase(one): bad[place % len(bad)] if place < 27 else "good"
        for place, one in enumerate(statements)
    }
    delays = {words: chance.uniform(0, 0.03) for words in fates}

    def script(call: Any) -> Reply:
        before, after = FATES[fates[call.finding]]
        reply = before if call.attempt == 0 else after
        return replace(reply, delay=delays[call.finding])

    with endpoint(script) as server:
        backend = ChatBackend(
            server.url, "fake", concurrency=16, timeout=1.0, retries=2, first_pause=0.001
        )
        described = describe_all(statements, backend, retriever())
    templates, counts = expected(statements), Counter(fates.values())
    assert [one.statement for one in described.descriptions] == list(fates)
    for statement, made in zip(statements, described.descriptions, strict=True):
        fate = fates[made.statement]
        if fate in NEVER_ANSWERED:
            assert made.failures == (f"openai: error: {NEVER_ANSWERED[fate]}",)
        elif fate == "injection":
            assert made.failures
        else:
            assert (made.backend, made.text) == ("openai", written_for(statement))
            assert made.failures == ()
            continue
        template = templates[made.statement]
        assert (made.backend, made.text) == ("template", template.text)
        assert made.sources == template.sources
    asked = len(statements) + counts["injection"]
    by_template = counts["injection"] + counts["always 500"] + counts["400"]
    assert len({call.raw for call in server.calls}) == asked
    assert described.asked == asked
    assert described.remembered == described.abstained == 0
    assert described.errors == {
        error: counts[fate] for fate, error in NEVER_ANSWERED.items() if counts[fate]
    }
    failed = counts["injection"]
    answered = len(statements) - counts["always 500"] - counts["400"]
    for check in CHECKS:
        texts = Counter[tuple[str, int]]()
        for (name, attempt, of, _), count in described.checked.items():
            texts[name, attempt] += count if of == check else 0
        assert texts["openai", 0] == answered
        assert texts["openai", 1] == failed
        assert sum(texts.values()) == answered + failed + by_template


def test_a_refused_answer_is_asked_for_once_more_with_the_reason() -> None:
    for second in (None, INJECTION):
        with endpoint(lambda call, s=second: Reply(text=s if call.number else INJECTION)) as server:  # type: ignore[misc]
            backend = ChatBackend(server.url, "fake", first_pause=0.001)
            described = describe_all(findings()[:1], backend, retriever())
        (made,) = described.descriptions
        first, again = (data_of(call.body) for call in server.calls)
        assert "faults" not in first
        assert again["faults"]
        assert {**again, "faults": None} == {**first, "faults": None}
        assert made.failures[0].removeprefix("openai: ")[:60] in " ".join(again["faults"])
        assert made.backend == ("template" if second else "openai")
        assert "<b>" not in made.text
        # What the refused text says stands in the data only, with no mark of its own.
        prompt = server.calls[1].body["messages"][1]["content"]
        assert "<b>" not in prompt


def test_answers_in_reverse_are_not_swapped() -> None:
    backend = Listed(lambda request: Answer(good_text(request.words, list(request.leads))))
    described = describe_all(findings(), backend, retriever())  # type: ignore[arg-type]
    for statement, made in zip(findings(), described.descriptions, strict=True):
        assert made.text == written_for(statement)


def tool(root: Path, tree: Path, out: Path, server: FakeEndpoint, *more: str) -> list[str]:
    return [
        sys.executable, str(root / "tools" / "caption"), "--records", str(tree), "--out", str(out),
        "--backend", "openai", "--model", "fake", "--base-url", server.url, *more,
    ]  # fmt: skip


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_call_a_distinct_statement_and_nothing_of_a_record(root: Path, tmp_path: Path) -> None:
    spoken = ("{}", "*** {} ***", "{}, 93 year old female", "{} since ECG of 02-JAN-2150", "{}.")
    reports = []
    for number in range(800):
        lines = [LINES[number % 20], LINES[(7 * number + number // 20) % 20]]
        reports.append(
            [spoken[(number // 20 + at) % 5].format(one) for at, one in enumerate(lines)]
        )
    tree = write_tree(tmp_path / "tree", reports)
    with (tree / "patients.csv").open("w", newline="") as file:
        people = csv.writer(file)
        people.writerow(["subject_id", "gender", "anchor_age", "anchor_year"])
        people.writerows([f"1000000{number}", "F", "93", "2150"] for number in range(800))
    with endpoint() as server:
        said = run(tool(root, tree, tmp_path / "cqa.jsonl", server))
    assert "20 requests, 0 answers remembered" in said
    assert "800 records, 1600 statements" in said
    assert len(server.calls) == len({call.finding for call in server.calls}) == 20
    for call in server.calls:
        body = call.body
        mark = re.findall(r"data-([0-9a-f]{16})", call.raw.decode())[0]
        # Built-in passages do not name what is sought; a mark is a hash and may hold any digits.
        found = PRIVATE.search(call.raw.decode().replace(mark, ""))
        assert found is None, found
        assert set(body) == {"model", "messages", "temperature", "seed", "max_tokens"}
        assert call.path == "/v1/chat/completions"
        assert str(tmp_path) not in str(call.headers)
    for name in ("cqa.jsonl", "cqa.answers.jsonl", "cqa.checks.csv"):
        text = (tmp_path / name).read_text()
        assert not re.search(r"1000000|4000000|6000001|2150|files/|\b93\b|female", text)


def test_a_run_that_was_killed_asks_for_nothing_twice(root: Path, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", [[line] for line in LINES])
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    remembered = tmp_path / "killed.answers.jsonl"

    def texts() -> list[str]:
        data = remembered.read_bytes() if remembered.exists() else b""
        return [
            json.loads(line)["text"]
            for line in data.splitlines(keepends=True)
            if line[-1:] == b"\n"
        ]

    slow: Script = lambda call: Reply(delay=0.4)  # noqa: E731
    with endpoint(slow) as server:
        command = tool(root, tree, killed, server, "--concurrency", "4")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            until = time.monotonic() + 60
            while len(texts()) < 8 and time.monotonic() < until and process.poll() is None:
                time.sleep(0.01)
            at = time.monotonic()
            process.send_signal(signal.SIGKILL)
            process.communicate()
        before = texts()
        assert 8 <= len(before) < 20
        assert not killed.exists()
        # An answer that was sent in time is remembered.
        sent = {
            good_answer(call.body) for call in server.calls if call.ended and call.ended < at - 0.3
        }
        assert sent <= set(before)
        calls = len(server.calls)
        server.script = lambda call: Reply()
        said = run([*command, "--overwrite"])
        again = [good_answer(call.body) for call in server.calls[calls:]]
        assert not set(again) & set(before)
        assert len(again) == 20 - len(before)
        assert f"{len(again)} requests, {len(before)} answers remembered" in said
        run(tool(root, tree, whole, server))
        assert killed.read_bytes() == whole.read_bytes()
        calls = len(server.calls)
        assert "0 requests, 20 answers remembered" in run([*command, "--overwrite"])
        assert len(server.calls) == calls
    assert killed.read_bytes() == whole.read_bytes()
    assert (remembered.stat().st_mode & 0o777) == 0o600
    assert len(set(texts())) == 20


def test_answers_to_other_questions_are_not_reused(tmp_path: Path) -> None:
    def good(request: Request) -> Answer:
        return Answer(good_text(request.words, list(request.leads)))

    few, path = findings()[:5], tmp_path / "answers.jsonl"
    other = Retriever("bm25")
    other.add_documents(replace(one, text=f"{one.text} So it is.") for one in passages())
    runs = [
        ("one", retriever(), 5), ("one", retriever(), 0), ("two", retriever(), 5),
        ("one", other, 5), ("two", retriever(), 0), ("one", other, 0),
    ]  # fmt: skip
    for model, found_in, asked in runs:
        backend = Listed(good, model)
        with AnswerFile(path) as answers:
            described = describe_all(few, backend, found_in, answers=answers)  # type: ignore[arg-type]
        assert (len(backend.asked), described.asked, described.remembered) == (
            asked,
            asked,
            5 - asked,
        )
        assert {one.model for one in described.descriptions} == {model}
    assert path.read_bytes().count(b"\n") == 15
