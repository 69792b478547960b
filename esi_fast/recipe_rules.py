"""What the values of a recipe may be, and what DeepSpeed is told of them."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esi_fast.cli import UsageError

if TYPE_CHECKING:
    from esi_fast.config import Recipe

MONITORS = ("tensorboard", "wandb", "csv_monitor", "comet")

_POSITIVE = {
    "model.embed_dim",
    "model.max_tokens",
    "model.decoder_dim",
    "model.decoder_layers",
    "data.batch_size",
    "optim.lr",
    "optim.clip",
    "optim.decay_factor",
    "optim.eps",
    "train.epochs",
    "train.micro_batches",
    "train.log_every",
    "train.save_every",
    "train.keep_checkpoints",
}


def check_ranges(recipe: Recipe) -> None:
    """Refuse a value that cannot be, or does not go with another one.

    Raises:
        UsageError: it names the value.
    """
    for group in ("model", "data", "augment", "optim", "train"):
        table = getattr(recipe, group)
        for item in fields(table):
            name, value = f"{group}.{item.name}", getattr(table, item.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} = {value}: must be a number from 0 up")
            if name in _POSITIVE and value == 0:
                raise UsageError(f"{name} = {value}: must be greater than 0")
    if recipe.train.seed >= 1 << 31:
        raise UsageError(f"train.seed = {recipe.train.seed}: below 2**31")
    for name in ("jitter_uv", "wander_uv", "mains_uv"):
        if getattr(recipe.augment, name) > 1e6:
            raise UsageError(f"augment.{name} = {getattr(recipe.augment, name)}: in uV, below 1e6")
    if recipe.data.sentence_sampling > 1:
        raise UsageError(f"data.sentence_sampling = {recipe.data.sentence_sampling}: 0 to 1")
    for name in ("beta1", "beta2"):
        if getattr(recipe.optim, name) >= 1:
            raise UsageError(f"optim.{name} = {getattr(recipe.optim, name)}: below 1")
    if recipe.data.batch_size % recipe.train.micro_batches:
        raise UsageError(
            f"train.micro_batches = {recipe.train.micro_batches}: must divide data.batch_size "
            f"({recipe.data.batch_size})"
        )
    if recipe.model.text_model.startswith("bert:"):
        small_bert_sizes(recipe.model.text_model)
        if recipe.model.text_mode != "train":
            raise UsageError(
                f"model.text_mode = {recipe.model.text_mode!r}: a fresh BERT must be trained"
            )
    lora_rank(recipe.model.text_mode)
    for name in ("embed_dim", "decoder_dim"):
        if getattr(recipe.model, name) % 16:
            raise UsageError(
                f"model.{name} = {getattr(recipe.model, name)}: must be a multiple of 16"
            )
    if recipe.model.drop_path >= 1:
        raise UsageError(f"model.drop_path = {recipe.model.drop_path}: below 1")
    deepspeed_config(recipe, on_gpu=False)


def small_bert_sizes(text_model: str) -> tuple[int, int, int]:
    """Width, layers and vocabulary of ``bert:64x2x1500``.

    Raises:
        UsageError: it is not of that form.
    """
    match = re.fullmatch(r"bert:([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text_model)
    if match is None or int(match[1]) % 16:
        raise UsageError(
            f"model.text_model = {text_model!r}: a fresh BERT is bert:WIDTHxLAYERSxVOCABULARY, its "
            "width a multiple of 16"
        )
    return int(match[1]), int(match[2]), int(match[3])


def lora_rank(text_mode: str) -> int:
    """The rank of ``lora:8``; 0 where the text encoder has no such adapters.

    Raises:
        UsageError: the mode is none of train, frozen and lora:RANK.
    """
    match = re.fullmatch(r"lora:([1-9]\d*)", text_mode)
    if match is None and text_mode not in ("train", "frozen"):
        raise UsageError(
            f"model.text_mode = {text_mode!r}: it is train, frozen or lora:RANK, such as lora:8"
        )
    return int(match[1]) if match else 0


def deepspeed_config(recipe: Recipe, *, on_gpu: bool) -> dict[str, Any]:
    """The dictionary for ``deepspeed.initialize``: the recipe's table and what follows from it.

    Without its monitors, which the run feeds itself: see `monitor_config`.

    Raises:
        UsageError: the table sets what the recipe sets elsewhere.
    """
    derived = {
        "train_micro_batch_size_per_gpu": recipe.data.batch_size // recipe.train.micro_batches,
        "gradient_accumulation_steps": recipe.train.micro_batches,
        "gradient_clipping": recipe.optim.clip,
        "steps_per_print": 1 << 30,
    }
    for key in (*derived, "train_batch_size", "optimizer", "scheduler"):
        if key in recipe.deepspeed:
            raise UsageError(f"deepspeed.{key}: set it in [data], [optim] or [train] instead")
    defaults: dict[str, Any] = {"zero_optimization": {"stage": 1}}
    if "fp16" not in recipe.deepspeed:
        defaults["bf16"] = {"enabled": on_gpu}
    given = {key: value for key, value in recipe.deepspeed.items() if key not in MONITORS}
    return defaults | given | derived


def monitor_config(recipe: Recipe, out: Path) -> dict[str, Any]:
    """DeepSpeed's monitors: those of the recipe, and TensorBoard in the run folder ``out``."""
    board = {"enabled": True, "output_path": str(out), "job_name": "tensorboard"}
    return {"tensorboard": board} | {
        key: value for key, value in recipe.deepspeed.items() if key in MONITORS
    }
