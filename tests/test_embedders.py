"""Embedders: hashed words, and any encoder of Hugging Face against a plain computation."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from esi_fast.models.text import train_wordpiece
from esi_fast.retriever import Document, HashingEmbedder, Retriever, TransformersEmbedder

TEXTS = [
    "sinus rhythm",
    "first degree av block",
    "atrial fibrillation with rapid ventricular response and left axis deviation",
    "the st segment is raised in the inferior leads as in acute infarction of that wall",
    "block",
    "left",
    "rapid atrial rhythm",
    "inferior infarction, left axis",
]
MAX_LENGTH = 24


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two tiny BERTs of random weights with one tokenizer, and one of another width."""
    from transformers import BertConfig, BertModel

    tokenizer = train_wordpiece(TEXTS * 5, 200)
    folders = []
    for seed, hidden in ((0, 32), (1, 32), (2, 16)):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=48, max_position_embeddings=MAX_LENGTH,
            initializer_range=0.5,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("bert")
        BertModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def plain(folder: str, text: str, pooling: str, max_length: int = MAX_LENGTH) -> NDArray[Any]:
    """One text at a time, without padding."""
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    if len(ids) > max_length:
        ids = [*ids[: max_length - 1], ids[-1]]
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder)(torch.tensor([ids])).last_hidden_state[0]
    vector = (hidden.mean(dim=0) if pooling == "mean" else hidden[0]).numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_a_plain_computation(models: list[str], pooling: Literal["mean", "cls"]) -> None:
    embedder = TransformersEmbedder(models[0], pooling=pooling, max_length=MAX_LENGTH)
    vectors = embedder.embed_queries(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.dimension) == (8, 32)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, plain(models[0], text, pooling), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_batch_changes_no_vector(models: list[str]) -> None:
    alone, three, eight = (
        TransformersEmbedder(models[0], max_length=MAX_LENGTH, batch_size=size).embed_queries(TEXTS)
        for size in (1, 3, 8)
    )
    np.testing.assert_allclose(alone, eight, atol=1e-5)
    np.testing.assert_allclose(alone, three, atol=1e-5)


def test_prefixes_titles_and_length(models: list[str]) -> None:
    embedder = TransformersEmbedder(
        models[0], query_prefix="sinus ", document_prefix="atrial ", max_length=8
    )
    (query,) = embedder.embed_queries(["left axis deviation"])
    wanted = plain(models[0], "sinus left axis deviation", "mean", 8)
    np.testing.assert_allclose(query, wanted, atol=1e-5)
    documents = [Document("a", TEXTS[2], "block"), Document("b", "left axis")]
    for vector, text in zip(
        embedder.embed_documents(documents),
        (f"atrial block. {TEXTS[2]}", "atrial left axis"),
        strict=True,
    ):
        np.testing.assert_allclose(vector, plain(models[0], text, "mean", 8), atol=1e-5)
    longer = TransformersEmbedder(models[0], max_length=MAX_LENGTH).embed_queries([TEXTS[3]])
    assert not np.allclose(longer, embedder.embed_queries([TEXTS[3]]), atol=1e-2)
    assert embedder.embed_documents([]).shape == (0, 32)


def test_models_that_come_in_pairs(models: list[str]) -> None:
    embedder = TransformersEmbedder(models[0], query_model=models[1], max_length=MAX_LENGTH)
    (query,) = embedder.embed_queries([TEXTS[1]])
    (document,) = embedder.embed_documents([Document("a", TEXTS[1])])
    np.testing.assert_allclose(query, plain(models[1], TEXTS[1], "mean"), atol=1e-5)
    np.testing.assert_allclose(document, plain(models[0], TEXTS[1], "mean"), atol=1e-5)
    with pytest.raises(ValueError, match="vectors of different dimensions"):
        TransformersEmbedder(models[0], query_model=models[2], max_length=MAX_LENGTH)


def test_what_is_out_of_range_is_refused(models: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pooling is 'max'"):
        TransformersEmbedder(models[0], pooling="max")  # type: ignore[arg-type]
    for dimension in (7, "64", 64.0, True):
        with pytest.raises(ValueError, match=f"dimension is {dimension!r}; give a whole number"):
            HashingEmbedder(dimension)  # type: ignore[arg-type]
    for max_length in (MAX_LENGTH + 1, 2, 0):
        with pytest.raises(ValueError, match=rf"max_length is {max_length}; .* 3 to {MAX_LENGTH}"):
            TransformersEmbedder(models[0], max_length=max_length)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file", "broken", "no_tokenizer", "other"])
def test_what_is_no_encoder_is_named_with_what_is_expected(
    models: list[str], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    if name == "file":
        folder.write_text("not a model")
    elif name != "nowhere":
        folder.mkdir()
    if name in ("no_tokenizer", "broken"):
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((Path(models[0]) / file).read_bytes())
    if name == "broken":
        for file in Path(models[0]).glob("token*"):
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "model.safetensors").write_bytes(b"not weights")
    if name == "other":
        (folder / "config.json").write_text('{"model_type": "nonsense"}')
    wanted = rf"^{folder} is no encoder .*; give .*config\.json.*weights.*tokenizer"
    with pytest.raises((OSError, ValueError), match=wanted) as caught:
        TransformersEmbedder(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_text_without_a_word_is_all_zeros(models: list[str]) -> None:
    for embedder in (
        TransformersEmbedder(models[0], query_prefix="sinus ", max_length=MAX_LENGTH),
        HashingEmbedder(64),
    ):
        vectors = embedder.embed_queries(["", "left", " \n", "?!"])
        assert vectors.any(axis=1).tolist() == [False, True, False, False]
        assert embedder.embed_queries([]).shape == (0, embedder.dimension)


def test_one_encoder_serves_many_threads(models: list[str]) -> None:
    """A tokenizer keeps padding and truncation as its state, and panics if two set them."""
    embedder = TransformersEmbedder(models[0], max_length=MAX_LENGTH, batch_size=2)
    wanted = embedder.embed_queries(TEXTS)
    failures: list[BaseException] = []

    def ask(order: list[int]) -> None:
        try:
            for _ in range(5):
                found = embedder.embed_queries([TEXTS[one] for one in order])
                np.testing.assert_allclose(found, wanted[order], atol=1e-5)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=ask, args=(np.roll(range(8), number).tolist(),))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures, failures


def test_a_retriever_with_an_encoder_survives_saving(models: list[str], tmp_path: Path) -> None:
    embedder = TransformersEmbedder(
        models[0], query_model=models[1], pooling="cls", document_prefix="left ", max_length=16
    )
    retriever = Retriever("hybrid", embedder=embedder)
    retriever.add_documents(Document(f"d{n}", text) for n, text in enumerate(TEXTS))
    retriever.save(tmp_path / "saved")
    loaded = Retriever.load(tmp_path / "saved")
    assert loaded.embedder is not None
    assert loaded.embedder.identity == embedder.identity
    for mine, other in zip(loaded.query(TEXTS), retriever.query(TEXTS), strict=True):
        assert [hit.document for hit in mine] == [hit.document for hit in other]
    other = TransformersEmbedder(models[0], query_model=models[1], pooling="cls", max_length=16)
    with pytest.raises(ValueError, match="was made by another embedder"):
        Retriever.load(tmp_path / "saved", embedder=other)


def test_hashing_is_the_same_in_every_process() -> None:
    code = (
        "import hashlib, sys\nfrom esi_fast.retriever import HashingEmbedder\n"
        "vectors = HashingEmbedder(128).embed_queries(sys.argv[1:])\n"
        "print(hashlib.sha256(vectors.tobytes()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, *TEXTS], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "4711")
    }  # fmt: skip
    assert len(found) == 1


@given(st.lists(st.text(max_size=30), max_size=5))
def test_hashed_vectors_are_of_unit_length(texts: list[str]) -> None:
    vectors = HashingEmbedder().embed_queries(texts)
    assert vectors.shape == (len(texts), 1024)
    assert vectors.dtype == np.float32
    for text, length in zip(texts, np.linalg.norm(vectors, axis=1), strict=True):
        has_word = any(letter.isalnum() for letter in text.casefold())
        assert abs(length - has_word) < 1e-5


def test_hashed_texts_are_near_that_share_words() -> None:
    embedder = HashingEmbedder()
    near, far, other_spelling, upper = embedder.embed_queries(
        ["inferior st elevation", "granite and basalt", "repolarisation", "REPOLARIZATION"]
    )
    (document,) = embedder.embed_documents([Document("a", "elevation of the inferior st segment")])
    assert near @ document > 0.5 > 0.1 > abs(far @ document)
    assert 0.1 < other_spelling @ upper < 0.9
    titled, plainly = embedder.embed_documents(
        [Document("b", "st segment", "inferior"), Document("c", "st segment inferior")]
    )
    (query,) = embedder.embed_queries(["inferior"])
    assert query @ titled > query @ plainly
    with pytest.raises(ValueError, match="dimension is 7"):
        HashingEmbedder(7)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, esi_fast.retriever\n"
        "assert 'numpy' in sys.modules\n"
        "heavy = {'torch', 'transformers', 'hnswlib', 'scipy', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
