"""tools/evaluate, tools/report and tools/plot as a user meets them, with a real, tiny model."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from shard_tree import build
from test_report import assert_self_contained

from esi_fast.cli import UsageError
from esi_fast.cqa.generate import describe_reports
from esi_fast.evaluation.closing import _record_section, held_out_record
from esi_fast.evaluation.datasets import DATASETS
from esi_fast.evaluation.figures import forest_picture
from esi_fast.evaluation.protocols import PROTOCOLS
from esi_fast.evaluation.request import Request, open_unseen
from esi_fast.evaluation.run import BASELINES, TASKS
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.record_batch import read_records
from esi_fast.signal.simulate_tree import write_tree


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_story(tmp_path_factory.mktemp("story"))


def make_story(base: Path) -> Path:
    """Simulated records, their shards, an untrained tiny model and a run's log, in one folder."""
    write_tree(base / "ecgs", 80, seed=3)
    statements = [line for entry in open_catalogue(base / "ecgs") for line in entry.statements]
    build(
        open_catalogue(base / "ecgs"),
        base / "shards",
        fs=100,
        val_fraction=0.2,
        test_fraction=0.4,
        captions=describe_reports([one] for one in statements),
        measure=False,
        workers=1,
    )
    config = ESIConfig(
        encoder="convnextv2_atto", fs=100.0, num_samples=1000, embed_dim=16, max_tokens=32,
        decoder_dim=16, decoder_layers=1, decoder_heads=2,
    )  # fmt: skip
    model = ESI.from_captions(config, statements, vocab_size=200, hidden=16, layers=1, heads=2)
    model.save_pretrained(base / "model")
    (base / "run").mkdir()
    lines = [
        {"step": s, "loss": 3.0 / s, "contrastive": 2.0 / s, "captioning": 1.0 / s, "lr": 1e-3,
         "samples_per_s": 100.0, "data_wait": 0.1} for s in range(1, 5)
    ]  # fmt: skip
    (base / "run/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (base / "run/recipe.toml").write_text("[model]\nencoder = 'convnextv2_atto'\n")
    return base


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_pictures(monkeypatch)


def leave_out_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time; another test has them."""
    monkeypatch.setattr("esi_fast.evaluation.report.task_pictures", lambda result, task: ())
    monkeypatch.setattr("esi_fast.evaluation.run.worst_errors", lambda *args, **kwargs: ())


def tool(root: Path, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "tools" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def in_process(root: Path, name: str, *arguments: object) -> int:
    """The tool's main, without the seconds that a new process takes to import everything."""
    status: int = runpy.run_path(str(root / "tools" / name))["main"]([*map(str, arguments)])
    return status


def test_the_whole_way_from_model_to_closing_report(
    root: Path,
    story: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    # One picture a task: the others take most of the time and are another test's.
    monkeypatch.setattr(
        "esi_fast.evaluation.report.task_pictures",
        lambda result, task: forest_picture(result.task, task),
    )
    out = tmp_path / "evaluation"
    flags = ("--dataset", "shards", "--root", story / "shards", "--out", out)
    options = ("--resamples", 50, "--min-positives", 1, "--seeds", 1)
    tasks = ("--task", "probe,zeroshot")
    assert in_process(root, "evaluate", story / "model", *flags, *options, *tasks) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^Zero-shot: macro AUROC 0\.\d+ \[.*\] model$", printed, re.MULTILINE)
    assert re.search(r"^Linear probe: macro AUROC .* random-0 \(p .* after Holm\)$", printed, re.M)
    report = json.loads((out / "report.json").read_text())
    index = json.loads((story / "shards/index.json").read_text())
    splits = {name: split["records"] for name, split in report["dataset"]["splits"].items()}
    assert splits == {name: index["counts"][name] for name in ("train", "val", "test")}
    zeroshot = report["tasks"]["zeroshot"]
    assert zeroshot["records"] == splits["test"]
    assert zeroshot["confusion"]["chosen_on"] == "val"
    assert report["model"]["config"]["encoder"] == "convnextv2_atto"
    assert "sinus_rhythm" in zeroshot["labels"]
    assert len(list((out / "embeddings").glob("*.npz"))) == 6
    assert (out / "figures/probe-error-1.png").is_file()
    with pytest.raises(UsageError, match="is not empty"):
        in_process(root, "evaluate", story / "model", *flags)

    # The reports again, of the cache alone, with the pages that the evaluation drew.
    (out / "embeddings").rename(tmp_path / "embeddings")
    assert in_process(root, "evaluate", "--from-cache", "--out", out) == 0
    again = json.loads((out / "report.json").read_text())
    assert again["command"] == report["command"]
    changed = {"report_command", "date"}
    assert {k: v for k, v in again.items() if k not in changed} == {
        k: v for k, v in report.items() if k not in changed
    }
    assert_self_contained(out / "report.html", count_pictures(out))

    closing = tmp_path / "report"
    folders = ("--run", story / "run", "--evaluation", out, "--shards", story / "shards")
    arguments = (*folders, "--model", story / "model", "--out", closing)
    assert in_process(root, "report", *arguments) == 0
    assert "macro AUROC" in capsys.readouterr().out
    # The curve of the run and the page of one record, and none of the worst errors.
    num_errors = (out / "report.md").read_text().count("-error-")
    page = assert_self_contained(closing / "report.html", count_pictures(out) - num_errors + 2)
    assert "caption the model generates" in page.cells
    assert "sinus rhythm" in page.cells
    text = (closing / "report.html").read_text()
    assert "Simulated recordings are test and demonstration data" in text
    assert "convnextv2_atto" in text
    assert (closing / "figures/page.png").is_file()
    with pytest.raises(
        ValueError, match=r"has not learned: zero-shot macro AUROC 0\.\d+, and not 2"
    ):
        in_process(root, "report", *arguments, "--overwrite", "--zero-shot-at-least", 2)


def test_the_closing_report_of_some_leads_names_them_as_they_are(story: Path, tmp_path: Path):
    leads = ("V1", "II", "I")
    catalogue = open_catalogue(story / "ecgs")
    shards = tmp_path / "shards"
    build(catalogue, shards, fs=100, test_fraction=0.4, measure=False, leads=leads)
    record = held_out_record(shards)
    assert record.leads == leads
    (entry,) = (entry for entry in catalogue if entry.key == record.key)
    whole = read_records([entry.path], fs=100).signal[0]
    np.testing.assert_allclose(record.signal, whole[[6, 1, 0]], atol=6e-4)
    heard: list[torch.Tensor] = []

    def speak(ecg_BLT: torch.Tensor) -> list[str]:
        heard.append(ecg_BLT)
        return ["sinus rhythm"]

    config = SimpleNamespace(fs=100.0, num_samples=1000)
    section = _record_section(record, SimpleNamespace(config=config, caption=speak))
    assert section.figures[0].name == "page"
    first, second, third, *_, chest = heard[0][0, :7].numpy()
    np.testing.assert_array_equal(np.stack([chest, second, first]), record.signal)
    np.testing.assert_allclose(third, second - first, atol=1e-6)
    assert heard[0][0, 7:].isnan().all()


def count_pictures(out: Path) -> int:
    return len(re.findall(r"!\[", (out / "report.md").read_text()))


@pytest.mark.usefixtures("without_pictures")
def test_what_an_evaluation_left_is_kept_until_another_can_run_and_nothing_else_is_touched(
    root: Path, story: Path, tmp_path: Path
):
    out = tmp_path / "out"
    common = ("--dataset", "shards", "--root", story / "shards", "--resamples", 5, "--seeds", 0)
    given = (*common, "--task", "zeroshot", "--out", out)
    assert in_process(root, "evaluate", story / "model", *given) == 0
    own = [out / "report.docx", out / "scores-exam.csv", out / "figures/mine.png",
           out / "embeddings/words.npz", out / "scores-mine.json"]  # fmt: skip
    for path in own:
        path.write_text("{}")
    # A dataset that cannot be opened: the old evaluation is still there.
    wrong = ("--dataset", "ludb", "--root", story / "shards", "--out", out, "--overwrite")
    with pytest.raises((ValueError, FileNotFoundError)):
        in_process(root, "evaluate", story / "model", *wrong)
    assert (out / "report.json").is_file()
    assert (out / "scores-zeroshot.npz").is_file()
    assert in_process(root, "evaluate", story / "model", *given, "--overwrite") == 0
    assert all(path.is_file() for path in own)
    # A folder that is no evaluation's is not written over.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/report.md").write_text("a thesis")
    elsewhere = (*common, "--out", tmp_path / "mine", "--overwrite")
    with pytest.raises(ValueError, match="mine holds no evaluation: give another folder"):
        in_process(root, "evaluate", story / "model", *elsewhere)
    assert (tmp_path / "mine/report.md").read_text() == "a thesis"


@pytest.mark.usefixtures("without_pictures")
def test_the_statistics_of_cached_scores_can_be_asked_for_anew(
    root: Path, story: Path, tmp_path: Path
):
    out = tmp_path / "out"
    common = ("--dataset", "shards", "--root", story / "shards", "--seeds", 0, "--out", out)
    given = (*common, "--task", "zeroshot", "--resamples", 5)
    assert in_process(root, "evaluate", story / "model", *given) == 0
    before = json.loads((out / "report.json").read_text())
    anew = ("--from-cache", "--out", out, "--resamples", 17, "--min-positives", 1)
    assert in_process(root, "evaluate", *anew) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["settings"] == {"resamples": 17, "seed": 0, "min_positives": 1}
    assert report["command"] == before["command"]
    assert "--resamples 17" in report["report_command"]
    assert before["command"] in (out / "report.md").read_text()
    for flags, said in ((("--task", "probe"), "--task"), (("--folds", "train=1"), "--folds")):
        with pytest.raises(UsageError, match=f"--from-cache takes no {said}"):
            in_process(root, "evaluate", "--from-cache", "--out", out, *flags)


def request_for(story: Path, split: str, **more: Any) -> Request:
    folders = {"root": story / "shards", "out": story / "none", "tasks": ("zeroshot",)}
    return Request(model=story / "model", dataset="shards", split=split, **folders, **more)


def test_patients_that_pretraining_saw_are_left_out_or_named(story: Path):
    seen = [story / "shards"]
    with pytest.raises(ValueError, match=r"in the pretraining shards .*: none is left to evaluate"):
        open_unseen(request_for(story, "val", pretrained_on=seen), 100.0, 1000)
    kept = open_unseen(request_for(story, "val", pretrained_on=seen, allow_leak=True), 100.0, 1000)
    assert kept.notes[-1].startswith("LEAK: ")
    assert kept.notes[-1].endswith("and were kept (--allow-leak).")
    unseen = open_unseen(request_for(story, "test", pretrained_on=seen), 100.0, 1000)
    assert "was compared with" in unseen.notes[-1]
    unknown = open_unseen(request_for(story, "test"), 100.0, 1000)
    assert "was not checked" in unknown.notes[-1]
    assert unseen.split("test").keys == unknown.split("test").keys


def test_a_folder_of_another_kind_is_refused(root: Path, story: Path, tmp_path: Path):
    flags = ("--dataset", "shards", "--out", tmp_path / "out", "--root")
    with pytest.raises(UsageError, match=r"run has no config\.json"):
        in_process(root, "evaluate", story / "run", *flags, story / "shards")
    with pytest.raises(FileNotFoundError, match=r"run has no index\.json"):
        in_process(root, "evaluate", story / "model", *flags, story / "run")
    with pytest.raises(UsageError, match="--device nonsense cannot be used"):
        in_process(
            root, "evaluate", story / "model", *flags, story / "shards", "--device", "nonsense"
        )
    assert not (tmp_path / "out").exists()


def test_reports_from_a_cache_need_a_cache_and_nothing_else(root: Path, tmp_path: Path):
    done = tool(root, "evaluate", "--from-cache", "--out", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "evaluation.json does not exist; run tools/evaluate first" in done.stderr
    done = tool(root, "evaluate", tmp_path, "--from-cache", "--out", tmp_path)
    assert done.returncode == 2
    assert "--from-cache takes no model: all but --resamples" in done.stderr
    done = tool(root, "evaluate", "--out", tmp_path)
    assert done.returncode == 2
    assert "model is missing (only --from-cache does without)" in done.stderr


def test_the_tool_offers_what_the_package_has(root: Path):
    """The tool repeats the names, so that --help need not load the package."""
    tool_names = runpy.run_path(str(root / "tools/evaluate"))
    assert tool_names["DATASETS"] == DATASETS
    assert tool_names["PROTOCOLS"] == PROTOCOLS
    assert set(tool_names["TASKS"]) == set(TASKS)
    assert tool_names["BASELINES"] == BASELINES


def test_the_report_tool_needs_its_folders(root: Path, story: Path, tmp_path: Path):
    common = ("--run", story / "run", "--shards", story / "shards", "--out", tmp_path / "out")
    done = tool(root, "report", *common, "--evaluation", tmp_path / "absent")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = tool(root, "report", *common, "--evaluation", tmp_path)
    assert done.returncode == 1
    assert "run tools/evaluate first" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_plot_tool_draws_a_record(root: Path, story: Path, tmp_path: Path):
    record = next((story / "ecgs").rglob("*.hea"))
    page = tmp_path / "page.pdf"
    done = tool(root, "plot", record, "--out", page)
    assert (done.returncode, done.stdout.strip()) == (0, str(page)), done.stderr
    assert page.read_bytes().startswith(b"%PDF")
    for arguments, message in (
        ((record, "--out", page), "exists"),
        ((record, "--out", tmp_path / "page.bmp"), "must end in one of .png, .pdf, .svg"),
        ((record, "--out", tmp_path / "no/page.png"), "does not exist"),
        ((tmp_path / "absent", "--out", tmp_path / "x.png"), "has no header file"),
    ):
        done = tool(root, "plot", *arguments)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert message in done.stderr


@pytest.mark.parametrize("name", ["evaluate", "report", "plot"])
def test_help_loads_nothing_heavy(root: Path, name: str):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", root / "tools" / name, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: tools/" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "esi_fast.cli" in loaded
    assert not {"torch", "numpy", "matplotlib", "sklearn", "transformers"} & loaded
