"""An answer that was cut off at its longest length is none, and none is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_fakes import Reply, completion, endpoint, findings, good_answer, requests_for, retriever

from esi_fast.cqa.answers import AnswerFile
from esi_fast.cqa.chat import ChatBackend, text_of_completion
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.requests import Answer


def cut_off(text: str) -> bytes:
    whole = json.loads(completion(text))
    whole["choices"][0]["finish_reason"] = "length"
    return json.dumps(whole).encode()


def test_it_is_asked_once_a_run_and_again_with_more_tokens(tmp_path: Path) -> None:
    thought = Reply(content=cut_off("<think>A wide QRS could be"))
    with (
        endpoint(lambda call: Reply() if call.body["max_tokens"] > 400 else thought) as server,
        AnswerFile(tmp_path / "answers.jsonl") as answers,
    ):
        chat = ChatBackend(server.url, "fake")
        ((_, answer),) = chat.answers(requests_for(1))
        assert answer == Answer("", "cut off within 400 tokens; raise --max-answer-tokens")
        assert len(server.calls) == 1
        described = describe_all(findings()[:2], chat, retriever(), answers=answers)
        assert [one.backend for one in described.descriptions] == ["template"] * 2
        assert described.errors.total() == 2
        assert len(answers) == 0
        more = ChatBackend(server.url, "fake", max_answer_tokens=4000)
        described = describe_all(findings()[:2], more, retriever(), answers=answers)
        assert [one.backend for one in described.descriptions] == ["openai"] * 2
        assert len(answers) == 2
        asked = len(server.calls)
        longest = ChatBackend(server.url, "fake", max_answer_tokens=8000)
        again = describe_all(findings()[:2], longest, retriever(), answers=answers)
        assert again.descriptions == described.descriptions
        assert len(server.calls) == asked  # whole answers are those of any limit


def test_whole_sentences_that_were_cut_off_are_none_either() -> None:
    with endpoint(lambda call: Reply(content=cut_off(good_answer(call.body)))) as server:
        ((_, answer),) = ChatBackend(server.url, "fake").answers(requests_for(1))
    assert answer.text == ""
    assert text_of_completion(cut_off("A wide QRS.")) == (None, True)
    assert text_of_completion(completion("A wide QRS.")) == ("A wide QRS.", False)
    assert text_of_completion(b'{"choices": [{"message": {"content": "A"}}]}') == ("A", False)


def test_tokens_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="max_answer_tokens is 0; give 1 or more"):
        ChatBackend("http://127.0.0.1/v1", "fake", max_answer_tokens=0)
