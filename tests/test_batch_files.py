"""Batch files: what is exported is what would be asked, and each result finds its own request."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from chat_fakes import (
    INJECTION,
    Reply,
    completion,
    data_of,
    endpoint,
    findings,
    good_answer,
    requests_for,
    retriever,
)

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.batch_files import NOT_ASKED, BatchBackend, import_results
from esi_fast.cqa.chat import ChatBackend
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.phrases import phrase

URL = "http://127.0.0.1:1/v1"


def collect(count: int, answers: AnswerFile | None = None) -> BatchBackend:
    backend = BatchBackend(ChatBackend(URL, "fake"))
    described = describe_all(findings()[:count], backend, retriever(), answers=answers)
    assert all(one.backend == "template" for one in described.descriptions)
    assert set(described.errors) <= {NOT_ASKED}
    return backend


def exported(backend: BatchBackend, path: Path) -> list[dict[str, Any]]:
    backend.export(path)
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(row: dict[str, Any], **other: object) -> str:
    body = json.loads(completion(good_answer(row["body"])))
    made = {"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}}
    return json.dumps({**made, "error": None, **other})


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_requests_are_exported_as_they_would_be_asked(tmp_path: Path) -> None:
    backend = collect(12)
    rows = exported(backend, tmp_path / "requests.jsonl")
    with endpoint() as server:
        chat = ChatBackend(server.url, "fake")
        list(chat.answers(requests_for(12)))
    assert sorted(json.dumps(row["body"]) for row in rows) == sorted(
        json.dumps(call.body) for call in server.calls
    )
    assert [row["custom_id"] for row in rows] == [one.key(chat) for one in requests_for(12)]
    for row in rows:
        assert set(row) == {"custom_id", "method", "url", "body"}
        assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")


def test_a_request_that_was_collected_twice_is_exported_once(tmp_path: Path) -> None:
    backend = BatchBackend(ChatBackend(URL, "fake"))
    for _ in range(2):
        list(backend.answers(requests_for(3)))
    assert len(exported(backend, tmp_path / "requests.jsonl")) == 3


def test_each_result_finds_its_request_and_a_second_export_holds_the_rest(tmp_path: Path) -> None:
    rows = exported(collect(12), tmp_path / "requests.jsonl")
    empty, cut_off = json.loads(completion(" ")), json.loads(completion("A wide"))
    cut_off["choices"][0]["finish_reason"] = "length"
    lines = [
        *(result(row) for row in rows[:8]),
        result(rows[0]),  # twice
        result(rows[8], error={"message": "no"}),
        result(rows[9], response={"status_code": 500, "body": {}}),
        result(rows[10], response=None),
        result(rows[11], response={"status_code": 200, "body": empty}),
        result(rows[11], response={"status_code": 200, "body": cut_off}),
        result(rows[0], custom_id="unknown"),
        "",
    ]
    random.Random(3).shuffle(lines)
    results = write(tmp_path / "results.jsonl", *lines)
    with AnswerFile(tmp_path / "answers.jsonl") as answers:
        became = import_results(results, answers, {row["custom_id"] for row in rows})
        assert became == {
            "imported": 8,
            "already known": 1,
            "of requests that this run does not make": 1,
            "failed with status 500": 1,
            "failed with an error": 1,
            "without a text": 2,
            "cut off for their length; export anew with more --max-answer-tokens": 1,
        }
        assert len(answers) == 8
        for row in rows[:8]:
            assert answers.get(row["custom_id"]) == good_answer(row["body"])
        backend = BatchBackend(ChatBackend(URL, "fake"))
        described = describe_all(findings()[:12], backend, retriever(), answers=answers)
        assert [one.backend for one in described.descriptions] == ["openai"] * 8 + ["template"] * 4
        assert exported(backend, tmp_path / "rest.jsonl") == rows[8:]
        # The same results once more bring nothing, as after a run that was killed in between.
        wanted = {request.key(backend) for request in backend.collected}
        again = import_results(results, answers, wanted)
        assert (again["imported"], again["already known"]) == (0, 9)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], r"0 lines$"),
        (["", " "], r"0 lines$"),
        ([{"response": {"status_code": 429}}] * 3, r"3 lines: 3 failed with status 429$"),
        ([{"response": {"status_code": "x" * 99}}], r"1 lines: 1 failed without a status$"),
        ([{"error": "no"}, {"custom_id": "x"}], "2 lines: 1 failed with an error, 1 of requests"),
        ([{"response": {"status_code": 200, "body": {}}}], "1 lines: 1 without a text$"),
    ],
)
def test_a_file_without_a_usable_answer_is_refused(
    tmp_path: Path, lines: list[Any], reason: str
) -> None:
    row, *_ = exported(collect(1), tmp_path / "requests.jsonl")
    rows = [one if isinstance(one, str) else result(row, **one) for one in lines]
    results = write(tmp_path / "results.jsonl", *rows)
    with AnswerFile(tmp_path / "answers.jsonl") as answers:
        with pytest.raises(ValueError, match=rf"results\.jsonl holds no usable answer: {reason}"):
            import_results(results, answers, {row["custom_id"]})
        assert len(answers) == 0


@pytest.mark.parametrize(
    "line",
    ["{not JSON", "[]", "7", "null", "{}", '{"custom_id": 1}', '{"custom_id": "a", "response": 7}',
     "[" * 100_000],
)  # fmt: skip
def test_a_line_that_is_no_result_is_named(tmp_path: Path, line: str) -> None:
    rows = exported(collect(2), tmp_path / "requests.jsonl")
    results = write(tmp_path / "results.jsonl", result(rows[0]), line, result(rows[1]))
    with AnswerFile(tmp_path / "answers.jsonl") as answers:
        with pytest.raises(ValueError, match=r"results\.jsonl, line 2: no result of a batch"):
            import_results(results, answers, {row["custom_id"] for row in rows})
        assert len(answers) == 1


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"\xff\xfe\n")
    with (
        AnswerFile(tmp_path / "answers.jsonl") as answers,
        pytest.raises(ValueError, match="line 1"),
    ):
        import_results(tmp_path / "results.jsonl", answers, set())


def test_an_export_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "requests.jsonl", "mine")
    backend = collect(2)
    backend.collected.append(None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        backend.export(path)
    assert path.read_text() == "mine\n"
    assert [one.name for one in tmp_path.iterdir()] == ["requests.jsonl"]


def test_an_import_comes_to_what_a_live_endpoint_would_have_said(tmp_path: Path) -> None:
    statements, refused = findings()[:10], {phrase(findings()[2]), phrase(findings()[7])}

    def said(body: dict[str, Any]) -> str:
        data = data_of(body)
        if data["finding"] in refused and "faults" not in data:
            return INJECTION
        return f"<think>Hm.</think>\n{good_answer(body)}"

    def answered(row: dict[str, Any]) -> str:
        """A row as vllm run-batch writes it."""
        body = json.loads(completion(said(row["body"])))
        response = {"status_code": 200, "request_id": "vllm-batch-0", "body": body}
        made = {"id": "vllm-0", "custom_id": row["custom_id"], "response": response, "error": None}
        return json.dumps(made)

    with endpoint(lambda call: Reply(text=said(call.body))) as server:
        live = describe_all(statements, ChatBackend(server.url, "fake"), retriever())
    with AnswerFile(tmp_path / "answers.jsonl") as answers:
        for count in (10, 2, 0):  # all; then what failed its check, with the reason; then nothing
            backend = BatchBackend(ChatBackend(URL, "fake"))
            described = describe_all(statements, backend, retriever(), answers=answers)
            rows = exported(backend, tmp_path / "requests.jsonl")
            assert len(rows) == count
            if count == 2:
                assert {data_of(row["body"])["finding"] for row in rows} == refused
                assert all(data_of(row["body"])["faults"] for row in rows)
            results = write(tmp_path / "results.jsonl", *map(answered, rows[::-1]))
            if rows:
                import_results(results, answers, {row["custom_id"] for row in rows})
    assert described.descriptions == live.descriptions
    assert {one.backend for one in live.descriptions} == {"openai"}


def test_an_export_goes_into_a_regular_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    backend = collect(1)
    ends = os.pipe()
    for name in (tmp_path, tmp_path / "fifo", "/dev/full", "/dev/null", f"/dev/fd/{ends[1]}"):
        with pytest.raises(OSError, match=f"{name} is no regular file"):
            backend.export(Path(name))
    for end in ends:
        os.close(end)
    with pytest.raises(OSError, match="no/such must be in a folder that exists"):
        backend.export(tmp_path / "no" / "such")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["fifo"]


def test_a_disk_that_is_full_is_told_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "requests.jsonl", "mine")
    backend = collect(3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=f"too large: '{path}'$"):
            backend.export(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == "mine\n"
    assert [one.name for one in tmp_path.iterdir()] == ["requests.jsonl"]


def test_an_export_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        collect(5).export(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
