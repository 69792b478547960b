"""What is kept of an evaluation: it comes back whole, or one line says what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import PlantedModel, planted_dataset, planted_split
from evaluation_results import label_result, pair_result, query_result, write_evaluation

from esi_fast.evaluation.cache import has_result, read_context, read_result, write_result
from esi_fast.evaluation.embed import still_unreadable
from esi_fast.evaluation.embedding_cache import CachedEmbedder, weights_digest
from esi_fast.evaluation.report import make_report, read_report

RESULTS = (label_result, query_result, pair_result)


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("make", RESULTS)
def test_a_result_comes_back_as_it_was(tmp_path: Path, make):
    result = make()
    write_result(tmp_path, result)
    back = read_result(tmp_path, result.task)
    assert type(back) is type(result)
    for field in dataclasses.fields(result):
        assert_equal(getattr(result, field.name), getattr(back, field.name))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"scores-{result.task}.json",
        f"scores-{result.task}.npz",
    ]


def test_the_reports_are_made_again_from_the_cache_alone(tmp_path: Path):
    write_evaluation(tmp_path, *(make() for make in RESULTS))
    names = ("report.json", "report.md", "report.html")
    first = make_report(tmp_path, command="tools/evaluate models/demo")
    before = {name: (tmp_path / name).read_text() for name in names}
    pictures = {p.name: p.read_bytes() for p in (tmp_path / "figures").iterdir()}
    again = make_report(tmp_path, command="tools/evaluate --from-cache")
    for name in names:
        text = (tmp_path / name).read_text().replace(again["command"], first["command"])
        assert text.replace(again["date"], first["date"]) == before[name]
    assert {p.name: p.read_bytes() for p in (tmp_path / "figures").iterdir()} == pictures
    assert read_report(tmp_path) == again


def test_a_task_counts_as_done_only_for_the_same_request_and_whole_files(tmp_path: Path):
    result = query_result()
    assert not has_result(tmp_path, "identify", "x")
    write_result(tmp_path, result, request="x")
    assert has_result(tmp_path, "identify", "x")
    assert not has_result(tmp_path, "identify", "y")
    (tmp_path / "scores-identify.npz").write_bytes(b"torn")
    assert not has_result(tmp_path, "identify", "x")


def test_missing_or_damaged_files_are_one_line(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"evaluation\.json does not exist; run tools/eval"):
        make_report(tmp_path, command="")
    write_evaluation(tmp_path, label_result())
    arrays, about = tmp_path / "scores-probe.npz", tmp_path / "scores-probe.json"
    whole, described = arrays.read_bytes(), about.read_text()
    arrays.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"scores-probe\.npz is damaged, or of another run"):
        make_report(tmp_path, command="")
    arrays.unlink()
    with pytest.raises(FileNotFoundError, match=r"scores-probe\.npz does not exist"):
        make_report(tmp_path, command="")
    arrays.write_bytes(whole)
    wrong = json.loads(described)
    for text, message in {
        "{": "is not a cached result",
        '{"format_version": 1}': "has format version 1, this code reads 2; evaluate again",
        '{"format_version": 2}': "it lacks details, kind, request",
        json.dumps(wrong | {"contenders": ["a", "b", "c"]}): "is no cached result: 'scores_2",
        json.dumps(wrong | {"kind": "Other"}): "is no cached result: 'Other'",
    }.items():
        about.write_text(text)
        with pytest.raises(ValueError, match=message):
            make_report(tmp_path, command="")
    about.unlink()
    with pytest.raises(FileNotFoundError, match=r"scores-probe\.json does not exist"):
        make_report(tmp_path, command="")
    (tmp_path / "evaluation.json").write_text('{"format_version": 2, "tasks": []}')
    with pytest.raises(ValueError, match="holds no whole evaluation: 'settings'"):
        make_report(tmp_path, command="")


def test_nan_scores_are_named(tmp_path: Path):
    result = label_result()
    result.scores["random-0"][7, 1] = np.nan
    write_evaluation(tmp_path, result)
    with pytest.raises(ValueError, match="random-0 for label 'sinus_rhythm', record r007, is nan"):
        make_report(tmp_path, command="")
    assert not (tmp_path / "report.json").exists()


def test_details_that_are_no_json_are_refused(tmp_path: Path):
    result = dataclasses.replace(label_result(), details={"x": np.ones(2)})
    with pytest.raises(ValueError, match="result of probe is not JSON-ready"):
        write_result(tmp_path, result)
    result = dataclasses.replace(label_result(), details={"x": float("nan")})
    with pytest.raises(ValueError, match="result of probe is not JSON-ready"):
        write_result(tmp_path, result)


def test_the_context_comes_back(tmp_path: Path):
    write_evaluation(tmp_path, label_result())
    assert read_context(tmp_path)["tasks"] == ["probe"]


def embedder(folder: Path, model: PlantedModel, values: np.ndarray, identity: str = "m"):
    labels = np.ones((len(values), 1))
    dataset = planted_dataset(
        [planted_split("test", values, labels, unreadable={2: "torn"})], {"a": ["a"]}
    )
    return CachedEmbedder(model, dataset, batch_size=4, folder=folder, identity=identity)


def test_embeddings_are_made_once_for_a_model_and_its_records(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(6, 12)).astype("f4")
    first, second, other, fewer, torn = (PlantedModel() for _ in range(5))
    made = embedder(tmp_path, first, values).ecg("test")
    assert made.errors == {"test-0002": "torn"}
    found = embedder(tmp_path, second, values).ecg("test")
    assert (first.batches, second.batches) == ([3, 2], [])
    for field in dataclasses.fields(made):
        assert_equal(getattr(made, field.name), getattr(found, field.name))
    # A record that can be read by now is embedded, with all of its split.
    labels, again = np.ones((len(values), 1)), PlantedModel()
    whole = planted_dataset([planted_split("test", values, labels)], {"a": ["a"]})
    cached = CachedEmbedder(again, whole, batch_size=4, folder=tmp_path, identity="m")
    assert cached.ecg("test").errors == {}
    assert again.batches == [4, 2]
    made = embedder(tmp_path, PlantedModel(), values, identity="m2").ecg("test")
    embedder(tmp_path, other, values, identity="n").ecg("test")
    embedder(tmp_path, fewer, values[:5]).ecg("test")
    assert (other.batches, fewer.batches) == ([3, 2], [3, 1])
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    again = embedder(tmp_path, torn, values).ecg("test")
    assert torn.batches == [3, 2]
    assert_equal(again.values, made.values)
    assert not list(tmp_path.glob("*.partial"))


def test_what_could_not_be_read_is_tried_again_a_few_at_a_time():
    values, labels = np.zeros((500, 12), np.float32), np.ones((500, 1))
    asked: list[int] = []

    def tried(bad: range) -> bool:
        split = planted_split("test", values, labels, unreadable=dict.fromkeys(bad, "away"))

        def read(rows: Sequence[int]):
            asked.append(len(rows))
            return split.read(rows)

        asked.clear()
        return still_unreadable(dataclasses.replace(split, read=read), split.keys[:400])

    assert tried(range(400))
    assert (sum(asked), max(asked)) == (400, 64)
    assert not tried(range(100))
    assert sum(asked) == 128


def test_the_digest_is_of_weights_and_configuration(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors"):
        weights_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    first = weights_digest(tmp_path)
    (tmp_path / "README.md").write_text("a card changes nothing")
    assert weights_digest(tmp_path) == first
    (tmp_path / "config.json").write_text('{"fs": 100}')
    assert weights_digest(tmp_path) != first
