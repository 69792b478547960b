"""Ranks and recalls between embeddings against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from query_fakes import brute_force_rank, contender

from esi_fast.evaluation import embed, retrieval
from esi_fast.evaluation import match_ranks as ranks_module
from esi_fast.evaluation.match_ranks import chance, hits, match_ranks
from esi_fast.evaluation.retrieval import recall_at, retrieve


def unit(rows: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize(("cosines", "block"), [(350, 7), (1 << 24, 8192)])
def test_recall_is_the_count_by_hand(
    cosines: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks_module, "_MAX_COSINES", cosines)
    monkeypatch.setattr(ranks_module, "_GALLERY_BLOCK", block)
    queries, gallery = unit(60, 1), unit(50, 2)
    keys = np.random.default_rng(3)
    query_keys, gallery_keys = keys.integers(0, 20, 60), keys.integers(0, 20, 50)
    found = recall_at(queries, gallery, query_keys, gallery_keys, (1, 5, 50))
    for k in (1, 5, 50):
        num_hits = 0
        for query, key in zip(queries, query_keys, strict=True):
            nearest = sorted(range(50), key=lambda row: -float(query @ gallery[row]))[:k]
            num_hits += any(gallery_keys[row] == key for row in nearest)
        assert found[k] == num_hits / 60


def test_each_finds_itself_and_a_wrong_key_nothing() -> None:
    own, keys = unit(30, 4), np.arange(30)
    assert recall_at(own, own, keys, keys) == {1: 1.0, 5: 1.0, 10: 1.0}
    assert recall_at(own, own, keys, keys + 100) == {1: 0.0, 5: 0.0, 10: 0.0}
    assert recall_at(own, own[:3], keys, keys[:3], (10,)) == {10: 3 / 30}


def test_ties_count_against_a_match_and_what_has_none_has_no_rank() -> None:
    gallery = np.repeat(unit(10, 5), 3, axis=0)
    queries, keys = unit(40, 6), np.arange(40) % 33
    (ranks,) = match_ranks(queries, gallery, (keys, np.arange(30)))
    for query, key, rank in zip(queries, keys, ranks, strict=True):
        if key >= 30:
            assert np.isnan(rank)
            continue
        assert rank == brute_force_rank(query, gallery, np.arange(30) == key)
        assert rank % 3 == 0
    assert np.isnan(hits(ranks, (1,), "recall@")["recall@1"]).sum() == 3
    constant = np.tile(unit(1, 7), (2000, 1))
    assert recall_at(constant, constant, np.arange(2000), np.arange(2000), (1999, 2000)) == {
        1999: 0.0,
        2000: 1.0,
    }


def test_what_is_not_finite_counts_against_a_match() -> None:
    own, keys = unit(30, 4), np.arange(30)
    lost = own.copy()
    lost[:3] = np.nan
    (ranks,) = match_ranks(lost, own, (keys, keys))
    assert ranks.tolist() == [30] * 3 + [1] * 27
    (ranks,) = match_ranks(own, lost, (keys, keys))
    assert ranks.tolist() == [30] * 3 + [4] * 27


def test_chance_finds_all_that_match_in_a_whole_gallery() -> None:
    found = chance(np.array([1, 3, 4]), 4, (1, 2, 9), "@")
    expected = {"chance @1": 8 / 12, "chance @2": (1 / 2 + 1 + 1) / 3, "chance @9": 1.0}
    assert found == pytest.approx(expected, abs=1e-4)


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="0 queries and a gallery of 3"):
        recall_at(unit(0, 1), unit(3, 1), np.arange(0), np.arange(3))
    with pytest.raises(ValueError, match="have 2 and 3 keys"):
        recall_at(unit(3, 1), unit(3, 1), np.arange(2), np.arange(3))


class Texts:
    """Embeds a text by looking it up, and counts what it was asked."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors = vectors
        self.asked: list[str] = []

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        self.asked += texts
        return torch.from_numpy(np.stack([3 * self.vectors[text] for text in texts]))


def case(num: int = 60, noise: float = 0.8):
    """ECGs near their texts; 20 texts, two of which say the same in other words."""
    rng = np.random.default_rng(8)
    said = rng.integers(0, 20, num)
    captions = tuple(f"text {number}" for number in said)
    vectors = {f"text {number}": unit(20, 9)[number] for number in range(20)}
    values = np.stack([vectors[caption] for caption in captions])
    values = values + noise * rng.normal(size=values.shape) / np.sqrt(8)
    return values.astype(np.float32), captions, said // 2, vectors


def test_retrieval_is_the_count_by_hand_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_TEXT_BATCH", 7)
    values, captions, same, vectors = case()
    groups = [f"p{row // 2}" for row in range(60)]
    texts = Texts(vectors)
    one = contender(
        values, groups, unreadable={3: "torn"}, model=texts, captions=captions, concept_keys=same
    )
    result = retrieve({"model": one}, ks=(1, 10))
    assert sorted(texts.asked) == sorted(set(captions))
    kept = [row for row in range(60) if row != 3]
    assert result.keys.tolist() == [f"k{row:05d}" for row in kept]
    assert result.errors == {"k00003": "torn"}
    ecg = values[kept] / np.linalg.norm(values[kept], axis=1, keepdims=True)
    text = np.stack([vectors[captions[row]] for row in kept])
    found = result.outcomes["model"]
    assert next(iter(found)) == "text recall@1"
    for name, queries, gallery in (("text", text, ecg), ("ECG", ecg, text)):
        for place, row in enumerate(kept):
            for kind, matches in (
                (name, same[kept] == same[row]),
                (f"{name} exact", np.array(kept) == row),
            ):
                rank = brute_force_rank(queries[place], gallery, matches)
                assert found[f"{kind} median rank"][place] == rank
                assert found[f"{kind} recall@1"][place] == (rank == 1)
                assert found[f"{kind} recall@10"][place] == (rank <= 10)
    assert result.medians <= set(found)
    assert len(result.medians) == 4
    assert 0.3 < found["text recall@1"].mean() < 1
    assert found["text exact recall@1"].mean() < found["text recall@1"].mean()
    keys = same[kept]
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(keys)[:10] == key for key in keys for _ in range(200)])
    for name, share in {
        "recall@1": shuffled[:, 0].mean(),
        "recall@10": shuffled.any(axis=1).mean(),
        "exact recall@1": 1 / 59,
        "exact recall@10": 10 / 59,
    }.items():
        assert result.details[f"chance {name}"] == pytest.approx(share, abs=0.02)


def test_embeddings_that_are_all_alike_find_nothing() -> None:
    values, captions, same, vectors = case()
    constant = {caption: unit(1, 1)[0] for caption in vectors}
    one = contender(
        np.tile(unit(1, 2), (60, 1)), captions, model=Texts(constant), captions=captions,
        concept_keys=same,
    )  # fmt: skip
    found = retrieve({"model": one}).outcomes["model"]
    for name, values in found.items():
        assert (values > 40).all() if name.endswith("rank") else (values == 0).all()


def test_of_many_records_some_ask_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values, captions, same, vectors = case()
    one = contender(values, captions, model=Texts(vectors), captions=captions, concept_keys=same)
    whole = retrieve({"model": one})
    monkeypatch.setattr(retrieval, "MAX_QUERIES", 20)
    some = retrieve({"model": one})
    assert len(some.keys) == some.details["queries"] == 20
    assert some.details["gallery"] == 60
    places = [whole.keys.tolist().index(key) for key in some.keys]
    for name, outcomes in some.outcomes["model"].items():
        assert (outcomes == whole.outcomes["model"][name][places]).all()
    assert (retrieve({"model": one}, seed=1).keys != some.keys).any()


def test_what_cannot_be_retrieved_is_said() -> None:
    values, captions, same, vectors = case()
    texts = Texts(vectors)
    for lacking, of_split in (
        ("captions", {"captions": None, "concept_keys": same}),
        ("concept keys", {"captions": captions, "concept_keys": None}),
    ):
        with pytest.raises(ValueError, match=f"planted has no {lacking} to retrieve by: take"):
            retrieve({"model": contender(values, captions, model=texts, **of_split)})
    empty = contender(
        values, captions, model=texts, captions=("", *captions[1:]), concept_keys=same
    )
    assert retrieve({"model": empty}).details["without_caption"] == 1
    none = contender(values, captions, model=texts, captions=(" ",) * 60, concept_keys=same)
    with pytest.raises(ValueError, match="no readable record of split test has a caption"):
        retrieve({"model": none})
