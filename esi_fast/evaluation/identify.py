"""Subject identification: is an ECG nearest to another one of the same patient?

Enrolled and asked are always different recordings: two crops of one recording share its electrode
places, its noise and its very beats, and would be told by those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from esi_fast.data.signals import Signals, no_signal
from esi_fast.evaluation.embed import Embedder, embed_ecg
from esi_fast.evaluation.match_ranks import chance, hits, match_ranks
from esi_fast.evaluation.results import FloatArray, Names, PairResult, QueryResult
from esi_fast.evaluation.shared_records import shared_rows, unit_embeddings
from esi_fast.evaluation.splits import EvaluationSplit

Indices = npt.NDArray[np.int64]

RANKS = (1, 5)
# Of each kind: one false accept in 1,000 then rests on 200 of them.
MAX_PAIRS = 200_000
_PAIR_BLOCK = 8192


def identify(
    embedders: Mapping[str, Embedder],
    *,
    split: str = "test",
    same_record_crops: bool = False,
    seed: int = 0,
) -> tuple[QueryResult, PairResult]:
    """Identification and verification of patients by the cosine of their records.

    Identification: enrolled is the first record of every patient, also of those with no other one,
    who are distractors. All other records are asked whose they are. The first one is the earliest
    where all times of recording are known, and else the first by key, which may be the later one.
    Ties count against a hit.

    Verification: pairs of different records of one patient, and pairs of two patients; all of them,
    or of either kind :data:`MAX_PAIRS` drawn evenly.

    Args:
        embedders: the contenders, over the same dataset.
        split: which records.
        same_record_crops: cut each record into two halves that count as two records, for datasets
            with one record a patient. Far easier than two recordings, and named in the details.
            Not of a protocol that fills in missing samples.
        seed: of the draw of pairs.

    Returns:
        "rank-1" and "rank-5" of every record asked, 1 for a hit and 0 else; and the pairs' cosines.

    Raises:
        ValueError: no patient has two readable records, all records are of one patient, or an
            embedding has no direction.
    """
    targets = {name: one.dataset.split(split) for name, one in embedders.items()}
    if same_record_crops:
        targets = {name: _halves(target) for name, target in targets.items()}
        embeddings = {name: embed_ecg(one.model, targets[name]) for name, one in embedders.items()}
    else:
        embeddings = {name: one.ecg(split) for name, one in embedders.items()}
    rows, errors = shared_rows(embeddings)
    if same_record_crops:
        errors = {key.rsplit(" ", 2)[0]: reason for key, reason in errors.items()}
    target = next(iter(targets.values()))
    times = None if target.times is None else target.times[rows]
    people = _people(np.array(target.keys)[rows], target.groups[rows], times, split)
    genuine, num_genuine = _draw_pairs(people.patient_start, people.places, seed)
    impostors, num_impostors = _draw_pairs(np.zeros_like(people.places), people.patient_start, seed)
    pairs = np.concatenate([genuine, impostors])
    outcomes: dict[str, dict[str, FloatArray]] = {}
    scores: dict[str, FloatArray] = {}
    for name, one in embeddings.items():
        unit = unit_embeddings(one, rows)[people.order]
        (ranks,) = match_ranks(
            unit[people.asked],
            unit[people.enrolled],
            (people.patient_start[people.asked], people.patient_start[people.enrolled]),
            title=f"identify {name}",
        )
        outcomes[name] = hits(ranks, RANKS, "rank-")
        scores[name] = _cosines_of_pairs(unit, pairs)
    crops = (
        "two halves of each record count as two records: crops of one recording, far easier to "
        "match than two recordings"
    )
    records = crops if same_record_crops else "enrolled and asked are different recordings"
    queries = QueryResult(
        task="identify",
        split=split,
        keys=people.keys[people.asked],
        groups=people.groups[people.asked],
        outcomes=outcomes,
        details={
            "enrolled": "the first record of every patient, by "
            f"{'key' if times is None else 'time'}; all others are asked",
            "records": records,
            "same_record_crops": same_record_crops,
            "gallery": len(people.enrolled),
            "patients_asked": len(set(people.groups[people.asked].tolist())),
            "distractors": people.num_single,
        }
        | chance(np.ones_like(people.asked), len(people.enrolled), RANKS, "rank-"),
        errors=errors,
    )
    verification = PairResult(
        task="verify",
        split=split,
        groups=people.groups[pairs],
        same=np.arange(len(pairs)) < len(genuine),
        scores=scores,
        details={
            "records": records,
            "same_record_crops": same_record_crops,
            "genuine_pairs": len(genuine),
            "genuine_pairs_in_all": num_genuine,
            "impostor_pairs": len(impostors),
            "impostor_pairs_in_all": num_impostors,
            "seed": seed,
        },
    )
    return queries, verification


@dataclass(frozen=True)
class _People:
    """Records, the ones of a patient beside each other in the order of their times or keys.

    Attributes:
        order: (n) places of the records among those given.
        places: (n) 0, 1, ..., n - 1.
        keys, groups: (n) of the records, in this order.
        patient_start: (n) where the records of a record's patient begin.
        enrolled, asked: places of records.
        num_single: patients with one record.
    """

    order: Indices
    places: Indices
    keys: Names
    groups: Names
    patient_start: Indices
    enrolled: Indices
    asked: Indices
    num_single: int


def _people(keys: Names, groups: Names, times: Names | None, split: str) -> _People:
    order = np.lexsort((keys, groups) if times is None else (keys, times, groups))
    keys, groups = keys[order], groups[order]
    places = np.arange(len(keys))
    is_first = np.append(True, groups[1:] != groups[:-1])
    enrolled, asked = places[is_first], places[~is_first]
    if not len(asked):
        raise ValueError(
            f"none of {len(enrolled)} patients in split {split} has two readable records, which "
            "identification needs: take a dataset with several records a patient, a split with "
            "more patients, or halves of each record (--same-record-crops)"
        )
    if len(enrolled) < 2:
        raise ValueError(
            f"all {len(keys)} records of split {split} are of one patient: there is nobody to "
            "tell from; take a split with more patients"
        )
    num_single = int((np.diff(np.append(enrolled, len(keys))) == 1).sum())
    patient_start = enrolled[np.cumsum(is_first) - 1]
    return _People(order, places, keys, groups, patient_start, enrolled, asked, num_single)


def _draw_pairs(first: Indices, end: Indices, seed: int) -> tuple[Indices, int]:
    """Pairs (p, 2) of each place with the places from ``first`` up to ``end``, and their number.

    All of them, or MAX_PAIRS drawn without replacement, without ever listing all.
    """
    ends = np.cumsum(end - first)
    total = int(ends[-1])
    chosen = np.arange(total) if total <= MAX_PAIRS else _draw(total, seed)
    place = np.searchsorted(ends, chosen, side="right")
    partner = end[place] - (ends[place] - chosen)
    return np.stack([place, partner], axis=1), total


def _draw(total: int, seed: int) -> Indices:
    return np.sort(np.random.default_rng(seed).choice(total, MAX_PAIRS, replace=False))


def _cosines_of_pairs(unit: npt.NDArray[np.float32], pairs: Indices) -> FloatArray:
    cosine = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIR_BLOCK):
        one, two = unit[pairs[start : start + _PAIR_BLOCK]].astype(np.float64).swapaxes(0, 1)
        cosine[start : start + _PAIR_BLOCK] = np.einsum("pd,pd->p", one, two)
    return cosine


def _halves(split: EvaluationSplit) -> EvaluationSplit:
    """Each record as two: the first and the last half of what was recorded, padded as records are.

    The split must give missing samples as NaN.
    """
    num_records = len(split.keys)

    def read(rows: Sequence[int]) -> tuple[Signals, tuple[str, ...]]:
        signals, errors = split.read([row % num_records for row in rows])
        halves = np.full_like(signals, np.nan)
        for half_LT, signal_LT, row in zip(halves, signals, rows, strict=True):
            recorded = np.flatnonzero(~np.isnan(signal_LT).all(axis=0))
            if not len(recorded):
                continue
            first, end = recorded[0], recorded[-1] + 1
            length = (end - first) // 2
            start = first if row < num_records else end - length
            half_LT[:, :length] = signal_LT[:, start : start + length]
        return halves, tuple(no_signal(halves, errors))

    return replace(
        split,
        keys=tuple(f"{key} {half} half" for half in ("first", "last") for key in split.keys),
        groups=np.tile(split.groups, 2),
        labels=np.tile(split.labels, (2, 1)),
        read=read,
        concept_keys=None,
        texts=None,
        times=None,
    )
