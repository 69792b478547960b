"""Retrieval between ECGs and texts: how far down the list is the right one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.embed import Embedder, embed_texts
from esi_fast.evaluation.match_ranks import chance, hits, match_ranks
from esi_fast.evaluation.results import FloatArray, QueryResult
from esi_fast.evaluation.shared_records import shared_rows, unit_embeddings

KS = (1, 5, 10)
MAX_QUERIES = 10_000


def retrieve(
    embedders: Mapping[str, Embedder],
    *,
    split: str = "test",
    ks: Sequence[int] = KS,
    seed: int = 0,
) -> QueryResult:
    """Each text looks for its ECG among all of the split, and each ECG for its text.

    A hit is what says the same, that is has an equal concept key; whether the very pair was found
    is reported beside it. Ties count against a hit, and so do records with an equal text when the
    very pair is asked for.

    Args:
        embedders: the contenders, over the same dataset.
        split: which records; its captions are the texts.
        ks: of the recalls.
        seed: of the draw of :data:`MAX_QUERIES` records to ask with, where there are more. The
            gallery is always whole.

    Returns:
        For texts that look for ECGs ("text ...") and ECGs that look for texts ("ECG ..."):
        "recall@k", "median rank", and both again for the "exact" pair.

    Raises:
        ValueError: the dataset has no captions or no concept keys, nothing can be read, or an
            embedding has no direction.
    """
    embeddings = {name: one.ecg(split) for name, one in embedders.items()}
    rows, errors = shared_rows(embeddings)
    dataset = next(iter(embedders.values())).dataset
    target = dataset.split(split)
    captions, concept_keys = target.captions, target.concept_keys
    if captions is None or concept_keys is None:
        raise ValueError(
            f"dataset {dataset.name} has no {'captions' if captions is None else 'concept keys'} "
            "to retrieve by: take one whose records have statements, which a table of labels lacks"
        )
    has_text = np.array([bool(captions[row].strip()) for row in rows], dtype=np.bool_)
    num_without_text = int((~has_text).sum())
    rows = rows[has_text]
    if not len(rows):
        raise ValueError(f"no readable record of split {split} has a caption to retrieve by")
    asked = np.arange(len(rows))
    if len(rows) > MAX_QUERIES:
        rng = np.random.default_rng(seed)
        asked = np.sort(rng.choice(len(rows), MAX_QUERIES, replace=False))
    texts = [captions[row] for row in rows]
    pair, same = np.arange(len(rows)), concept_keys[rows]
    outcomes: dict[str, dict[str, FloatArray]] = {}
    for name, one in embedders.items():
        ecg_MD = unit_embeddings(embeddings[name], rows)
        text_MD = embed_texts(one.model, texts)
        found: dict[str, FloatArray] = {}
        for query, query_MD, gallery_MD in (("text", text_MD, ecg_MD), ("ECG", ecg_MD, text_MD)):
            ranks, exact = match_ranks(
                query_MD[asked],
                gallery_MD,
                (same[asked], same),
                (pair[asked], pair),
                title=f"retrieve by {query}, {name}",
            )
            for kind, of_kind in ((query, ranks), (f"{query} exact", exact)):
                found |= hits(of_kind, ks, f"{kind} recall@")
                found[f"{kind} median rank"] = of_kind
        outcomes[name] = found
    _, key_of, sizes = np.unique(same, return_inverse=True, return_counts=True)
    return QueryResult(
        task="retrieval",
        split=split,
        keys=np.array(target.keys)[rows[asked]],
        groups=target.groups[rows[asked]],
        outcomes=outcomes,
        medians=frozenset(
            f"{kind} median rank" for kind in ("text", "text exact", "ECG", "ECG exact")
        ),
        details={
            "hit": "an equal concept key; exact: the very pair",
            "gallery": len(rows),
            "queries": len(asked),
            "without_caption": num_without_text,
            "distinct_texts": len(set(texts)),
            "concept_keys": len(sizes),
            "largest_concept_key": int(sizes.max()),
            "seed": seed,
        }
        | chance(sizes[key_of[asked]], len(rows), ks, "recall@")
        | chance(np.ones_like(asked), len(rows), ks, "exact recall@"),
        errors=errors,
    )


def recall_at(
    query_ND: npt.NDArray[np.float32],
    gallery_MD: npt.NDArray[np.float32],
    query_key_N: npt.NDArray[np.int64],
    gallery_key_M: npt.NDArray[np.int64],
    ks: Sequence[int] = KS,
) -> dict[int, float]:
    """Share of queries with a match among their k nearest, for each k; ties count against it.

    Args:
        query_ND, gallery_MD: unit-length embeddings.
        query_key_N, gallery_key_M: a query matches what has its key. Keys that all differ ask for
            the exact pair, ``concept_key`` for any text that says the same.
        ks: of the nearest that count; more than the gallery holds is all of it.

    Raises:
        ValueError: there is no query or no gallery, or the keys do not fit.
    """
    (ranks,) = match_ranks(query_ND, gallery_MD, (query_key_N, gallery_key_M))
    return {k: float((ranks <= k).mean()) for k in ks}
