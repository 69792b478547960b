"""What a run survives, and how it ends where it cannot: nothing of it is lost, and it says why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pretrain_runs import (
    STEPS,
    checkpoints,
    command,
    environment,
    losses,
    make_recipe,
    make_shards,
    pretrain,
)

from esi_fast.models.esi import ESI
from esi_fast.training.checkpoint import load_weights, made_by

pytestmark = pytest.mark.dist


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("pretrain_faults"))


@pytest.fixture(scope="module")
def recipe(shards: Path) -> Path:
    return make_recipe(shards)


@pytest.fixture
def start(root: Path) -> Iterator[object]:
    """Starts a run and lets it come to a step; whatever is left of it in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(run: Path, steps: int, *arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(root, *arguments, "--out", run),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 200
        metrics = run / "metrics.jsonl"
        while not (metrics.exists() and len(metrics.read_text().splitlines()) >= steps):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The ranks that a launcher has started."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any(part.endswith("pretrain.py") for part in child.cmdline())
        and "launcher" not in " ".join(child.cmdline())
    ]


def test_sigterm_saves_and_the_resumed_run_is_the_undisturbed_one(
    start, shards: Path, recipe: Path, root: Path
) -> None:
    arguments = ("--recipe", recipe, "--data.shards", shards)
    whole, run = shards.parent / "undisturbed", shards.parent / "terminated"
    done = pretrain(root, *arguments, "--out", whole, "--train.save-every", "100")
    assert done.returncode == 0, done.stderr[-3000:]
    process = start(run, 2, *arguments, "--train.save-every", "100")
    for worker in workers(process):
        worker.terminate()
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told[-3000:]
    stopped = max(losses(run))
    assert 2 <= stopped < STEPS
    assert f"stopped by SIGTERM after step {stopped}" in told
    assert f"step-{stopped:08d}" in checkpoints(run)
    done = pretrain(
        root, *arguments, "--out", run, "--train.save-every", "100", "--resume", "latest"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == losses(whole)
    validated = [(folder / "validation.jsonl").read_text() for folder in (whole, run)]
    assert validated[0] == validated[1]
    assert (run / "checkpoints" / "best").read_text() == (
        (whole / "checkpoints" / "best").read_text()
    )


def test_a_lost_rank_ends_the_others(start, shards: Path, recipe: Path) -> None:
    process = start(shards.parent / "lost", 2, "--recipe", recipe, "--data.shards", shards)
    ranks = workers(process)
    assert len(ranks) == 2
    ranks[1].kill()
    told, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert f"exits with return code = -{int(signal.SIGKILL)}" in told
    assert "rank 0 has lost another rank" in told
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive


def test_a_checkpoint_that_does_not_say_who_made_it_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    for text in (None, "", "{}", '{"processes": "x", "records": 1}'):
        if text is not None:
            (folder / "made_by.json").write_text(text)
        with pytest.raises(ValueError, match="checkpoint step-00000001 was made by an earlier"):
            made_by(tmp_path, "step-00000001")


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_records(
    shards: Path, recipe: Path, root: Path
) -> None:
    run = shards.parent / "diverged"
    done = pretrain(
        root, "--recipe", recipe, "--data.shards", shards, "--out", run, "--optim.lr", "1e30",
        "--optim.warmup-epochs", "0", "--train.log-every", "6", "--train.save-every", "6",
        "--train.validate-every", "0", launcher="python",
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "nonfinite.json" in done.stderr
    assert not (run / "checkpoints").exists()
    said = json.loads((run / "nonfinite.json").read_text())
    assert 2 <= said["step"] <= 6
    assert f"at step {said['step']}" in done.stderr
    (records,) = said["records"].values()
    assert len(records) == 4
    assert all(name.isdecimal() for name in records)


def test_another_number_of_processes_goes_on_and_a_full_disk_spoils_nothing(
    shards: Path, recipe: Path, root: Path
) -> None:
    run = shards.parent / "converted"
    arguments = ("--recipe", recipe, "--data.shards", shards, "--out", run)
    same = ("--model.drop-path", "0", "--data.sentence-sampling", "0")
    epochs = ("--train.epochs", "0.4")
    done = pretrain(root, *arguments, *same, *epochs)
    assert done.returncode == 0, done.stderr[-3000:]
    first = len(losses(run))
    longer = (*arguments, *same, "--resume", "latest", "--train.epochs", "0.7")

    refused = pretrain(root, *longer, launcher="python")
    assert refused.returncode == 2
    assert "with --data.batch-size 8 on each of 1" in refused.stderr

    # What made the checkpoint counts, not what has last tried to go on from it.
    environment_file = json.loads((run / "env.json").read_text())
    (run / "env.json").write_text(json.dumps(environment_file | {"world_size": 1}))
    assert made_by(run, checkpoints(run)[-1]) == (2, 8)

    before = checkpoints(run)
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash"]  # blocks of 1024 bytes
    full = subprocess.run(
        [*limited, *command(root, *longer, "--data.batch-size", "8", launcher="python")],
        capture_output=True, text=True, env=environment(), timeout=300,
    )  # fmt: skip
    assert full.returncode == 1
    assert checkpoints(run) == before

    copy = run.with_name("converted_by_two")
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    alone = pretrain(root, *longer, "--data.batch-size", "8", launcher="python")
    assert alone.returncode == 0, alone.stderr[-3000:]
    arguments = ("--recipe", recipe, "--data.shards", shards, "--out", copy)
    both = pretrain(root, *arguments, *same, "--resume", "latest", "--train.epochs", "0.7")
    assert both.returncode == 0, both.stderr[-3000:]
    assert len(losses(run)) == len(losses(copy)) > first
    for step, told in losses(copy).items():
        assert losses(run)[step] == pytest.approx(told, rel=1e-4), step


@pytest.mark.parametrize("stage", [0, 3])
def test_other_zero_stages_train_validate_and_export(
    stage: int, shards: Path, recipe: Path, root: Path
) -> None:
    run, config = shards.parent / f"stage_{stage}", shards.parent / f"stage_{stage}.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    done = pretrain(
        root, "--recipe", recipe, "--data.shards", shards, "--out", run,
        "--deepspeed-config", config, "--train.epochs", "0.5", "--train.validate-every", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(run)) >= 2
    assert (run / "validation.jsonl").read_text().count("\n") >= 1
    assert (run / "checkpoints" / "best").is_file()
    weights, _ = load_weights(run)
    model = ESI.from_architecture(run / "model")
    model.load_state_dict(weights)
