"""tools/evaluate --resume: what is used again, what is scored anew, and what is said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_tool_evaluate import in_process, leave_out_pictures, make_story

import esi_fast
from esi_fast.models.esi import ESI

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_story(tmp_path_factory.mktemp("story"))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_pictures(monkeypatch)


def test_a_rerun_embeds_and_scores_nothing_twice(
    root: Path,
    story: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    common = ("--dataset", "shards", "--root", story / "shards", "--out", out, "--resamples", 5)
    first = (*common, "--seeds", 0, "--task", "zeroshot")
    assert in_process(root, "evaluate", story / "model", *first) == 0
    assert "zeroshot on shards" in capsys.readouterr().err
    times = {path: path.stat().st_mtime_ns for path in (out / "embeddings").iterdir()}
    assert len(times) == 2
    more = (*common, "--seeds", 0, "--task", "zeroshot,probe", "--resume")
    assert in_process(root, "evaluate", story / "model", *more) == 0
    said = capsys.readouterr().err
    assert f"zeroshot: from {out}" in said
    assert "probe on shards" in said
    after = {path: path.stat().st_mtime_ns for path in (out / "embeddings").iterdir()}
    assert times.items() < after.items()
    # Another contender: every task is scored again, what was embedded is not.
    compared = (*common, "--seeds", 0, "--task", "zeroshot", "--resume", "--against")
    assert in_process(root, "evaluate", story / "model", *compared, story / "model") == 0
    said = capsys.readouterr()
    assert "zeroshot on shards" in said.err
    assert "against (p 1.0000 after Holm)" in said.out
    report = json.loads((out / "report.json").read_text())
    assert list(report["tasks"]) == ["zeroshot"]
    assert report["contenders"]["against"] == str(story / "model")
    unchanged = {path: path.stat().st_mtime_ns for path in (out / "embeddings").iterdir()}
    assert unchanged == after
    assert in_process(root, "evaluate", story / "model", *first, "--overwrite") == 0
    assert not (out / "scores-probe.npz").exists()


def test_a_task_that_is_not_asked_for_again_stays(
    root: Path, story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    common = ("--dataset", "shards", "--root", story / "shards", "--out", out, "--resamples", 5)
    common = (*common, "--seeds", 0, "--task")
    assert in_process(root, "evaluate", story / "model", *common, "zeroshot") == 0
    assert in_process(root, "evaluate", story / "model", *common, "retrieval", "--resume") == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["tasks"]) == ["retrieval", "zeroshot"]
    assert "Scored by an earlier command: zeroshot." in report["notes"]
    capsys.readouterr()
    both = (*common, "zeroshot,retrieval", "--resume")
    assert in_process(root, "evaluate", story / "model", *both) == 0
    said = capsys.readouterr().err
    assert f"zeroshot: from {out}" in said
    assert f"retrieval: from {out}" in said
    report = json.loads((out / "report.json").read_text())
    assert list(report["tasks"]) == ["zeroshot", "retrieval"]
    assert not any("earlier command" in note for note in report["notes"])


def test_another_version_scores_anew_and_says_so(
    root: Path,
    story: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "out"
    given = ("--dataset", "shards", "--root", story / "shards", "--out", out, "--resamples", 5)
    given = (*given, "--seeds", 0, "--task", "zeroshot", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(esi_fast, "__version__", "0.0.1", raising=False)
        assert in_process(root, "evaluate", story / "model", *given) == 0
        capsys.readouterr()
        assert in_process(root, "evaluate", story / "model", *given) == 0
        assert f"zeroshot: from {out}" in capsys.readouterr().err
    embedded = set((out / "embeddings").iterdir())
    assert in_process(root, "evaluate", story / "model", *given) == 0
    said = capsys.readouterr().err
    assert f"{out} is of esi_fast 0.0.1: {esi_fast.__version__} scores it anew\n" in said
    assert "zeroshot on shards" in said
    assert len(set((out / "embeddings").iterdir()) - embedded) == len(embedded)
    versions = json.loads((out / "report.json").read_text())["versions"]
    assert versions["esi-fast"] == esi_fast.__version__


def test_a_training_record_that_can_be_read_again_is_learned_from(
    root: Path, story: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shards, out = shutil.copytree(story / "shards", tmp_path / "shards"), tmp_path / "out"
    given = ("--dataset", "shards", "--root", shards, "--out", out, "--resamples", 5)
    given = (*given, "--seeds", 0, "--task", "probe", "--resume")
    tar = shards / "train-000000.tar"
    whole = tar.read_bytes()
    damaged = bytearray(whole)
    damaged[1000] ^= 1  # within the first sample's signal
    tar.write_bytes(damaged)
    assert in_process(root, "evaluate", story / "model", *given) == 0
    (key,) = json.loads((out / "scores-probe.json").read_text())["errors"]
    capsys.readouterr()
    assert in_process(root, "evaluate", story / "model", *given) == 0
    assert f"probe: from {out}" in capsys.readouterr().err
    tar.write_bytes(whole)
    assert in_process(root, "evaluate", story / "model", *given) == 0
    assert "probe on shards" in capsys.readouterr().err
    assert key not in (out / "scores-probe.json").read_text()


def test_scores_of_another_model_are_not_resumed_and_an_impossible_task_loses_no_other(
    root: Path,
    story: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "out"
    common = ("--dataset", "shards", "--root", story / "shards", "--resamples", 5, "--seeds", 0)
    common = (*common, "--out", out)
    given = (*common, "--task", "zeroshot,retrieval")
    assert in_process(root, "evaluate", story / "model", *given) == 0
    other = tmp_path / "other"
    ESI.from_pretrained(story / "model").untrained_copy(7).save_pretrained(other)
    # The second task of the other model fails: what the first model scored is not its.
    monkeypatch.setattr(
        "esi_fast.evaluation.identify.identify", lambda *args, **kwargs: pytest.fail("was called")
    )

    def impossible(*_: object, **__: object) -> None:
        raise ValueError("no patient has two records")

    monkeypatch.setattr("esi_fast.evaluation.run.identify", impossible)
    both = (*common, "--task", "identify,zeroshot", "--resume")
    with pytest.raises(ValueError, match=r"identify: no patient has two records \(the other tasks"):
        in_process(root, "evaluate", other, *both)
    assert "identify is not possible: no patient has two records" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert report["model"]["path"] == str(other)
    assert list(report["tasks"]) == ["zeroshot"]
    assert "Task identify is not possible here: no patient has two records." in report["notes"]
    assert in_process(root, "evaluate", "--from-cache", "--out", out) == 0
    assert list(json.loads((out / "report.json").read_text())["tasks"]) == ["zeroshot"]
