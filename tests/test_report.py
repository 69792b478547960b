"""What an evaluation and a run leave behind: numbers that agree, and a page that stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluation_results import (
    STRENGTHS,
    label_result,
    pair_result,
    query_result,
    write_evaluation,
)

from esi_fast.evaluation.document import Document, Section, Table, write_document
from esi_fast.evaluation.figures import shown_contenders
from esi_fast.evaluation.report import make_report, read_report, report_lines
from esi_fast.evaluation.report_details import detail_lines, detail_tables
from esi_fast.evaluation.report_sections import format_interval
from esi_fast.evaluation.titles import measure_title, task_text, task_title
from esi_fast.evaluation.worst_errors import worst_errors
from esi_fast.plot_curves import Panel, plot_confusion, plot_panels, plot_reliability


def evaluate(out: Path, *results):
    write_evaluation(out, *(results or (label_result(), query_result(), pair_result())))
    return make_report(out, command="tools/evaluate models/demo --out 'my <out>'")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result of every kind and its reports."""
    out = tmp_path_factory.mktemp("evaluated")
    evaluate(out)
    return out


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time."""
    monkeypatch.setattr("esi_fast.evaluation.report.task_pictures", lambda result, task: ())


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


def test_the_reports_hold_every_finding_and_the_numbers_of_report_json(evaluated: Path):
    report = read_report(evaluated)
    task = report["tasks"]["probe"]
    # Forest, ROC, precision-recall, calibration, confusion; and the ROC of verification.
    html = assert_self_contained(evaluated / "report.html", num_pictures=6)
    text, markdown = ((evaluated / f"report.{kind}").read_text() for kind in ("html", "md"))
    for contender in task["contenders"].values():
        for interval in contender["macro"].values():
            assert format_interval(interval) in html.cells
            assert format_interval(interval) in markdown
    for label, row in task["labels"].items():
        assert row["title"] in html.cells
        assert row["title"].replace("|", r"\|") in markdown
        for interval in task["contenders"]["model"]["labels"][label].values():
            assert format_interval(interval) in html.cells
            assert (interval["value"] is None) == (label == "never_seen")
    for name in ("identify", "verify"):
        for contender in report["tasks"][name]["contenders"].values():
            for interval in contender["measures"].values():
                assert format_interval(interval) in html.cells
    for task in report["tasks"].values():
        for interval in task["comparisons"]["random-0"]["differences"].values():
            assert format_interval(interval) in html.cells
    assert "not in the macro means: no training record" in html.cells
    assert "not in the macro means: 3 patients with it, fewer than 6" in html.cells
    assert "labels shuffled" in html.cells
    assert "score: low|voltage (5)." in text  # too few positives
    assert "torn &lt;file&gt;" in text
    assert "A note on &lt;protocol&gt;." in text
    assert "No page is drawn: no task of labels has an error to show" in text
    for name in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (evaluated / name).read_bytes().startswith(b"\x89PNG")
    # The cells of a Markdown row are as many as its header's, in every table.
    tables = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE)
    assert len(tables) == 10
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.mark.usefixtures("no_pictures")
def test_the_report_says_by_itself_that_a_set_is_small(tmp_path: Path):
    evaluate(tmp_path / "small")
    small = (tmp_path / "small/report.md").read_text()
    assert re.search(
        r"Linear probe: 90 records of 45 patients; 2 of 4 labels count in the macro means, 2 are "
        r"left out; the interval of macro AUROC of model is 0\.\d+ wide\. That is a small set",
        small,
    )
    assert "12 pairs of one patient and 132 of two, among 12 patients" in small
    assert "With fewer than 1,000 pairs of two patients, FAR 1e-3 allows none" in small
    evaluate(tmp_path / "large", label_result(n=4000, strengths={"model": 2.0}))
    large = (tmp_path / "large/report.md").read_text()
    assert "4000 records of 2000 patients" in large
    assert "That is a small set" not in large


@pytest.mark.usefixtures("no_pictures")
def test_counts_say_where_their_thresholds_come_from(tmp_path: Path):
    result = label_result()
    report = evaluate(tmp_path / "own", result)
    confusion = report["tasks"]["probe"]["confusion"]
    assert confusion["chosen_on"] == "test"
    row = confusion["labels"]["sinus_rhythm"]
    called = result.scores["model"][:, 1] >= row["threshold"]
    assert row["true_positives"] == int((called & result.labels[:, 1]).sum())
    assert row["false_positives"] == int((called & ~result.labels[:, 1]).sum())
    counts = {name: value for name, value in row.items() if name != "threshold"}
    assert sum(counts.values()) == 90
    assert "the counts are optimistic" in (tmp_path / "own/report.md").read_text()
    result.details["thresholds"] = {"model": {"sinus_rhythm": 0.0, "never_seen": 0.5}}
    report = evaluate(tmp_path / "val", result)
    confusion = report["tasks"]["probe"]["confusion"]
    assert confusion["chosen_on"] == "val"
    assert list(confusion["labels"]) == ["sinus_rhythm"]
    assert confusion["labels"]["sinus_rhythm"]["false_negatives"] == 0
    assert confusion["labels"]["sinus_rhythm"]["true_negatives"] == 0
    assert "chosen on the validation patients" in (tmp_path / "val/report.md").read_text()
    assert "thresholds" not in report["tasks"]["probe"]["details"]


def test_report_json_is_strict_json_and_names_what_is_undefined(evaluated: Path):
    text = (evaluated / "report.json").read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    task = report["tasks"]["probe"]
    never = task["contenders"]["model"]["labels"]["never_seen"]
    assert never["auroc"] == {"value": None, "low": None, "high": None}
    assert task["labels"]["never_seen"]["positives"] == 0
    assert task["unreadable"] == {"r999": "torn <file>"}
    assert task["records"] == 90
    assert report["versions"]["torch"]
    assert report["command"].startswith("tools/evaluate")
    assert not list(evaluated.glob("*.partial"))


def test_the_terminal_gets_every_contender_with_its_test(evaluated: Path):
    report = read_report(evaluated)
    lines = report_lines(report)
    assert len(lines) == 6
    assert re.fullmatch(r"Linear probe: macro AUROC 0\.\d+ \[.*\] model", lines[0])
    assert re.fullmatch(r"Linear probe: .* random-0 \(p 0\.\d{4} after Holm\)", lines[1])
    assert re.fullmatch(r"Subject verification: equal error rate .* random-0", lines[5])


def test_intervals_in_words():
    assert format_interval({"value": 0.9124, "low": 0.88, "high": 0.94}) == "0.912 [0.880, 0.940]"
    assert format_interval({"value": None, "low": None, "high": None}) == "undefined"
    assert format_interval({"value": 0.5, "low": None, "high": None}) == "0.500 [no interval]"


def test_tasks_and_measures_in_words():
    assert task_title("probe") == "Linear probe"
    assert task_title("probe-10") == "Linear probe, 10 % of the training patients"
    assert task_text("probe-10") == task_text("probe")
    assert (task_title("new"), task_text("new"), measure_title("rank-1")) == ("new", "", "rank-1")


def test_absent_or_foreign_reports_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="run tools/evaluate first"):
        read_report(tmp_path)
    path = tmp_path / "report.json"
    foreign = dict.fromkeys(("{", "{}", "[1]"), "not an evaluation")
    foreign |= {'{"format_version": 9}': "version 9", '{"format_version": 2}': "has no tasks"}
    for text, message in foreign.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_report(tmp_path)


def test_a_picture_shows_four_contenders_at_most_and_random_ones_last():
    names = ("model", "random-0", "random-1", "random-2", "against", "xresnet1d101")
    assert shown_contenders(names) == ["model", "against", "xresnet1d101", "random-0"]
    assert shown_contenders(STRENGTHS) == ["model", "random-0"]


@pytest.mark.usefixtures("no_pictures")
def test_the_worst_errors_are_drawn(tmp_path: Path):
    result = label_result()
    asked = []

    def read(key: str) -> np.ndarray:
        asked.append(key)
        return np.zeros((12, 1000), np.float32)

    pages = worst_errors(result, read, fs=100.0)
    assert [page.name for page in pages] == [f"probe-error-{i}" for i in (1, 2, 3, 4)]
    common = np.argsort(-result.labels.sum(axis=0), kind="stable")[:2]
    expected = []
    for k in common:
        scores, positive = result.scores["model"][:, k], result.labels[:, k]
        expected += [
            result.keys[~positive][scores[~positive].argmax()],
            result.keys[positive][scores[positive].argmin()],
        ]
    assert asked == expected
    assert "and not labelled so" in pages[0].alt
    assert "and labelled so" in pages[1].alt
    assert all(page.png.startswith(b"\x89PNG") for page in pages)
    write_evaluation(tmp_path, result)
    make_report(tmp_path, command="", errors=pages)
    assert_self_contained(tmp_path / "report.html", num_pictures=4)


def test_a_label_without_an_error_has_no_page():
    result = label_result()
    result.scores["model"][:, :3] = result.labels[:, :3]
    assert worst_errors(result, lambda key: pytest.fail("was read"), fs=100.0) == ()


def test_figures_refuse_what_they_cannot_draw():
    line = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="0 panels"):
        plot_panels([], xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="5 curves: one to four"):
        plot_panels([Panel("", {str(i): line for i in range(5)})], xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="0 reliability curves"):
        plot_reliability({})
    with pytest.raises(ValueError, match="0 tables"):
        plot_confusion([])


def test_a_panel_shows_its_curves_and_its_chance():
    line = (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.9, 1.0]))
    figure = plot_panels(
        [Panel("a $b", {"one": line}, chance=0.3), Panel("c", {"one": line, "two": line})],
        xlabel="x", ylabel="y",
    )  # fmt: skip
    first, second = figure.axes
    assert [list(drawn.get_ydata()) for drawn in first.lines] == [[0.3, 0.3], [0.0, 0.9, 1.0]]
    assert len(second.lines) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_text_from_records_cannot_become_markup(tmp_path: Path):
    nasty = '<script src="http://x"></script> a|b'
    table = Table(("k",), ((nasty,),))
    document = Document("<t>", (Section("<s>", (nasty,), (table,)),), (nasty,))
    write_document(document, tmp_path)
    page = References((tmp_path / "report.html").read_text())
    assert "script" not in page.tags
    assert page.cells == [nasty]
    assert r"a\|b |" in (tmp_path / "report.md").read_text()


def test_what_a_task_notes_of_its_contenders_is_a_table_of_the_report() -> None:
    task = {
        "details": {
            "seed": 3,
            "largest_concept_key": 7,
            "fits": {
                "model": {"c": 0.1, "scaled": True, "class_weight": None, "val_log_loss": {"": 1}},
                "random-0": {"c": 10.0, "scaled": False, "class_weight": "balanced"},
            },
            "prompts": {"AFIB": ["Atrial fibrillation.", "AF."]},
            "finetuned": {"mode": "full", "training": {"lr": 0.001}, "train_loss": [0.5, 0.4]},
            "measurements": {"seed": 0, "trees": {"AFIB": 12}},
            "empty": {},
        }
    }
    assert detail_lines(task) == ["seed: 3; largest concept key: 7."]
    assert detail_tables(task) == (
        Table(
            ("fits", "c", "scaled", "class weight"),
            (("model", "0.1", "yes", ""), ("random-0", "10", "no", "balanced")),
        ),
        Table(("prompts", ""), (("AFIB", "Atrial fibrillation. | AF."),)),
        Table(
            ("", "mode", "lr", "seed", "AFIB"),
            (
                ("finetuned", "full", "0.001", "", ""),
                ("measurements", "", "", "0", "12"),
                ("empty", "", "", "", ""),
            ),
        ),
    )
    assert detail_tables({"details": {"seed": 3}}) == ()


def test_who_took_part_in_no_task_is_not_listed(tmp_path: Path, no_pictures: None) -> None:
    write_evaluation(tmp_path, label_result())
    context = json.loads((tmp_path / "evaluation.json").read_text())
    context["contenders"]["absent"] = "somebody"
    (tmp_path / "evaluation.json").write_text(json.dumps(context))
    make_report(tmp_path, command="test")
    text = (tmp_path / "report.md").read_text()
    assert "| model |" in text
    assert "somebody" not in text
