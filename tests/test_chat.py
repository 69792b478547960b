"""The chat backend against a server on loopback that misbehaves in every way."""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
from chat_fakes import (
    FakeEndpoint,
    Reply,
    Script,
    completion,
    endpoint,
    findings,
    good_answer,
    requests_for,
    retriever,
)

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.chat import (
    KEY_VARIABLE,
    ChatBackend,
    EndpointError,
    _retry_after,
    check_url,
    text_of_completion,
)
from esi_fast.cqa.dictionary import CaptionDictionary
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.requests import Answer, Request

SECRET = "sk-this-must-stay-here"


@pytest.fixture(autouse=True)
def no_threads_stay(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    yield
    assert not [one for one in threading.enumerate() if one.name == "chat"]


def backend(server: FakeEndpoint, **options: object) -> ChatBackend:
    options = {"first_pause": 0.001, "timeout": 5.0, **options}
    return ChatBackend(server.url, "fake", **options)  # type: ignore[arg-type]


def ask(script: Script, count: int = 1, **options: object) -> tuple[list[Answer], FakeEndpoint]:
    """The answers in the order of the requests, and the endpoint for what it has seen."""
    requests = requests_for(count)
    with endpoint(script) as server:
        found = dict(backend(server, **options).answers(requests))
    assert sorted(found) == list(range(count))
    return [found[index] for index in range(count)], server


def first(reply: Reply, times: int = 1) -> Script:
    """A script that behaves after a number of attempts at each request."""
    return lambda call: reply if call.attempt < times else Reply()


def own(request: Request) -> str:
    return good_answer({"messages": request.messages()})


def test_each_request_gets_its_own_answer_whatever_comes_first() -> None:
    chance = random.Random(1)
    requests, came = requests_for(80), []
    with endpoint(lambda call: Reply(delay=chance.uniform(0, 0.05))) as server:
        for index, answer in backend(server, concurrency=16).answers(requests):
            came.append(index)
            assert answer == Answer(own(requests[index]))
    assert sorted(came) == list(range(80))
    assert came != sorted(came)
    assert len(server.calls) == 80


def test_as_many_at_a_time_as_asked_and_no_more() -> None:
    begun = time.monotonic()
    _, server = ask(lambda call: Reply(delay=0.1), 24, concurrency=6)
    assert server.peak == 6
    assert time.monotonic() - begun < 24 * 0.1 / 2
    _, server = ask(lambda call: Reply(delay=0.01), 5, concurrency=1)
    assert server.peak == 1
    assert [call.finding for call in server.calls] == [one.words for one in requests_for(5)]


@pytest.mark.parametrize(
    "reply",
    [
        *(Reply(status=status) for status in (408, 429, 500, 502, 503, 504, 529)),
        Reply(how="cut"),
        Reply(how="half"),
        Reply(content=b"{not JSON"),
        Reply(content=b"[" * 100_000),
        Reply(content=b"\xff\xfe\x00"),
        Reply(content=b'{"choices": []}'),
        Reply(content=b'{"choices": {"0": "no"}}'),
        Reply(content=b'["a list"]'),
        Reply(content=completion(None)),
        Reply(content=completion(["parts"])),
        Reply(content=completion(" \n")),
        Reply(content=completion("<think>and nothing else</think>")),
        Reply(content=b"not gzip", headers={"Content-Encoding": "gzip"}),
        Reply(text="x" * 2_000_000),
    ],
)
def test_a_passing_failure_is_tried_again(reply: Reply) -> None:
    (answer,), server = ask(first(reply, 2), retries=2)
    assert answer == Answer(own(requests_for(1)[0]))
    assert len(server.calls) == 3
    (answer,), server = ask(lambda call: reply, retries=1)
    assert answer.text == ""
    assert answer.error
    assert len(server.calls) == 2


@pytest.mark.parametrize("status", [400, 405, 413, 422, 501, 204])
def test_a_lasting_failure_is_not_tried_again(status: int) -> None:
    content = b"" if status == 204 else None
    answers, server = ask(lambda call: Reply(status=status, content=content), 3)
    assert answers == [Answer("", f"HTTP {status}")] * 3
    assert len(server.calls) == 3


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (401, KEY_VARIABLE),
        (403, KEY_VARIABLE),
        (404, "--base-url ends in /v1"),
        (301, "redirects are not followed"),
        (307, "redirects are not followed"),
    ],
)
def test_what_can_never_work_ends_the_run(status: int, fix: str) -> None:
    away = {"Location": "http://192.0.2.1/v1/chat/completions"}
    with (
        endpoint(lambda call: Reply(status=status, headers=away)) as server,
        pytest.raises(EndpointError) as caught,
    ):
        list(backend(server, concurrency=2).answers(requests_for(30)))
    message = str(caught.value)
    assert "\n" not in message
    assert fix in message
    assert server.url in message
    assert len(server.calls) <= 2


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_endpoint_that_is_down_ends_the_run_at_once() -> None:
    chat = ChatBackend(f"http://127.0.0.1:{closed_port()}/v1", "fake")
    begun = time.monotonic()
    with pytest.raises(EndpointError, match="is the server running there"):
        list(chat.answers(requests_for(4)))
    assert time.monotonic() - begun < 2


def test_an_endpoint_that_goes_away_ends_the_run_with_what_it_has_answered() -> None:
    requests = requests_for(4)
    with endpoint(lambda call: Reply(headers={"Connection": "close"})) as server:
        answers = backend(server, concurrency=1, retries=2).answers(requests)
        assert next(answers) == (0, Answer(own(requests[0])))
    with pytest.raises(EndpointError, match="is the server running there"):
        list(answers)


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_what_takes_too_long_is_cut(how: str) -> None:
    begun = time.monotonic()
    (answer,), server = ask(first(Reply(how=how)), timeout=0.3)  # type: ignore[arg-type]
    assert answer.text == own(requests_for(1)[0])
    assert len(server.calls) == 2
    (answer,), _ = ask(lambda call: Reply(how=how), timeout=0.3, retries=0)  # type: ignore[arg-type]
    assert answer == Answer("", "timeout after 0.3 s")
    assert time.monotonic() - begun < 3


def pauses(script: Script, **options: object) -> list[float]:
    """Seconds between the attempts at one request."""
    _, server = ask(script, **options)
    begun = [call.begun for call in server.calls]
    return [later - earlier for earlier, later in itertools.pairwise(begun)]


def test_pauses_grow_and_keep_to_what_the_endpoint_asks() -> None:
    found = pauses(first(Reply(status=503), 3), first_pause=0.1)
    for pause, longest in zip(found, (0.1, 0.2, 0.4), strict=True):
        assert longest / 2 <= pause < longest + 0.1
    (found,) = pauses(first(Reply(status=429, headers={"Retry-After": "0.4"})))
    assert 0.4 <= found < 0.8
    # A date has whole seconds.
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    (found,) = pauses(first(Reply(status=503, headers={"Retry-After": soon})))
    assert 0.9 <= found < 2.5
    past = email.utils.formatdate(time.time() - 2000, usegmt=True)
    (found,) = pauses(first(Reply(status=503, headers={"Retry-After": past})))
    assert found < 0.5


def test_no_wish_of_the_endpoint_makes_it_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esi_fast.cqa.chat._LONGEST_WAIT", 0.2)
    (found,) = pauses(first(Reply(status=429, headers={"Retry-After": "999999"})), first_pause=9)
    assert found < 1


@hypothesis.given(
    st.text(max_size=40) | st.from_regex(r"\w{3}, \d\d \w{3} \d{1,6} \d\d:\d\d:\d\d.*")
)
@hypothesis.example("Fri, 31 Dec 9999 23:59:59 -2359")
@hypothesis.example("Mon, 01 Jan 0001 00:00:00 -0000")
@hypothesis.example("nan")
def test_any_retry_after_is_a_wait(header: str) -> None:
    assert 0 <= _retry_after(header) < 1e12


def test_a_thought_is_no_part_of_the_answer() -> None:
    for before in ("<think>Hm.\n</think>\n\n", "so it is\n</think> ", "<think>a <b> </think>"):
        (answer,), _ = ask(lambda call, t=before: Reply(text=t + good_answer(call.body)))  # type: ignore[misc]
        assert answer == Answer(own(requests_for(1)[0]))


def test_half_a_character_is_not_passed_on() -> None:
    content = b'{"choices": [{"message": {"content": "a \\ud800 b"}}]}'
    assert text_of_completion(content) == ("a ? b", False)


def test_closing_early_ends_what_is_under_way() -> None:
    with endpoint(lambda call: Reply(how="hang") if call.number else Reply()) as server:
        answers = backend(server, concurrency=8, timeout=60).answers(requests_for(40))
        next(answers)
        begun = time.monotonic()
        answers.close()  # type: ignore[attr-defined]
        assert time.monotonic() - begun < 2
        assert not [one for one in threading.enumerate() if one.name == "chat"]


def test_an_error_of_the_caller_ends_what_is_under_way() -> None:
    def fail(done: int) -> None:
        raise KeyboardInterrupt

    with endpoint(lambda call: Reply(how="hang") if call.number else Reply()) as server:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            describe_all(findings()[:9], backend(server, timeout=60), retriever(), progress=fail)
        assert time.monotonic() - begun < 3


def test_it_runs_inside_an_event_loop() -> None:
    async def notebook() -> list[tuple[int, Answer]]:
        with endpoint() as server:
            return list(backend(server).answers(requests_for(3)))

    found = dict(asyncio.run(notebook()))
    assert [found[index].text for index in range(3)] == [own(one) for one in requests_for(3)]


def test_nothing_to_ask_asks_nothing() -> None:
    with endpoint() as server:
        assert list(backend(server).answers([])) == []
    assert server.calls == []


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    monkeypatch.setenv(KEY_VARIABLE, f"{SECRET}\n")
    replies = [Reply(status=500), Reply(status=400), Reply(text="no"), Reply(how="cut")]
    script: Script = lambda call: replies[call.number] if call.number < 4 else Reply()  # noqa: E731
    with endpoint(script) as server, AnswerFile(tmp_path / "answers.jsonl") as answers:
        chat = backend(server)
        described = describe_all(findings()[:6], chat, retriever(), answers=answers)
        server.script = lambda call: Reply(status=401)
        with pytest.raises(EndpointError) as caught:
            list(chat.answers(requests_for(1)))
    CaptionDictionary(described.descriptions).save(tmp_path / "cqa.jsonl")
    assert {call.headers["Authorization"] for call in server.calls} == {f"Bearer {SECRET}"}
    assert all(SECRET.encode() not in call.raw for call in server.calls)
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert len(written) == 2
    assert caplog.records
    shown = [caplog.text, repr(chat), repr(described), repr(caught.value), *written]
    assert not [text for text in shown if SECRET in text]


def test_without_a_key_none_is_sent() -> None:
    _, server = ask(lambda call: Reply())
    assert "Authorization" not in server.calls[0].headers
    assert server.calls[0].path == "/v1/chat/completions"


def test_a_key_that_is_none_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in (f"{SECRET}\r\nX-Other: 1", f"{SECRET}\u2026"):
        monkeypatch.setenv(KEY_VARIABLE, key)
        with pytest.raises(ValueError, match=KEY_VARIABLE) as caught:
            ChatBackend("http://127.0.0.1:1/v1", "fake")
        assert SECRET not in repr(caught.value)


def test_loopback_is_reached_past_every_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"http://127.0.0.1:{closed_port()}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, dead)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    (answer,), _ = ask(lambda call: Reply())
    assert answer.error == ""


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST", "127.0.0.1:8000", "[::1]:8000"],
)
def test_an_address_of_this_machine(host: str) -> None:
    for scheme in ("http", "https", "HTTP"):
        assert check_url(f"{scheme}://{host}/v1", allow_remote=False) is True


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "127.0.0.1.evil.com", "localhost.evil.com", "2130706433", "0x7f000001", "127.1",
        "0177.0.0.1", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "10.0.0.1", "128.0.0.1",
        "localhost.", "[::1%25eth0]", "xn--lclhst-bua.com", "api.openai.com",
    ],
)  # fmt: skip
def test_an_address_elsewhere_needs_leave(host: str) -> None:
    with pytest.raises(ValueError, match="--allow-remote"):
        check_url(f"http://{host}/v1", allow_remote=False)
    assert check_url(f"http://{host}/v1", allow_remote=True) is False


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:8000", "//127.0.0.1/v1", "file:///etc/passwd", "ftp://127.0.0.1/v1",
        "http:///v1", "http://127.0.0.1:99999/v1", "http://127.0.0.1:x/v1", "http://[::1/v1",
        "http://user@127.0.0.1/v1", "http://me:PASSWORD@127.0.0.1/v1", "http://127.0.0.1@evil.com",
        "http://me:PASSWORD@127.0.0.1:x/v1", "ftp://me:PASSWORD@127.0.0.1", "me:PASSWORD@evil.com",
        "http://127.0.0.1/v1?key=PASSWORD", "http://127.0.0.1#@evil.com/v1", "http://127.0.0.1 /v1",
        "http://127.0.0.1\n.evil.com/v1", "http://127.0.0.1\\@evil.com", "http://\uff11\uff12\uff17.0.0.1",
        "http://evil.com\\127.0.0.1/", "http://127.0.0.1\t/v1", "http://localho\u017ft/v1",
    ],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused_with_or_without_leave(url: str) -> None:
    for allow_remote in (False, True):
        with pytest.raises(ValueError, match="base URL") as caught:
            check_url(url, allow_remote=allow_remote)
        assert "PASSWORD" not in str(caught.value)


def test_a_key_leaves_this_machine_over_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = "http://api.example.com/v1"
    ChatBackend(remote, "fake", allow_remote=True)
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    with pytest.raises(ValueError, match="https only") as caught:
        ChatBackend(remote, "fake", allow_remote=True)
    assert SECRET not in str(caught.value)
    ChatBackend("https://api.example.com/v1", "fake", allow_remote=True)
    ChatBackend("http://127.0.0.1:8000/v1", "fake")


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"retries": -1}, {"timeout": 0.0}, {"timeout": float("nan")}],
)
def test_bad_numbers_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        ChatBackend("http://127.0.0.1:1/v1", "fake", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model is empty"):
        ChatBackend("http://127.0.0.1:1/v1", " ")


def test_a_body_holds_model_prompt_and_parameters() -> None:
    _, server = ask(lambda call: Reply())
    body = server.calls[0].body
    assert set(body) == {"model", "messages", "temperature", "seed", "max_tokens"}
    assert (body["model"], body["temperature"]) == ("fake", 0)
    assert body["messages"] == requests_for(1)[0].messages()
