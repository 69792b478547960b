"""What an evaluation and a run leave behind: numbers that agree, and a page that stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluation_fakes import NoiseModel, PlantedModel, planted_dataset, planted_split

from esi_fast.evaluation.document import Document, Section, Table, write_document
from esi_fast.evaluation.embed import Embedder
from esi_fast.evaluation.metrics import Resampling, auroc
from esi_fast.evaluation.report import (
    evaluation_metrics,
    format_interval,
    macro_lines,
    read_metrics,
    write_evaluation,
)
from esi_fast.evaluation.zeroshot import zero_shot

PROMPTS = {"atrial_fibrillation": ["af"], "low|voltage": ["lv"], "never_seen": ["ns"]}
TEXTS = {"af": np.eye(12)[0], "lv": np.eye(12)[1], "ns": np.eye(12)[2]}


def evaluate(out: Path):
    rng = np.random.default_rng(1)
    labels = np.zeros((80, 3), bool)
    labels[:, 0] = rng.random(80) < 0.5
    labels[:5, 1] = True
    embeddings = (rng.normal(size=(80, 12)) + 2 * np.pad(labels, ((0, 0), (0, 9)))).astype("f4")
    split = planted_split("test", embeddings, labels, unreadable={79: "torn <file>"})
    dataset = planted_dataset([split], PROMPTS)
    result = zero_shot(
        Embedder(PlantedModel(TEXTS), dataset),
        Embedder(NoiseModel(TEXTS), dataset),
        resampling=Resampling(50),
    )
    metrics = evaluation_metrics(
        [result], dataset, root=Path("data"), model=Path("models/demo"), config={"fs": 100.0},
        command="tools/evaluate models/demo --out 'my <out>'",
    )  # fmt: skip
    write_evaluation(out, metrics, [result])
    return result


class References(HTMLParser):
    """Everything in a page that would make a browser fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset")]
        self._in_cell = tag == "td"
        if self._in_cell:
            self.cells.append("")

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag != "td"


def assert_self_contained(path: Path, num_pictures: int) -> References:
    page = path.read_text()
    found = References(page)
    assert len(found.sources) == num_pictures
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in found.sources)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert not re.search(r"url\(|@import|https?://", page)
    return found


def test_the_reports_hold_every_finding_and_the_numbers_of_metrics_json(tmp_path: Path):
    evaluate(tmp_path)
    metrics = read_metrics(tmp_path)
    trained = metrics["tasks"]["zeroshot"]["trained"]
    html = assert_self_contained(tmp_path / "report.html", num_pictures=1)
    markdown = (tmp_path / "report.md").read_text()
    for label, row in trained["per_label"].items():
        assert row["title"] in html.cells
        assert row["title"].replace("|", r"\|") in markdown
        shown = format_interval(row["auroc"])
        assert shown in html.cells
        assert shown in markdown
        assert (shown == "undefined") == (label == "never_seen")
    assert format_interval(trained["macro_auroc"]) in html.cells
    assert "not in the macro means: no positive record" in html.cells
    assert "low|voltage (5)" in (tmp_path / "report.html").read_text()  # too few positives
    assert "torn &lt;file&gt;" in (tmp_path / "report.html").read_text()
    for name in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    # The cells of a Markdown row are as many as its header's, in each of the three tables.
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert widths == [8] * 3 + [8] * 5 + [4] * 3


def test_metrics_json_is_strict_json_and_names_what_is_undefined(tmp_path: Path):
    evaluate(tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    task = metrics["tasks"]["zeroshot"]
    never = task["trained"]["per_label"]["never_seen"]
    assert never["auroc"] == {"value": None, "low": None, "high": None}
    assert never["positives"] == 0
    assert never["left_out"] == "no positive record"
    assert task["unreadable"] == {"test-0079": "torn <file>"}
    assert task["records"] == 79
    assert metrics["versions"]["torch"]
    assert metrics["command"].startswith("tools/evaluate")
    assert not list(tmp_path.glob("*.partial"))


def test_cached_predictions_give_the_reported_scores(tmp_path: Path):
    result = evaluate(tmp_path)
    with np.load(tmp_path / "predictions-zeroshot.npz") as cached:
        values = auroc(cached["trained"], cached["labels"])
        names = cached["label_names"].tolist()
        assert cached["keys"].tolist() == list(result.keys)
        assert len(cached["groups"]) == len(cached["keys"])
    per_label = read_metrics(tmp_path)["tasks"]["zeroshot"]["trained"]["per_label"]
    for name, value in zip(names, values, strict=True):
        expected = per_label[name]["auroc"]["value"]
        assert value == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


def test_the_terminal_gets_both_macro_aurocs(tmp_path: Path):
    result = evaluate(tmp_path)
    (line,) = macro_lines(read_metrics(tmp_path))
    assert f"{result.comparison.trained.macro_auroc.value:.3f} [" in line
    assert f"{result.comparison.untrained.macro_auroc.value:.3f} [" in line
    assert "79 records of 79 patients" in line


def test_intervals_in_words():
    assert format_interval({"value": 0.9124, "low": 0.88, "high": 0.94}) == "0.912 [0.880, 0.940]"
    assert format_interval({"value": None, "low": None, "high": None}) == "undefined"
    assert format_interval({"value": 0.5, "low": None, "high": None}) == "0.500 [no interval]"


def test_absent_or_foreign_metrics_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="run tools/evaluate first"):
        read_metrics(tmp_path)
    path = tmp_path / "metrics.json"
    foreign = dict.fromkeys(("{", "{}", "[1]"), "not an evaluation")
    for text, message in (foreign | {'{"format_version": 9}': "version 9"}).items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_metrics(tmp_path)


def test_text_from_records_cannot_become_markup(tmp_path: Path):
    nasty = '<script src="http://x"></script> a|b'
    table = Table(("k",), ((nasty,),))
    document = Document("<t>", (Section("<s>", (nasty,), (table,)),), (nasty,))
    write_document(document, tmp_path)
    page = References((tmp_path / "report.html").read_text())
    assert "script" not in page.tags
    assert page.cells == [nasty]
    assert r"a\|b |" in (tmp_path / "report.md").read_text()
