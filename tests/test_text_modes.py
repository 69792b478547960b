"""BERT trained, frozen with its states remembered, or with low-rank adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pretrain_runs import environment, losses, make_recipe, make_shards, pretrain
from torch import Tensor

from esi_fast.models.esi import ESI
from esi_fast.models.text import TextEncoder, small_bert_config, train_wordpiece

CONFIG = {"hidden": 32, "layers": 2, "heads": 2, "max_tokens": 16, "dropout": 0.1}
TEXTS = ["sinus rhythm", "atrial fibrillation with a rapid response", "sinus rhythm", "lbbb"]


def encoder(seed: int = 0) -> TextEncoder:
    torch.manual_seed(seed)
    return TextEncoder(small_bert_config(300, **CONFIG))


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def test_a_frozen_encoder_reads_each_text_once_and_remembers_it_to_the_last_bit() -> None:
    text = encoder()
    rows = [[2, 9, 3], [2, 5, 6, 7, 8, 3], [2, 9, 3], [2, 11, 3]]
    expected = text.eval()(*padded(rows))
    text.freeze()
    text.train()
    lengths: list[int] = []
    text.bert.register_forward_hook(
        lambda module, arguments, output: lengths.append(output.last_hidden_state.shape[1])
    )
    first = text(*padded(rows))
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    assert lengths == [3, 3, 6]  # three texts, without padding
    again = text(*padded(rows[::-1]))
    assert lengths == [3, 3, 6]
    assert torch.equal(again.flip(0), first)
    cold = encoder()
    cold.freeze()
    assert torch.equal(cold(*padded(rows[1:2])), first[1:2])
    assert not first.requires_grad


def test_a_remembered_state_keeps_nothing_else_alive() -> None:
    text = encoder()
    text.freeze()
    text(*padded([[2, 5, 6, 7, 8, 3], [2, 9, 3]]))
    assert [state.untyped_storage().nbytes() for state in text._states.values()] == [4 * 32] * 2


def test_texts_read_together_as_a_gpu_does_have_the_states_of_each_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [[2, *range(5, 5 + length), 3] for length in (1, 2, 9, 3, 14, 2, 7, 4)]
    alone, together = encoder(), encoder()
    alone.freeze()
    together.freeze()
    expected = alone(*padded(rows))
    shapes: list[tuple[int, ...]] = []
    together.bert.register_forward_hook(
        lambda module, arguments, output: shapes.append(output.last_hidden_state.shape[:2])
    )
    monkeypatch.setattr("esi_fast.models.text._ALONE", (3, 6))
    found = together(*padded(rows))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # By length, with one to spare: 3 4 5, 6 9 11, and 16, as long as the encoder reads.
    assert sorted(shapes) == [(3, 6), (3, 12), (3, 16)]
    assert [state.untyped_storage().nbytes() for state in together._states.values()] == [128] * 7
    assert torch.equal(together(*padded(rows[::-1])), found.flip(0))


def test_the_first_texts_are_forgotten_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("esi_fast.models.text.MOST_REMEMBERED", 2)
    text = encoder()
    text.freeze()
    rows = [[2, 9, 3], [2, 5, 6, 3], [2, 11, 3]]
    first = text(*padded(rows))
    assert len(text._states) == 2
    assert torch.equal(text(*padded(rows)), first)


def test_adapters_alone_are_trained_and_merge_into_a_plain_bert() -> None:
    text = encoder().eval()
    batch = padded([[2, 9, 3], [2, 5, 6, 7, 8, 3]])
    names = set(text.state_dict())
    before = text(*batch)
    text.add_adapters(4)
    torch.testing.assert_close(text(*batch), before)  # they begin as nothing
    trained = {name for name, value in text.named_parameters() if value.requires_grad}
    assert trained
    assert all(".lora_" in name and (".query." in name or ".value." in name) for name in trained)
    with torch.no_grad():
        for name, value in text.named_parameters():
            if name in trained:
                value.normal_(std=0.2)
    adapted = text(*batch)
    assert not torch.allclose(adapted, before)
    text.merge_adapters()
    assert set(text.state_dict()) == names
    torch.testing.assert_close(text(*batch), adapted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("text_modes"))


@pytest.fixture(scope="module")
def bert(shards: Path) -> Path:
    """A small pretrained BERT as Hugging Face saves one."""
    from transformers import BertModel

    folder = shards.parent / "bert"
    tokenizer = train_wordpiece(TEXTS, 200)
    torch.manual_seed(1)
    BertModel(
        small_bert_config(len(tokenizer), **(CONFIG | {"max_tokens": 32})),
        add_pooling_layer=False,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.dist
@pytest.mark.parametrize("mode", ["frozen", "lora:4"])
def test_a_pretrained_bert_is_kept_or_adapted_and_exported_plain(
    mode: str, shards: Path, bert: Path, root: Path
) -> None:
    import subprocess
    import sys

    from transformers import BertModel

    run = shards.parent / mode.replace(":", "_")
    arguments = ("--recipe", make_recipe(shards), "--data.shards", shards, "--out", run)
    arguments += ("--model.text-model", bert, "--model.text-mode", mode)
    done = pretrain(root, *arguments, "--train.epochs", "0.5", launcher="python")
    assert done.returncode == 0, done.stderr[-3000:]
    if mode == "frozen":
        # A resumed run remembers nothing of the texts, and takes the same steps.
        whole, run = run, run.with_name("frozen_resumed")
        arguments = (*arguments[:5], run, *arguments[6:])
        for more in (("--train.epochs", "0.3"), ("--train.epochs", "0.5", "--resume", "latest")):
            done = pretrain(root, *arguments, *more, launcher="python")
            assert done.returncode == 0, done.stderr[-3000:]
        assert losses(run) == losses(whole)

    out = run.with_name(f"{run.name}_model")
    tool = [sys.executable, str(root / "tools" / "export"), str(run), "--out", str(out)]
    done = subprocess.run(tool, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    model = ESI.from_pretrained(out)
    assert model.encode_text(["sinus rhythm"]).shape == (1, 32)
    before = BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
    changed = {
        name.rpartition(".self.")[2] or name
        for name, value in model.text.bert.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == (set() if mode == "frozen" else {"query.weight", "value.weight"})
    assert json.loads((out / "config.json").read_text())["embed_dim"] == 32
