"""Captions against references: the libraries' own figures, and findings counted by hand."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rouge_score import rouge_scorer
from sacrebleu import corpus_bleu, sentence_bleu

from esi_fast.cqa.caption import compose
from esi_fast.cqa.concepts import concepts
from esi_fast.cqa.dictionary import CaptionDictionary, Description
from esi_fast.cqa.phrases import prompts_for
from esi_fast.evaluation.bootstrap import Resampling
from esi_fast.evaluation.captioning import caption, findings_in
from esi_fast.evaluation.query_summary import summarise_queries

NAMES = ("atrial_fibrillation", "left_ventricular_hypertrophy", "sinus_rhythm")
REFERENCES = (
    "Sinus rhythm. The ECG shows left ventricular hypertrophy. Rate 70 bpm, PR 160 ms (normal).",
    "Atrial fibrillation. Abnormal ECG.",
    "This tracing shows sinus rhythm. Normal ECG. 60-year-old male.",
    "Finding: atrial fibrillation. Impression: left ventricular hypertrophy.",
    "Normal ECG.",
    "",
)
FINDINGS = ((2, 1), (0,), (2,), (0, 1), (), ())


class Speaker:
    """Says of a record the text whose number the record's first sample holds."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts
        self.config = SimpleNamespace(fs=100.0, num_samples=4)
        self.batches: list[int] = []

    def caption(self, ecg_BLT: torch.Tensor) -> list[str]:
        self.batches.append(len(ecg_BLT))
        return [self.texts[int(number)] for number in ecg_BLT[:, 0, 0]]


def planted(references=REFERENCES, unreadable: tuple[int, ...] = (), label_names=NAMES):
    labels = np.zeros((len(references), 3), bool)
    for row, columns in enumerate(FINDINGS[: len(references)]):
        labels[row, list(columns)] = True

    def read(rows):
        signals = np.zeros((len(rows), 12, 4), np.float32)
        signals[:, 0, 0] = rows
        return signals, tuple("torn" if row in unreadable else "" for row in rows)

    split = SimpleNamespace(
        keys=tuple(f"r{row}" for row in range(len(references))),
        groups=np.array([f"p{row}" for row in range(len(references))]),
        labels=labels,
        captions=references,
        read=read,
    )
    return SimpleNamespace(name="planted", label_names=label_names, split=lambda name: split)


SAID = (
    "sinus rhythm. atrial fibrillation. rate 71 bpm, pr 162 ms ( normal ).",
    "atrial fibrillation. abnormal ecg.",
    "normal ecg.",
    "the ecg shows sinus rhythm.",
    "normal ecg. 60 - year - old male.",
    "never asked",
)
# F1, precision and recall by hand; nan: nothing to count.
BY_HAND = (
    (0.5, 0.5, 0.5),
    (1, 1, 1),
    (0, np.nan, 0),
    (0, 0, 0),
    (np.nan, np.nan, np.nan),
)


def test_measures_are_those_by_hand_and_of_the_libraries():
    speaker = Speaker(SAID)
    result = caption({"model": speaker}, planted(), batch_size=2)
    assert speaker.batches == [2, 2, 1]
    assert result.keys.tolist() == ["r0", "r1", "r2", "r3", "r4"]
    assert result.details["without_caption"] == 1
    found = result.outcomes["model"]
    assert list(found) == ["concept F1", "concept precision", "concept recall", "BLEU", "ROUGE-L"]
    by_hand = np.array(BY_HAND)
    for column, measure in enumerate(list(found)[:3]):
        assert found[measure] == pytest.approx(by_hand[:, column], nan_ok=True)
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    texts = [text.replace(" - ", "-") for text in SAID[:5]]
    for row, (text, reference) in enumerate(zip(texts, REFERENCES[:5], strict=True)):
        bleu = sentence_bleu(text, [reference], lowercase=True).score / 100
        assert found["BLEU"][row] == pytest.approx(bleu)
        rouge = scorer.score(reference, text)["rougeL"].fmeasure
        assert found["ROUGE-L"][row] == pytest.approx(rouge)
    assert 0 < found["BLEU"][0] < found["BLEU"][1] == pytest.approx(1)
    in_all = result.details["in_all"]["model"]
    of_corpus = corpus_bleu(texts, [list(REFERENCES[:5])], lowercase=True).score / 100
    assert in_all["corpus_bleu"] == pytest.approx(of_corpus)
    assert in_all["concept_f1"] == pytest.approx(2 * 2 / (4 + 6))
    summary = summarise_queries(result, Resampling(10))
    assert set(summary["contenders"]) > {"reference", "shuffled"}
    assert list(summary["comparisons"]) == ["shuffled"]  # the ceiling is no rival


def test_the_references_own_text_is_the_ceiling_and_others_captions_the_floor():
    result = caption({"model": Speaker(REFERENCES)}, planted())
    for measure, values in result.outcomes["model"].items():
        assert values[:4] == pytest.approx(np.ones(4)), measure
    ceiling = result.outcomes["reference"]
    assert ceiling["concept F1"] == pytest.approx([1, 1, 1, 1, np.nan], nan_ok=True)
    assert np.isnan(ceiling["BLEU"]).all()
    assert result.details["in_all"]["reference"] == {"concept_f1": 1.0}
    shuffled = result.outcomes["shuffled"]
    assert (shuffled["BLEU"] < 0.99).all()
    assert result.details["in_all"]["shuffled"]["concept_f1"] < 0.8
    again = caption({"model": Speaker(REFERENCES)}, planted())
    assert (again.outcomes["shuffled"]["BLEU"] == shuffled["BLEU"]).all()
    # A reader that loses a finding shows in the ceiling.
    blind = caption({"model": Speaker(SAID)}, planted(("Sinus rhythm.", *REFERENCES[1:])))
    assert blind.outcomes["reference"]["concept recall"][0] == 0.5
    no_concepts = caption({"model": Speaker(SAID)}, planted(label_names=("CD", "MI", "NORM")))
    assert set(no_concepts.outcomes) == {"model", "shuffled"}
    assert "are not the concepts" in no_concepts.details["reference"]


def test_unreadable_records_are_left_out_and_what_cannot_run_is_said(monkeypatch):
    result = caption({"model": Speaker(SAID)}, planted(unreadable=(0, 3)), batch_size=1)
    assert result.errors == {"r0": "torn", "r3": "torn"}
    assert result.keys.tolist() == ["r1", "r2", "r4"]
    with pytest.raises(ValueError, match="1 records of split test could be captioned; 2 are"):
        caption({"model": Speaker(SAID)}, planted(unreadable=(0, 1, 2, 3)))
    for nothing in (None, ("", "")):
        dataset = planted()
        dataset.split("test").captions = nothing
        with pytest.raises(ValueError, match="planted has no captions to compare with: take"):
            caption({"model": Speaker(SAID)}, dataset)
    with pytest.raises(ValueError, match="cannot be named 'shuffled'"):
        caption({"shuffled": Speaker(SAID)}, planted())
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ValueError, match=r"compared by rouge_score.* pip install 'esi-fast.eval.'"):
        caption({"model": Speaker(SAID)}, planted())


def as_tokenizers_write(text: str) -> str:
    for mark in "-:'(),":
        text = text.replace(mark, f" {mark} ")
    return " ".join(text.casefold().split()).replace(" ,", ",")


def test_every_sentence_that_states_a_concept_is_read():
    for name, concept in concepts().items():
        if concept.kind != "summary":
            for sentence in prompts_for(name):
                assert findings_in(sentence) == {name}, sentence
                assert findings_in(as_tokenizers_write(sentence)) == {name}, sentence


def test_values_and_descriptions_are_no_findings():
    for value in ("left axis -60 degrees.", "Prolonged QTc 520 ms.", "Heart rate 130 bpm (high)."):
        assert findings_in(value) == set()
    dictionary = CaptionDictionary(
        [
            Description(
                "premature ventricular complexes", "premature_ventricular_complexes",
                "rhythm", "definite",
                text="Premature broad QRS with discordant T and no P wave that leads it.",
            )
        ]
    )  # fmt: skip
    values = {"heart_rate": 96, "pr": 260, "qrs": 140, "qtc_bazett": 520, "qrs_axis": -60}
    for seed in range(12):
        composed = compose(
            ["Sinus rhythm with PVCs", "cannot rule out inferior infarct, age undetermined"],
            measurements=values,
            age=80,
            sex="female",
            dictionary=dictionary,
            seed=seed,
            max_tokens=200,
        )
        assert "discordant" in composed.text
        assert " 260 ms" in composed.text
        for text in (composed.text, as_tokenizers_write(composed.text)):
            assert findings_in(text) == set(composed.findings), text
