"""The sizes of text encoders, with and without the files that say them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esi_fast.cli import UsageError
from esi_fast.pretrain.sizes import text_sizes


def test_text_sizes_of_a_folder(tmp_path: Path) -> None:
    settings = {"model_type": "bert", "hidden_size": 96, "vocab_size": 77}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = text_sizes(str(tmp_path), 80)
    assert (found.config.hidden_size, found.config.vocab_size) == (96, 77)
    assert found.source == "local folder"


def test_text_sizes_of_biolinkbert_large() -> None:
    config = text_sizes("michiyasunaga/BioLinkBERT-large", 80).config
    assert (config.hidden_size, config.num_hidden_layers) == (1024, 24)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "gpt2"}', "is a gpt2, not a BERT"),
        ("[1]", "is not a model's configuration"),
        ("{", "cannot be read as a model's configuration"),
        (None, "cannot be read as a model's configuration"),
    ],
)
def test_a_folder_that_is_no_bert(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        text_sizes(str(tmp_path), 80)


def test_a_text_model_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"cannot be had .*hf download nobody/nothing") as caught:
        text_sizes("nobody/nothing", 80)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="neither a folder nor a name"):
        text_sizes("no such/folder/here", 80)


def test_a_fresh_bert_has_as_many_positions_as_captions_have_tokens() -> None:
    found = text_sizes("bert:128x2x600", 80)
    config = found.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (128, 2, 600)
    assert (config.num_attention_heads, config.max_position_embeddings) == (2, 80)
    assert found.source == "a fresh one"
