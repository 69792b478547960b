"""The real loop: the launcher, two processes, a kill, an exact resume, export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from shard_tree import build

from esi_fast.cqa.generate import describe_reports
from esi_fast.models.esi import ESI
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.simulate_tree import write_tree

STEPS = 8
RECIPE = """
[model]
encoder = "convnextv2_zepto"
drop_path = 0.1
embed_dim = 32
max_tokens = 24
text_model = "bert:32x1x300"
decoder_dim = 32
decoder_layers = 1

[data]
batch_size = 4

[optim]
lr = 1e-3
warmup_epochs = 0.1

[train]
epochs = {epochs}
log_every = 1
save_every = 3
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    write_tree(folder / "records", 60, seed=7, fs=250, duration=5)
    catalogue = open_catalogue(folder / "records")
    lines = [line for entry in catalogue for line in entry.statements]
    build(
        catalogue,
        folder / "shards",
        fs=100,
        duration=5.0,
        captions=describe_reports([line] for line in lines),
    )
    return folder / "shards"


@pytest.fixture(scope="module")
def recipe(shards: Path) -> Path:
    records = json.loads((shards / "index.json").read_text())["counts"]["train"]
    path = shards.parent / "recipe.toml"
    path.write_text(RECIPE.format(epochs=STEPS / (records // 8)))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(root: Path, *arguments: str | Path, launcher: str = "deepspeed") -> list[str]:
    tool = [str(root / "tools" / "pretrain.py"), *map(str, arguments)]
    if launcher == "python":
        return [sys.executable, *tool]
    address = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    program = Path(sys.executable).with_name("deepspeed")
    return [str(program), "--num_accelerators", "2", *address, *tool]


def environment() -> dict[str, str]:
    # No compiler may be needed: DeepSpeed must not build an op behind the user's back.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CXX": "/nonexistent"}
    return os.environ | settings | {"PATH": path}


def losses(run: Path) -> dict[int, tuple[float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: (line["contrastive"], line["captioning"]) for line in lines}


@pytest.fixture(scope="module")
def finished(shards: Path, recipe: Path, root: Path) -> Path:
    run = shards.parent / "run"
    done = subprocess.run(
        command(root, "--recipe", recipe, "--data.shards", shards, "--out", run),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
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
    checkpoints = sorted(path.name for path in (finished / "checkpoints").glob("step-*"))
    assert checkpoints == ["step-00000006", "step-00000008"]
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"lr", "samples_per_s", "data_wait", "logit_scale"} <= set(last)


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

    refused = subprocess.run(
        command(root, *arguments, launcher="python"),
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert refused.returncode == 2
    assert f"run folder {run} exists" in refused.stderr

    done = subprocess.run(
        command(root, *arguments, "--resume", "latest"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
    )
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
def test_plain_python_needs_no_launcher(shards: Path, recipe: Path, root: Path) -> None:
    run = shards.parent / "alone"
    arguments = ("--recipe", recipe, "--data.shards", shards, "--out", run, "--train.epochs", "0.2")
    done = subprocess.run(
        command(root, *arguments, launcher="python"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(run)) >= 1


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
        done = subprocess.run(
            command(
                root, "--recipe", recipe, "--data.shards", shards, "--out", run,
                "--model.drop-path", "0", "--train.epochs", "0.3", *flags, launcher="python",
            ),
            capture_output=True, text=True, env=environment(), timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        runs[name] = losses(run)
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
    ],
)
def test_what_cannot_work_is_refused_in_a_line(
    arguments: list[str], message: str, shards: Path, root: Path, tmp_path: Path
) -> None:
    filled = [item.format(tmp=tmp_path, shards=shards) for item in arguments]
    done = subprocess.run(command(root, *filled, launcher="python"), capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
