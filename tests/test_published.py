"""Weights in the published layout, evaluated as the project's own models are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from original_restatement import TINY, random_state
from safetensors.torch import save_file
from shard_tree import build

from esi_fast.evaluation.embedding_cache import weights_digest
from esi_fast.evaluation.published import PublishedModel, load_model, require_own
from esi_fast.evaluation.request import Request
from esi_fast.evaluation.run import evaluate
from esi_fast.models.original import load_original
from esi_fast.models.text import train_wordpiece
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.simulate_tree import write_tree

TEXTS = ["sinus rhythm", "atrial fibrillation", "left bundle branch block"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published layout, and a tokenizer beside them."""
    base = tmp_path_factory.mktemp("published")
    tokenizer = train_wordpiece(TEXTS, 200)
    tokenizer.save_pretrained(base / "tokenizer")
    state = random_state(TINY._replace(vocab=len(tokenizer)), seed=2)
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    return base


@pytest.fixture(scope="module")
def model(folder: Path) -> PublishedModel:
    loaded = load_model(folder / "model.safetensors", str(folder / "tokenizer"))
    assert isinstance(loaded, PublishedModel)
    return loaded


def test_embeddings_are_those_of_the_published_loader_and_arithmetic(
    folder: Path, model: PublishedModel
) -> None:
    original = load_original(folder / "model.safetensors", tokenizer=folder / "tokenizer")
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(3, 12, 5000)).astype(np.float32)
    signals[1, 4, 100:200] = np.nan
    expected = original.encode_ecg(original.preprocess(signals, fs=500))
    assert (model.config.fs, model.config.num_samples) == (500, 5000)
    torch.testing.assert_close(model.encode_ecg(torch.from_numpy(signals)), expected)
    assert torch.equal(model.encode_text(TEXTS), original.encode_text(TEXTS))


def test_random_weights_of_the_same_architecture(model: PublishedModel) -> None:
    before = torch.get_rng_state()
    one, same, other = (model.untrained_copy(seed).original for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    names = [name for name, _ in model.original.named_parameters()]
    assert [name for name, _ in one.named_parameters()] == names
    weight = "img_to_latents.to_latents.weight"
    drawn = [dict(each.named_parameters())[weight] for each in (one, same, other, model.original)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


def test_what_it_cannot_do_is_refused(folder: Path, model: PublishedModel) -> None:
    with pytest.raises(ValueError, match="caption is not for weights in the published layout"):
        require_own(model, "caption")
    with pytest.raises(ValueError, match="need a tokenizer beside them"):
        load_model(folder, "")


def test_a_folder_and_the_file_in_it_are_the_same_weights(folder: Path) -> None:
    assert weights_digest(folder / "model.safetensors") == weights_digest(folder)


def test_an_evaluation_beside_random_weights(folder: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "ecgs", 60, seed=4)
    build(
        open_catalogue(tmp_path / "ecgs"), tmp_path / "shards", fs=100, val_fraction=0.2,
        test_fraction=0.4, measure=False, workers=1,
    )  # fmt: skip
    request = Request(
        model=folder / "model.safetensors",
        tokenizer=str(folder / "tokenizer"),
        dataset="shards",
        root=tmp_path / "shards",
        tasks=("zeroshot", "retrieval"),
        out=tmp_path / "out",
        num_random=1,
    )
    report = evaluate(request, command="test")
    assert set(report["tasks"]["zeroshot"]["contenders"]) == {"model", "random-0"}
    told = json.loads((tmp_path / "out/report.json").read_text())["model"]
    assert told["config"]["embed_dim"] == TINY.dim
    assert report["tasks"]["retrieval"]["unreadable"] == {}
