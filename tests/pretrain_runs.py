"""Small real runs of tools/pretrain.py: shards, recipe, command lines and what they leave."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from shard_tree import build

from esi_fast.cqa.generate import describe_reports
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
validate_every = 4
"""


def make_shards(folder: Path, **settings: float) -> Path:
    """Shards of 60 simulated records with captions, some of them for validation by default."""
    write_tree(folder / "records", 60, seed=7, fs=250, duration=5)
    catalogue = open_catalogue(folder / "records")
    lines = [line for entry in catalogue for line in entry.statements]
    build(
        catalogue,
        folder / "shards",
        fs=100,
        duration=5.0,
        captions=describe_reports([line] for line in lines),
        **settings,
    )
    return folder / "shards"


def make_recipe(shards: Path) -> Path:
    """A recipe of STEPS steps of 8 records, beside the shards."""
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


def pretrain(
    root: Path, *arguments: str | Path, launcher: str = "deepspeed"
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(root, *arguments, launcher=launcher),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )


def losses(run: Path) -> dict[int, tuple[float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: (line["contrastive"], line["captioning"]) for line in lines}


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))
