"""What a task finds: the scores of every contender on the same records.

Every figure of a report follows from these alone, so that they are what is cached. A contender is
the model, the same architecture with random weights (``random-SEED``) or a baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
# A contender that shows how far a measure can go. It is no rival: nothing is tested against it.
CEILING = "reference"


@dataclass(frozen=True)
class LabelResult:
    """Scores of labels, as zero-shot, probes and fine-tuned models give them.

    Attributes:
        task: "zeroshot", "probe", "probe-10" (10 % of the training patients), "finetune", ...
        split: that was scored.
        label_names: (K) columns of the arrays.
        titles: (K) the names in human words.
        keys: (n) records scored.
        groups: (n) their patients.
        labels: (n, K).
        scores: contender to (n, K); higher is more likely positive. A label that a contender could
            not be made to score is a column of NaN.
        probabilities: contenders whose scores are probabilities, for calibration.
        not_scored: labels that no contender scored, with the reason.
        details: what the task chose or used, JSON-ready.
        errors: key to reason for records that could not be read.
    """

    task: str
    split: str
    label_names: tuple[str, ...]
    titles: tuple[str, ...]
    keys: Names
    groups: Names
    labels: BoolArray
    scores: Mapping[str, FloatArray]
    probabilities: frozenset[str] = frozenset()
    not_scored: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QueryResult:
    """Outcomes of queries; every figure is a mean (or, ``medians``, a median) over them.

    Attributes:
        task: "identify", "retrieval", "caption".
        split: that was scored.
        keys: (n) what was asked with.
        groups: (n) the patient of each.
        outcomes: contender to measure to (n,): "rank-1" 0 or 1, "text recall@10" 0 or 1,
            "concept F1" 0 to 1, "median rank" the rank, ...; NaN where a query has no outcome.
        medians: measures that are summed up by their median.
        details: what the task chose or used, JSON-ready.
        errors: key to reason for records that could not be read.
    """

    task: str
    split: str
    keys: Names
    groups: Names
    outcomes: Mapping[str, Mapping[str, FloatArray]]
    medians: frozenset[str] = frozenset()
    details: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PairResult:
    """Similarities of pairs of records, of one patient or of two: verification.

    Attributes:
        task: "verify".
        split: that was scored.
        groups: (p, 2) the patients of each pair.
        same: (p,) whether they are one.
        scores: contender to (p,); higher is more alike.
        details: how pairs were chosen, JSON-ready.
    """

    task: str
    split: str
    groups: Names
    same: BoolArray
    scores: Mapping[str, FloatArray]
    details: Mapping[str, Any] = field(default_factory=dict)
