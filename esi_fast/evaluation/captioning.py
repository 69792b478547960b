"""Generated captions against references: are the same findings said, in about the same words?

Word overlap alone rewards fluent captions with the wrong findings, so that the first measure is of
findings, as the statement normaliser reads them from either text.

Provenance: BLEU (Papineni et al. 2002) by sacrebleu, of a single caption with its effective order;
ROUGE-L (Lin 2004), F-measure, by rouge-score. Both ignore case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from esi_fast.evaluation.results import CEILING, FloatArray, QueryResult

if TYPE_CHECKING:
    from esi_fast.evaluation.closing import Captioner
    from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit

SHUFFLED = "shuffled"
MEASURES = ("concept F1", "concept precision", "concept recall", "BLEU", "ROUGE-L")

_SENTENCE_END = re.compile(r"(?<=[.;])\s+")
# Word-piece tokenizers write "first - degree", "axis - 61", "2 : 1" and "rsr ' pattern".
_SPACED_MARKS = (
    (re.compile(r"(?<=\w) - (?=[^\W\d])"), "-"),
    (re.compile(r" - (?=\d)"), " -"),
    (re.compile(r"(?<=\d) : (?=\d)"), ":"),
    (re.compile(r"(?<=\w) ' "), "' "),
)


def caption(
    models: Mapping[str, Captioner],
    dataset: EvaluationDataset,
    *,
    split: str = "test",
    batch_size: int = 64,
    seed: int = 0,
) -> QueryResult:
    """Let models caption a split and compare with its own captions.

    Beside the models stand two contenders. ``"shuffled"`` gives each record the reference of
    another one: what a model gets that writes perfect captions of the wrong ECG. ``"reference"`` is
    the ceiling of the concept measures: the findings read from the reference's text against the
    record's own findings; it is there where the dataset's labels are the concepts.

    Args:
        models: the contenders.
        dataset: opened in the models' signal format.
        split: which records; those without a caption are left out.
        batch_size: records captioned at once.
        seed: of the shuffle.

    Returns:
        "concept F1", "concept precision" and "concept recall" of each caption's findings (NaN where
        there is nothing to count: precision of a caption without findings, F1 where neither text
        has any), "BLEU" and "ROUGE-L", all from 0 to 1. Details hold BLEU of the corpus and F1 over
        all findings of the split.

    Raises:
        ValueError: the split has no captions, fewer than two of its records can be read, a model is
            named like one of the two, or sacrebleu or rouge-score is not installed.
    """
    overlap = _Overlap()
    if taken := sorted({CEILING, SHUFFLED} & set(models)):
        raise ValueError(f"a model cannot be named {taken[0]!r}, as a control is")
    target = dataset.split(split)
    captions = target.captions
    if captions is None or not any(captions):
        raise ValueError(
            f"split {split} of dataset {dataset.name} has no captions to compare with: take "
            "one whose records have statements, which a table of labels lacks"
        )
    written = np.flatnonzero([bool(text.strip()) for text in captions])
    generated, rows, errors = _generate(models, target, written, batch_size)
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} records of split {split} could be captioned; 2 are needed")
    references = [captions[row] for row in rows]
    contenders = {**generated, SHUFFLED: _of_others(references, seed)}
    outcomes: dict[str, dict[str, FloatArray]] = {}
    in_all: dict[str, dict[str, float]] = {}
    said = [findings_in(text) for text in references]
    for name, texts in contenders.items():
        heard = [findings_in(text) for text in texts]
        outcomes[name] = _concept_measures(heard, said) | overlap.measures(texts, references)
        in_all[name] = {
            "corpus_bleu": overlap.corpus_bleu(texts, references),
            "concept_f1": _f1_in_all(heard, said),
        }
    known = _own_findings(dataset, target, rows)
    if known is not None:
        nothing = np.full(len(rows), np.nan)
        outcomes[CEILING] = _concept_measures(said, known) | dict.fromkeys(MEASURES[3:], nothing)
        in_all[CEILING] = {"concept_f1": _f1_in_all(said, known)}
    return QueryResult(
        task="caption",
        split=split,
        keys=np.array(target.keys)[rows],
        groups=target.groups[rows],
        outcomes=outcomes,
        details={
            SHUFFLED: "each record with the reference caption of another one",
            CEILING: "findings read from the reference captions against the records' own findings"
            if known is not None
            else "not given: the labels of this dataset are not the concepts",
            "in_all": in_all,
            "without_caption": len(captions) - len(written),
            "distinct_captions": {name: len(set(texts)) for name, texts in contenders.items()},
            "seed": seed,
        },
        errors=errors,
    )


@lru_cache(maxsize=65536)
def findings_in(text: str) -> frozenset[str]:
    """Concepts that a caption states as findings.

    A sentence of which some words were not understood is no statement, which is how measured values
    ("left axis -60 degrees") and descriptions ("QRS positive in I and aVL") are told from the
    findings beside them.
    """
    from esi_fast.cqa.caption import findings_of

    sentences = map(_unframed, _SENTENCE_END.split(_joined(text.strip())))
    return frozenset(findings_of(one for one in sentences if _is_understood(one)))


def _is_understood(sentence: str) -> bool:
    """Whether each word was read, or belongs to the name of what was ("low T-wave amplitude")."""
    from esi_fast.cqa.concepts import display_name
    from esi_fast.cqa.statements import normalize

    return all(
        set(said.remainder.split()) <= set(display_name(said.concept).casefold().split())
        for said in normalize(sentence)
        if said.remainder
    )


@lru_cache(maxsize=1)
def _frame_openings() -> re.Pattern[str]:
    from esi_fast.cqa.phrases import FRAMES

    openings = sorted({frame.partition("{}")[0].strip() for frame in FRAMES} - {""})
    # Tokenizers put a blank before a colon.
    spaced = (re.escape(opening).replace(":", " ?:") for opening in openings)
    return re.compile(rf"(?:{'|'.join(spaced)})\s+", re.IGNORECASE)


def _unframed(sentence: str) -> str:
    """The finding alone: "The ECG shows sinus rhythm." is "sinus rhythm."."""
    return _frame_openings().sub("", sentence, count=1)


def _generate(
    models: Mapping[str, Captioner],
    target: EvaluationSplit,
    rows: npt.NDArray[np.int64],
    batch_size: int,
) -> tuple[dict[str, list[str]], npt.NDArray[np.int64], dict[str, str]]:
    """What each model says of the readable rows, those rows, and why others could not be read."""
    import torch
    from tqdm import tqdm

    generated: dict[str, list[str]] = {name: [] for name in models}
    readable: list[int] = []
    errors: dict[str, str] = {}
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc="caption", unit="batch", disable=None, leave=False):
        batch_rows = [int(row) for row in rows[start : start + batch_size]]
        signals, reasons = target.read(batch_rows)
        errors |= {target.keys[r]: why for r, why in zip(batch_rows, reasons, strict=True) if why}
        good = [i for i, reason in enumerate(reasons) if not reason]
        if not good:
            continue
        readable += [batch_rows[i] for i in good]
        x_BLT = torch.from_numpy(np.ascontiguousarray(signals[good], dtype=np.float32))
        for name, model in models.items():
            generated[name] += model.caption(x_BLT)
    return generated, np.array(readable, dtype=np.int64), errors


def _of_others(references: Sequence[str], seed: int) -> list[str]:
    """Each reference given to another record."""
    order = np.random.default_rng(seed).permutation(len(references))
    others = [""] * len(references)
    for place, other in zip(order, np.roll(order, 1), strict=True):
        others[place] = references[other]
    return others


def _own_findings(
    dataset: EvaluationDataset, target: EvaluationSplit, rows: npt.NDArray[np.int64]
) -> list[frozenset[str]] | None:
    """The findings that the labels give; None where labels are no concepts."""
    from esi_fast.cqa.concepts import split_concept

    try:
        for name in dataset.label_names:
            split_concept(name)
    except ValueError:
        return None
    names = np.array(dataset.label_names)
    return [frozenset(names[labels].tolist()) for labels in target.labels[rows]]


def _concept_measures(
    heard: Sequence[frozenset[str]], said: Sequence[frozenset[str]]
) -> dict[str, FloatArray]:
    right, num_heard, num_said = (x.astype(np.float64) for x in _counts(heard, said))
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: there is nothing to count
        values = (2 * right / (num_heard + num_said), right / num_heard, right / num_said)
    return dict(zip(MEASURES[:3], values, strict=True))


def _f1_in_all(heard: Sequence[frozenset[str]], said: Sequence[frozenset[str]]) -> float:
    right, num_heard, num_said = (int(x.sum()) for x in _counts(heard, said))
    return 2 * right / max(num_heard + num_said, 1)


def _counts(
    heard: Sequence[frozenset[str]], said: Sequence[frozenset[str]]
) -> tuple[npt.NDArray[np.int64], ...]:
    pairs = list(zip(heard, said, strict=True))
    rows = [(len(one & other), len(one), len(other)) for one, other in pairs]
    return tuple(np.array(rows, dtype=np.int64).T)


class _Overlap:
    """Overlap of words, the libraries loaded once."""

    def __init__(self) -> None:
        try:
            from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
            from sacrebleu.metrics.bleu import BLEU
        except ModuleNotFoundError as error:
            raise ValueError(
                f"captions are compared by {error.name}, which is not installed: "
                "pip install 'esi-fast[eval]'"
            ) from error
        self._single: Any = BLEU(lowercase=True, effective_order=True)
        self._corpus: Any = BLEU(lowercase=True)
        self._rouge: Any = RougeScorer(["rougeL"])

    def measures(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, FloatArray]:
        pairs = [
            (_joined(text), _joined(right)) for text, right in zip(texts, references, strict=True)
        ]
        bleu = [self._single.sentence_score(text, [right]).score / 100 for text, right in pairs]
        rouge = [self._rouge.score(right, text)["rougeL"].fmeasure for text, right in pairs]
        return {"BLEU": np.array(bleu), "ROUGE-L": np.array(rouge)}

    def corpus_bleu(self, texts: Sequence[str], references: Sequence[str]) -> float:
        joined = [_joined(text) for text in texts]
        score = self._corpus.corpus_score(joined, [[_joined(right) for right in references]])
        return float(score.score) / 100


def _joined(text: str) -> str:
    """Text without the blanks that a tokenizer puts around marks inside words."""
    for spaced, mark in _SPACED_MARKS:
        text = spaced.sub(mark, text)
    return text
