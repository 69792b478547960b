"""The transformers backend, on a tiny GPT-2 of random weights with a tokenizer made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chat_fakes import findings, requests_for, retriever

from esi_fast.cqa import in_process
from esi_fast.cqa.generate import describe_all
from esi_fast.cqa.in_process import TransformersBackend
from esi_fast.cqa.requests import Answer
from esi_fast.cqa.template import TemplateBackend


def make_model(folder: Path, positions: int) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {one: place for place, one in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=positions, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("gpt2"), 8192)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "_MAX_TOKENS", 12)


def test_the_batch_size_changes_no_text(model: str) -> None:
    requests = requests_for(7)
    found = [
        dict(TransformersBackend(model, batch_size=size, device="cpu").answers(requests))
        for size in (1, 3, 8)
    ]
    assert sorted(found[0]) == list(range(7))
    assert found[0] == found[1] == found[2]
    assert len({answer.text for answer in found[0].values()}) > 1


def test_a_prompt_that_is_too_long_has_no_answer(tmp_path: Path) -> None:
    requests = requests_for(5)
    whole = TransformersBackend(make_model(tmp_path / "a", 8192), device="cpu")
    lengths = sorted(len(whole._prompt(request)) for request in requests)
    backend = TransformersBackend(make_model(tmp_path / "b", lengths[2] + 12), device="cpu")
    found = dict(backend.answers(requests))
    assert sorted(found) == list(range(5))
    for index, request in enumerate(requests):
        is_long = len(whole._prompt(request)) > lengths[2]
        assert ("is too long for a model of" in found[index].error) == is_long
        assert not (is_long and found[index].text)
    assert list(backend.answers([])) == []


def test_nonsense_is_refused_and_the_template_takes_over(model: str) -> None:
    backend = TransformersBackend(model, batch_size=2, device="cpu")
    described = describe_all(findings()[:3], backend, retriever())
    template = describe_all(findings()[:3], TemplateBackend(), retriever())
    assert [one.text for one in described.descriptions] == [
        one.text for one in template.descriptions
    ]
    assert all(one.backend == "template" for one in described.descriptions)
    assert all("transformers" in one.failures[0] for one in described.descriptions)


def test_a_chat_template_without_a_system_role_gets_one_message(model: str) -> None:
    backend = TransformersBackend(model, device="cpu")
    (request,) = requests_for(1)
    backend._tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for one in messages %}<end>{{ one.role }}: {{ one.content }}{% endfor %}"
    )
    said = backend._tokenizer.decode(backend._prompt(request))
    assert said.startswith("<end>user: You write")
    assert request.messages()[1]["content"] in said


def test_no_answer_is_an_error_and_a_thought_is_none(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = TransformersBackend(model, device="cpu")
    says = ["", "<think>x</think>", "<think>x</think> A wide QRS."]
    monkeypatch.setattr(backend._tokenizer, "batch_decode", lambda *args, **options: says)
    found = dict(backend.answers(requests_for(3)))
    assert sorted(found.values(), key=lambda one: one.text) == [
        *[Answer("", "empty answer")] * 2,
        Answer("A wide QRS."),
    ]


def test_a_model_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", str(tmp_path / "empty"), "no/such"):
        with pytest.raises((OSError, ValueError), match=r"no model|no causal language") as caught:
            TransformersBackend(name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="batch_size is 0"):
        TransformersBackend("nowhere", batch_size=0)
