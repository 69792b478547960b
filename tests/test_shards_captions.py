"""Captions in shards: composed of the dictionary, cut to a budget of the text encoder."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from shard_tree import SETTINGS, Tree, build, contents, make_tree, samples_in

from esi_fast.cqa.caption import CaptionDictionary, approximate_tokens
from esi_fast.cqa.concepts import display_name
from esi_fast.cqa.generate import describe_reports
from esi_fast.data.merge import merge_parts
from esi_fast.data.settings import BuildSettings
from esi_fast.data.shards import Part
from esi_fast.data.token_count import TokenCounter


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that knows letters only: many more tokens a sentence than words."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,()-/:'"]
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = [*marks, *characters, *(f"##{one}" for one in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree") / "records", 8)


@pytest.fixture(scope="module")
def dictionary(tree: Tree) -> CaptionDictionary:
    return describe_reports(entry.statements for entry in tree.entries)


def captions_of(folder: Path) -> dict[str, tuple[str, list[str]]]:
    return {
        key: (one["txt"].decode(), json.loads(one["json"])["findings"])
        for key, one in samples_in(folder).items()
    }


def test_a_budget_cuts_captions_and_never_their_findings(
    tree: Tree, dictionary: CaptionDictionary, tmp_path: Path
) -> None:
    build(tree, tmp_path / "long", captions=dictionary, **SETTINGS, max_tokens=500)
    build(tree, tmp_path / "short", captions=dictionary, **SETTINGS, max_tokens=1)
    whole, cut = captions_of(tmp_path / "long"), captions_of(tmp_path / "short")
    assert set(whole) == set(cut)
    assert any(len(whole[key][0]) > len(cut[key][0]) for key in whole)
    for text, findings in cut.values():
        for concept in findings:
            assert display_name(concept).casefold() in text.casefold()


def test_the_text_encoders_own_tokens_count(
    tree: Tree, dictionary: CaptionDictionary, tokenizer: Path, tmp_path: Path
) -> None:
    count = TokenCounter(str(tokenizer))
    budget = 150
    for workers in (1, 2):
        build(
            tree, tmp_path / f"of_{workers}", captions=dictionary, workers=workers,
            **SETTINGS, max_tokens=budget, tokenizer=str(tokenizer),
        )  # fmt: skip
    assert contents(tmp_path / "of_1") == contents(tmp_path / "of_2")
    build(tree, tmp_path / "words", captions=dictionary, **SETTINGS, max_tokens=budget)
    by_letters, by_words = captions_of(tmp_path / "of_1"), captions_of(tmp_path / "words")
    assert all(count(text) <= budget for text, _ in by_letters.values())
    assert any(count(text) > budget for text, _ in by_words.values())
    assert all(approximate_tokens(text) <= budget for text, _ in by_words.values())


def test_a_counter_counts_each_sentence_once_and_travels_without_its_tokenizer(
    tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = TokenCounter(str(tokenizer))
    assert count("Abc de.") == 6
    again = pickle.loads(pickle.dumps(count))
    assert again("Abc de.") == 6
    monkeypatch.setattr(count, "_loaded", None)
    monkeypatch.setattr(count, "_name", "nowhere")
    assert count("Abc de.") == 6


def test_a_tokenizer_that_is_not_there_and_no_budget_are_refused(
    tree: Tree, dictionary: CaptionDictionary, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        BuildSettings(max_tokens=0)
    with pytest.raises((OSError, ValueError), match="nowhere"):
        build(
            tree, tmp_path / "out", captions=dictionary,
            **SETTINGS, tokenizer=str(tmp_path / "nowhere"),
        )  # fmt: skip


def test_another_tokenizer_under_the_same_name_is_another_build(
    tree: Tree, dictionary: CaptionDictionary, tokenizer: Path, tmp_path: Path
) -> None:
    from transformers import BertTokenizer

    name = tmp_path / "tokenizer"
    shutil.copytree(tokenizer, name)
    settings = {**SETTINGS, "tokenizer": str(name)}
    build(tree, tmp_path / "one", captions=dictionary, part=Part(1, 2), **settings)
    build(tree, tmp_path / "one", captions=dictionary, part=Part(1, 2), resume=True, **settings)
    BertTokenizer(str(name / "vocab.txt"), do_lower_case=False).save_pretrained(name)
    with pytest.raises(FileExistsError, match="one was begun with tokenizer_sha256="):
        build(tree, tmp_path / "one", captions=dictionary, part=Part(1, 2), resume=True, **settings)
    build(tree, tmp_path / "two", captions=dictionary, part=Part(2, 2), **settings)
    with pytest.raises(ValueError, match="not of one build: settings differ"):
        merge_parts([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")


def test_a_tokenizer_without_a_digest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    count = TokenCounter("some/model")
    monkeypatch.setattr(count, "_loaded", object())
    with pytest.raises(ValueError, match="some/model has no fast tokenizer"):
        count.sha256()


def test_no_tokenizer_leaves_the_settings_as_they_were() -> None:
    assert "tokenizer_sha256" not in BuildSettings().as_json()


def test_another_wording_is_another_build(
    tree: Tree, dictionary: CaptionDictionary, tmp_path: Path
) -> None:
    build(tree, tmp_path / "out", captions=dictionary, **SETTINGS)
    with pytest.raises((ValueError, FileExistsError)):
        build(tree, tmp_path / "out", captions=dictionary, resume=True, **SETTINGS, max_tokens=9)
