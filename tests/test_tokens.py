from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loader_fakes import NUM_RECORDS, ONE_SPLIT, ByteTokenizer, bare_text, text_of
from shard_tree import Tree, build, make_tree

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.augment import sample_sentences, sentences_of
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens
from esi_fast.models.text import train_wordpiece

ROWS = [17, 3, 3, 20]
WHOLE = {"seed": 0, "epoch": 0, "share": 0.0}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def shard_set(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    out = tmp_path_factory.mktemp("shards") / "out"
    build(tree, out, captions=CaptionDictionary([]), **ONE_SPLIT)
    return ShardSet(out)


@pytest.mark.parametrize("text", ["One. Two.", "One", "", "One. ", "A 2.5 mV wave. B", "A.. B."])
def test_sentences_join_to_their_caption(text: str) -> None:
    assert " ".join(sentences_of(text)) == text


def test_ids_are_those_of_the_whole_captions(shard_set: ShardSet) -> None:
    captions = [shard_set.read_caption(row) or "" for row in range(NUM_RECORDS)]
    tokenizer = train_wordpiece(captions, 500)
    for max_tokens in (3, 20, 400):
        tokens = CaptionTokens(shard_set, tokenizer, max_tokens)
        batch = tokens.batch(ROWS, **WHOLE)
        expected = tokenizer(
            [captions[row] for row in ROWS],
            padding=True,
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        )
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])
        assert torch.equal(batch["text_ids"], batch["input_ids"])
        assert tokens.lengths[ROWS].tolist() == expected["attention_mask"].sum(dim=1).tolist()


def test_sampled_texts_are_those_of_sample_sentences(shard_set: ShardSet) -> None:
    tokens = CaptionTokens(shard_set, ByteTokenizer(), 2000)
    texts = set()
    for epoch in range(4):
        batch = tokens.batch(range(NUM_RECORDS), seed=3, epoch=epoch, share=0.7)
        for row in range(NUM_RECORDS):
            caption = shard_set.read_caption(row) or ""
            drawn = sample_sentences(caption, seed=3, epoch=epoch, row=row, share=0.7)
            assert text_of(batch["text_ids"][row], batch["text_mask"][row]) == bare_text(drawn)
            assert text_of(batch["input_ids"][row], batch["attention_mask"][row]) == bare_text(
                caption
            )
            texts.add((row, drawn))
    assert len(texts) > 2 * NUM_RECORDS


def test_the_file_spares_the_tokenizer(shard_set: ShardSet, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = CaptionTokens(shard_set, ByteTokenizer(), 2000, folders=[folder])
    tokenizer = ByteTokenizer()
    again = CaptionTokens(shard_set, tokenizer, 2000, folders=[folder])
    assert tokenizer.num_texts == 0
    assert again.path == first.path
    assert [path.name for path in folder.iterdir()] == [str(first.path and first.path.name)]
    for name, value in first.batch(ROWS, seed=1, epoch=2, share=0.5).items():
        assert torch.equal(again.batch(ROWS, seed=1, epoch=2, share=0.5)[name], value)
    np.testing.assert_array_equal(first.lengths, again.lengths)
    # Another length is cut from the same file; another tokenizer or other captions are not.
    assert CaptionTokens(shard_set, tokenizer, 20, folders=[folder]).lengths.max() == 20
    assert tokenizer.num_texts == 0
    tokenizer.backend_tokenizer = SimpleNamespace(to_str=lambda: '{"model": "others"}')
    other = CaptionTokens(shard_set, tokenizer, 2000, folders=[folder])
    assert tokenizer.num_texts > 0
    assert other.path != first.path


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_made_again(shard_set: ShardSet, tmp_path: Path, damage: str) -> None:
    tokens = CaptionTokens(shard_set, ByteTokenizer(), 2000, folders=[tmp_path])
    assert tokens.path is not None
    sound = tokens.path.read_bytes()
    content = bytearray(sound)
    if damage == "cut":
        del content[-100:]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    else:
        np.savez(tmp_path / "other.npz", sentences=np.arange(3))
        content[:] = (tmp_path / "other.npz").read_bytes()
    tokens.path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"tokens-.*\.npz cannot be read \(.*left aside"):
        again = CaptionTokens(shard_set, ByteTokenizer(), 2000, folders=[tmp_path])
    assert tokens.path.read_bytes() == sound
    assert torch.equal(
        again.batch(ROWS, **WHOLE)["input_ids"], tokens.batch(ROWS, **WHOLE)["input_ids"]
    )


@pytest.mark.filterwarnings("ignore:.* has captions of 23 of 24 records:UserWarning")
def test_records_without_caption_are_named(tree: Tree, tmp_path: Path) -> None:
    out = tmp_path / "bare"
    build(tree, out, **ONE_SPLIT)
    with pytest.raises(ValueError, match="24 of 24 records have no caption, the first is k000"):
        CaptionTokens(ShardSet(out), ByteTokenizer(), 2000)
    overlay = tmp_path / "captions.jsonl"
    lines = [{"key": f"k{row:03d}", "caption": "No full stop"} for row in range(24) if row != 9]
    overlay.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"1 of 24 .* k009"):
        CaptionTokens(ShardSet(out, captions=overlay), ByteTokenizer(), 2000)
    with overlay.open("a") as file:
        file.write(json.dumps({"key": "k009", "caption": "Short"}) + "\n")
    batch = CaptionTokens(ShardSet(out, captions=overlay), ByteTokenizer(), 2000).batch(
        [8, 9], **WHOLE
    )
    assert text_of(batch["input_ids"][0], batch["attention_mask"][0]) == "Nofullstop"
    assert batch["attention_mask"].sum(dim=1).tolist() == [12, 7]


def test_damaged_captions_are_never_kept(tree: Tree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(tree, out, captions=CaptionDictionary([]), **ONE_SPLIT)
    tar = out / "train-000000.tar"
    sound = tar.read_bytes()
    offset = int(np.load(out / "train-000000.idx.npy")["txt_offset"][1])
    tar.write_bytes(sound[:offset] + bytes([sound[offset] ^ 1]) + sound[offset + 1 :])
    shards, cache = ShardSet(out), tmp_path / "cache"
    with pytest.raises(ValueError, match=r"train-000000\.tar: sample k001 at byte \d+ is damaged"):
        shards.read_caption(1)
    with pytest.raises(ValueError, match=r"sample k001 .* is damaged"):
        CaptionTokens(shards, ByteTokenizer(), 2000, folders=[cache])
    tokens = CaptionTokens(shards, ByteTokenizer(), 2000, folders=[cache], allow_damage=True)
    assert tokens.path is None
    assert not cache.exists()
    assert tokens.lengths[1] == 2
    assert tokens.batch([0, 1], **WHOLE)["attention_mask"].sum(dim=1)[1] == 2
    tar.write_bytes(sound)
    whole = CaptionTokens(shards, ByteTokenizer(), 2000, folders=[cache])
    assert whole.lengths[1] > 2
    assert whole.path is not None


def test_the_file_goes_where_it_can(shard_set: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, second = tmp_path / "file" / "in a file", tmp_path / "second"
    tokens = CaptionTokens(shard_set, ByteTokenizer(), 2000, folders=[first, second])
    assert tokens.path is not None
    assert tokens.path.parent == second
    tokenizer = ByteTokenizer()
    again = CaptionTokens(shard_set, tokenizer, 2000, folders=[first, second])
    assert (again.path, tokenizer.num_texts) == (tokens.path, 0)
    with pytest.raises(NotADirectoryError):
        CaptionTokens(shard_set, ByteTokenizer(), 2000, folders=[first])


def test_no_rows_are_no_batch(shard_set: ShardSet) -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        CaptionTokens(shard_set, ByteTokenizer(), 2000).batch([], **WHOLE)


def test_a_tokenizer_that_joins_sentences_is_refused(shard_set: ShardSet) -> None:
    class Joining(ByteTokenizer):
        def __call__(self, text: list[str], *, add_special_tokens: bool) -> dict[str, list]:
            return {"input_ids": [[len(one)] for one in text]}

    with pytest.raises(ValueError, match="otherwise than its sentences one by one"):
        CaptionTokens(shard_set, Joining(), 2000)
    with pytest.raises(ValueError, match="max_tokens is 2"):
        CaptionTokens(shard_set, ByteTokenizer(), 2)
