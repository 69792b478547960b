"""Recipes: strict, complete, and every knob is read."""

from __future__ import annotations

import inspect
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from esi_fast.cli import UsageError
from esi_fast.config import (
    RECIPES,
    AugmentConfig,
    OptimConfig,
    Recipe,
    parse_pretrain,
    saved_recipe,
    to_toml,
)
from esi_fast.data.augment_signal import SignalAugmentation
from esi_fast.recipe_rules import deepspeed_config, lora_rank, monitor_config
from esi_fast.training.optim import adamw


def test_flags_override_the_recipe_and_the_launcher_comes_first() -> None:
    read = parse_pretrain(
        [
            *("--local_rank=1", "--recipe", "demo", "--out", "run", "--optim.lr", "3e-4"),
            *("--data.shards", "a", "b", "--train.contrast", "clip"),
        ]
    )
    assert read.optim.lr == 3e-4
    assert read.data.shards == ("a", "b")
    assert read.train.contrast == "clip"
    assert read.model.encoder == "convnextv2_zepto"
    assert read.out == Path("run")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_reads_and_its_toml_reads_back_equal(path: Path, tmp_path: Path) -> None:
    read = parse_pretrain(["--recipe", str(path), "--out", "run", "--data.shards", "s"])
    copy = tmp_path / "copy.toml"
    copy.write_text(to_toml(read))
    again = parse_pretrain(["--recipe", str(copy), "--out", "run"])
    for group in fields(Recipe):
        assert getattr(again, group.name) == getattr(read, group.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optim]\nlrr = 1", "unknown recipe key optim.lrr; did you mean lr"),
        ("[optimiser]\nlr = 1", "unknown recipe key optimiser; did you mean optim"),
        ('[optim]\nlr = "fast"', "optim.lr = 'fast'"),
        ("[data]\nbatch_size = 0", "data.batch_size = 0: must be greater than 0"),
        ("[data]\nbatch_size = 64.5", "data.batch_size = 64.5"),
        ("[train]\nmicro_batches = 3", "train.micro_batches = 3: must divide data.batch_size (64)"),
        ("[train]\nmicro_batches = 0", "train.micro_batches = 0: must be greater than 0"),
        ('[train]\ncontrast = "triplet"', "train.contrast = 'triplet'"),
        ('[model]\ntext_model = "bert:60x2x99"', "a fresh BERT is bert:WIDTHxLAYERSxVOCABULARY"),
        (
            '[model]\ntext_model = "bert:64x2x99"\ntext_mode = "frozen"',
            "model.text_mode = 'frozen': a fresh BERT must be trained",
        ),
        (
            '[model]\ntext_mode = "lora:0"',
            "model.text_mode = 'lora:0': it is train, frozen or lora:RANK",
        ),
        ("[model]\ndecoder_dim = 100", "model.decoder_dim = 100: must be a multiple of 16"),
        ('[train]\nepochs = "3"', "train.epochs = '3'"),
        ("[train]\nepochs = true", "train.epochs = True"),
        ("[train]\nseed = -1", "train.seed = -1: must be a number from 0 up"),
        ("[optim]\nlr = nan", "optim.lr = nan"),
        ("[optim]\nbeta2 = 1.0", "optim.beta2 = 1.0: below 1"),
        ("[optim]\neps = 0.0", "optim.eps = 0.0: must be greater than 0"),
        ("[data]\nsentence_sampling = 2.0", "data.sentence_sampling = 2.0: 0 to 1"),
        ("optim = 3", "optim = 3: must be a table"),
        ("[optim", "is not a TOML file"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        parse_pretrain(["--recipe", str(path), "--out", "run"])
    assert "\n" not in str(caught.value)


def test_missing_files_and_a_missing_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe nothing does not exist; .* has .*demo"):
        parse_pretrain(["--recipe", "nothing", "--out", "run"])
    with pytest.raises(UsageError, match="--out is missing"):
        parse_pretrain(["--recipe", "demo"])
    with pytest.raises(UsageError, match="does not exist"):
        parse_pretrain(["--deepspeed-config", str(tmp_path / "no.json"), "--out", "run"])
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(UsageError, match="must hold one JSON object"):
        parse_pretrain(["--deepspeed-config", str(tmp_path / "bad.json"), "--out", "run"])


def test_deepspeed_options_pass_through_but_are_set_once(tmp_path: Path) -> None:
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimization": {"stage": 2}, "wall_clock_breakdown": true}')
    read = parse_pretrain(["--deepspeed-config", str(config), "--out", "r", "--optim.clip", "2"])
    made = deepspeed_config(read, on_gpu=True)
    assert made["zero_optimization"] == {"stage": 2}
    assert made["wall_clock_breakdown"] is True
    assert made["gradient_clipping"] == 2
    assert made["bf16"] == {"enabled": True}
    assert deepspeed_config(Recipe(), on_gpu=False)["zero_optimization"] == {"stage": 1}
    config.write_text('{"optimizer": {"type": "AdamW"}}')
    with pytest.raises(UsageError, match=r"deepspeed\.optimizer: set it in"):
        parse_pretrain(["--deepspeed-config", str(config), "--out", "r"])
    config.write_text('{"fp16": {"enabled": true}}')
    read = parse_pretrain(["--deepspeed-config", str(config), "--out", "r"])
    assert "bf16" not in deepspeed_config(read, on_gpu=True)


def test_monitors_are_the_runs_own_and_not_the_engines(tmp_path: Path) -> None:
    config = tmp_path / "ds.json"
    config.write_text('{"wandb": {"enabled": true, "project": "ecg"}}')
    read = parse_pretrain(["--deepspeed-config", str(config), "--out", "r"])
    assert "wandb" not in deepspeed_config(read, on_gpu=False)
    monitors = monitor_config(read, tmp_path)
    assert monitors["wandb"]["project"] == "ecg"
    assert monitors["tensorboard"]["enabled"] is True
    config.write_text('{"tensorboard": {"enabled": false}}')
    read = parse_pretrain(["--deepspeed-config", str(config), "--out", "r"])
    assert monitor_config(read, tmp_path) == {"tensorboard": {"enabled": False}}


def test_text_modes() -> None:
    assert lora_rank("lora:8") == 8
    assert lora_rank("train") == lora_rank("frozen") == 0


def test_a_resumed_run_keeps_its_recipe(tmp_path: Path) -> None:
    first = parse_pretrain(["--recipe", "demo", "--out", str(tmp_path), "--data.shards", "s"])
    (tmp_path / "recipe.toml").write_text(to_toml(first))
    resume = ["--out", str(tmp_path), "--resume", "latest"]
    again = parse_pretrain([*resume, "--train.epochs", "9"])
    assert again.optim == first.optim
    assert again.data == first.data
    assert again.train.epochs == 9
    assert saved_recipe(tmp_path).data == first.data
    message = r"optim\.lr was 0\.001 in this run and is now 0\.5"
    with pytest.raises(UsageError, match=message):
        parse_pretrain([*resume, "--optim.lr", "0.5"])
    with pytest.raises(UsageError, match=r"model\.encoder was"):
        parse_pretrain([*resume, "--recipe", "base"])
    with pytest.raises(UsageError, match="is not a run folder"):
        parse_pretrain(["--out", str(tmp_path / "no"), "--resume", "latest"])


def test_the_papers_recipe_names_the_settings_of_its_optimizer() -> None:
    optim = tomllib.loads((RECIPES / "paper.toml").read_text())["optim"]
    assert {item.name for item in fields(OptimConfig)} == optim.keys()
    defaults = inspect.signature(adamw).parameters  # of who calls it without a recipe
    assert (OptimConfig().beta1, OptimConfig().beta2) == defaults["betas"].default
    assert OptimConfig().eps == defaults["eps"].default


def test_there_are_few_knobs_and_each_is_read(root: Path) -> None:
    readers = (root / "tools" / "pretrain.py").read_text()
    rules = (root / "esi_fast" / "recipe_rules.py").read_text().split("def deepspeed_config")[1]
    readers += rules
    for name in ("parts.py", "sizes.py", "step.py", "start.py", "watch.py"):
        readers += (root / "esi_fast" / "pretrain" / name).read_text()
    knobs = [
        (group, item.name)
        for group, owner in get_type_hints(Recipe).items()
        if group not in ("deepspeed", "augment")  # augment's fields are SignalAugmentation's
        for item in fields(owner)
    ]
    assert len(knobs) <= 40
    augmentation = {(item.name, item.default) for item in fields(SignalAugmentation)}
    assert {(item.name, item.default) for item in fields(AugmentConfig)} == augmentation
    owner = {
        "model": r"(recipe|model)",
        "data": r"data",
        "optim": r"(invocation|recipe)\.optim",
        "train": r"train",
    }
    unread = [
        f"{group}.{name}"
        for group, name in knobs
        if not re.search(rf"\b{owner[group]}\.{name}\b", readers)
    ]
    assert not unread
