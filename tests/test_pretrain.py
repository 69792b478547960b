"""The real loop: the launcher, two processes, a kill, an exact resume, export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretrain_runs import (
    STEPS,
    checkpoints,
    command,
    environment,
    free_port,
    losses,
    make_recipe,
    make_shards,
    pretrain,
)

from esi_fast.config import DataConfig, Invocation
from esi_fast.models.esi import ESI
from esi_fast.pretrain.parts import cannot_validate


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture(scope="module")
def recipe(shards: Path) -> Path:
    return make_recipe(shards)


@pytest.fixture(scope="module")
def finished(shards: Path, recipe: Path, root: Path) -> Path:
    run = shards.parent / "run"
    done = pretrain(
        root, "--recipe", recipe, "--data.shards", shards, "--out", run, "--profile", "2:3"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return run


@pytest.mark.dist
def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {"recipe.toml", "env.json", "metrics.jsonl", "log.txt", "checkpoints", "model"}
    steps = losses(finished)
    assert list(steps) == list(range(1, STEPS + 1))
    assert "eta" in (finished / "log.txt").read_text()
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"lr", "samples_per_s", "data_wait", "logit_scale", "tokens_per_s", "memory_gib"} <= (
        set(last)
    )
    assert 0 <= last["padding"] < 1  # captions are cut to 24 tokens, so that most are as long
    assert list((finished / "tensorboard").glob("events.*"))
    trace = json.loads((finished / "profile-2-3.json").read_text())
    assert trace["traceEvents"]
    assert "Self CPU" in (finished / "profile-2-3.txt").read_text()


@pytest.mark.dist
def test_it_is_validated_and_the_best_checkpoint_stays(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    names = {"loss", "contrastive", "captioning", "ecg_to_text_recall@10", "text_to_ecg_recall@1"}
    for line in lines:
        assert names <= set(line)
        assert line["loss"] == pytest.approx(line["contrastive"] + line["captioning"])
    best = min(lines, key=lambda line: line["loss"])["step"]
    assert (finished / "checkpoints" / "best").read_text() == f"step-{best:08d}"
    assert checkpoints(finished) == sorted({"step-00000006", "step-00000008", f"step-{best:08d}"})


@pytest.mark.dist
def test_killed_and_resumed_it_takes_the_same_steps(
    finished: Path, shards: Path, recipe: Path, root: Path
) -> None:
    run = shards.parent / "killed"
    arguments = ("--recipe", recipe, "--data.shards", shards, "--out", run)
    process = subprocess.Popen(
        command(root, *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    metrics = run / "metrics.jsonl"
    # Past the first checkpoint, before the second.
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(losses(run)) < STEPS

    refused = pretrain(root, *arguments, launcher="python")
    assert refused.returncode == 2
    assert f"run folder {run} exists" in refused.stderr

    done = pretrain(root, *arguments, "--resume", "latest")
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(run) == losses(finished)


@pytest.mark.dist
def test_the_export_loads_without_deepspeed(finished: Path, root: Path) -> None:
    out = finished.parent / "model"
    shutil.rmtree(out, ignore_errors=True)
    tool = [sys.executable, str(root / "tools" / "export"), str(finished), "--out", str(out)]
    done = subprocess.run(tool, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    model = ESI.from_pretrained(out)
    assert model.config.fs == 100
    assert model.encode_ecg(torch.randn(2, 12, 500)).shape == (2, 32)
    card = (out / "README.md").read_text()
    assert "Not a medical device" in card
    assert "step-00000008" in card
    again = subprocess.run(tool, capture_output=True, text=True, env=environment())
    assert again.returncode == 2
    assert "exists" in again.stderr

    cut = finished.parent / "cut"
    shutil.copytree(finished, cut)
    for path in (cut / "checkpoints" / "step-00000008").glob("*optim_states*"):
        path.write_bytes(path.read_bytes()[:1000])
    tool[2:] = [str(cut), "--out", str(finished.parent / "never")]
    damaged = subprocess.run(tool, capture_output=True, text=True, env=environment())
    assert damaged.returncode == 1
    assert "checkpoint step-00000008" in damaged.stderr
    assert "is damaged" in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert not (finished.parent / "never").exists()


@pytest.mark.dist
def test_plain_python_needs_no_launcher_and_a_missing_val_split_is_said(
    recipe: Path, root: Path, tmp_path: Path
) -> None:
    shards, run = make_shards(tmp_path, val_fraction=0.0), tmp_path / "alone"
    arguments = ("--recipe", recipe, "--data.shards", shards, "--out", run, "--train.epochs", "0.2")
    done = pretrain(root, *arguments, launcher="python")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(run)) >= 1
    said = (run / "log.txt").read_text()
    assert "warning: not validated, and no checkpoint will be the best: the shards have no" in said
    assert not (run / "checkpoints" / "best").exists()


def test_streams_have_nothing_to_be_validated_on() -> None:
    invocation = Invocation(data=DataConfig(shards=("https://lab/train-000000.tar",)))
    assert cannot_validate(invocation) == "streams have no val split"


@pytest.mark.dist
def test_two_nodes_take_the_steps_of_one(
    finished: Path, shards: Path, recipe: Path, root: Path, tmp_path: Path
) -> None:
    """One process on each of two nodes, which are two names of this machine."""
    (tmp_path / "hosts").write_text("127.0.0.1 slots=1\n127.0.0.2 slots=1\n")
    run = tmp_path / "run"
    nodes = ["--hostfile", str(tmp_path / "hosts"), "--no_ssh", "--master_addr", "127.0.0.1"]
    nodes += ["--master_port", str(free_port())]
    program = Path(sys.executable).with_name("deepspeed")
    tool = [root / "tools" / "pretrain.py", "--recipe", recipe, "--data.shards", shards]
    started = [
        subprocess.Popen(
            [program, *nodes, "--node_rank", node, *tool, "--out", run],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        for node in "01"
    ]
    for node in started:
        printed, _ = node.communicate(timeout=300)
        assert node.returncode == 0, printed[-3000:]
    assert losses(run) == losses(finished)


@pytest.mark.dist
def test_parts_and_recomputation_change_no_loss(shards: Path, recipe: Path, root: Path) -> None:
    """GradCache and activation checkpointing under the engine: the same run, but for rounding."""
    runs = {}
    for name, flags in {
        "plain": (),
        "parts": ("--train.micro-batches", "2"),
        "recomputed": ("--train.checkpoint-activations", "True"),
        "sigmoid": ("--train.contrast", "sigmoid", "--model.pooling", "attention"),
    }.items():
        run = shards.parent / f"of_{name}"
        done = pretrain(
            root, "--recipe", recipe, "--data.shards", shards, "--out", run,
            "--model.drop-path", "0", "--train.epochs", "0.3", *flags, launcher="python",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        runs[name] = losses(run)
    validated = {
        name: json.loads((shards.parent / f"of_{name}" / "validation.jsonl").read_text())
        for name in runs
    }
    # Validation has the recipe's own loss.
    softmax = validated["plain"]["contrastive"]
    assert validated["sigmoid"]["contrastive"] != pytest.approx(softmax, rel=0.5)
    assert validated["recomputed"] == validated["plain"]
    assert len(runs["plain"]) >= 3
    assert runs["recomputed"] == runs["plain"]
    for step, (contrastive, captioning) in runs["plain"].items():
        assert runs["parts"][step] == pytest.approx((contrastive, captioning), rel=2e-4)
        # Every pair by itself, bias -10: nearly one miss a record.
        assert runs["sigmoid"][step][0] != pytest.approx(contrastive, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{tmp}/run"], "--data.shards is missing"),
        (["--out", "{tmp}/run", "--data.shards", "{tmp}"], "is not a finished shard folder"),
        (["--out", "{tmp}", "--resume", "latest", "--data.shards", "{shards}"], "not a run folder"),
        (["--out", "{tmp}/run", "--recipe", "nothing"], "recipe nothing does not exist"),
        (["--out", "{tmp}/run", "--data.shards", "{shards}", "--profile", "3"], "give FIRST:LAST"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(
    arguments: list[str], message: str, shards: Path, root: Path, tmp_path: Path
) -> None:
    filled = [item.format(tmp=tmp_path, shards=shards) for item in arguments]
    done = pretrain(root, *filled, launcher="python")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
