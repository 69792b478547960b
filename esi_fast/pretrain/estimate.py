"""What a pretraining run would be, take and cost, computed before anything is built or read.

Nothing here is measured: operations come from the model's sizes (:mod:`esi_fast.pretrain.flops`),
memory from what is kept (:mod:`esi_fast.pretrain.memory`), hours from an assumed utilisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from esi_fast.cli import UsageError
from esi_fast.config import Recipe
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.pretrain.flops import PartFlops, executed_flops, flops_of_record
from esi_fast.pretrain.memory import (
    Memory,
    checkpoint_bytes,
    memory_of_step,
    precision_of,
    zero_stage,
)
from esi_fast.pretrain.sizes import Sizes, architecture, sizes_of, text_sizes
from esi_fast.recipe_rules import deepspeed_config

# Dense bf16 operations a second: NVIDIA's data sheets of the H100 SXM and the H200 alike.
PEAK_FLOPS_PER_S = 989.5e12
UTILISATIONS = (0.35, 0.50)


@dataclass(frozen=True)
class Count:
    """Parameters of a part of the model: all, and those that are trained."""

    total: int
    trained: int


@dataclass(frozen=True)
class Estimate:
    """A run in numbers.

    Attributes:
        sizes: of the model.
        text_source: where the text encoder's sizes come from.
        parameters: by part.
        flops: of one record, by part, nothing twice.
        executed: FLOPs of one record with what is computed twice to save memory.
        precision: "bf16", "fp16" or "fp32".
        zero_stage: of DeepSpeed.
        world_size: devices.
        batch_size: records a step on each device.
        micro_batches: parts of it.
        fs: Hz of the records.
        mean_tokens: of a caption, without padding.
        is_assumed: whether that is the most a caption may have, and not measured.
        max_tokens: to which a batch is padded at most; memory is for this.
        num_records: of an epoch.
        steps_per_epoch, total_steps: of the optimiser.
        memory: of one device.
        checkpoint_bytes: of one checkpoint.
    """

    sizes: Sizes
    text_source: str
    parameters: dict[str, Count]
    flops: dict[str, PartFlops]
    executed: float
    precision: str
    zero_stage: int
    world_size: int
    batch_size: int
    micro_batches: int
    fs: float
    mean_tokens: float
    is_assumed: bool
    max_tokens: int
    num_records: int
    steps_per_epoch: int
    total_steps: int
    memory: Memory
    checkpoint_bytes: float

    @property
    def global_batch(self) -> int:
        """Records of a step on all devices."""
        return self.world_size * self.batch_size

    @property
    def flops_per_record(self) -> float:
        """Forward and backward, nothing twice: what MFU counts."""
        return sum(part.total for part in self.flops.values())

    @property
    def total_flops(self) -> float:
        """Of the whole run, as MFU counts them."""
        return self.flops_per_record * self.global_batch * self.total_steps

    def hours(self, utilisation: float) -> float:
        """Of the whole run at an MFU, on as many H100 or H200."""
        return self.total_flops / (utilisation * PEAK_FLOPS_PER_S * self.world_size) / 3600


def estimate(
    recipe: Recipe,
    *,
    world_size: int,
    fs: float,
    num_samples: int,
    num_records: int,
    mean_tokens: float | None = None,
    on_gpu: bool = True,
) -> Estimate:
    """Compute what a run would be.

    Args:
        recipe: resolved.
        world_size: devices.
        fs: Hz of the records.
        num_samples: of a record as it is stored; ``data.crop`` is applied here.
        num_records: of an epoch.
        mean_tokens: of a caption, padding not counted; None takes ``model.max_tokens``. The texts
            of the contrastive loss are taken to be as long, which is too much where
            ``data.sentence_sampling`` shortens some.
        on_gpu: whether numbers are bf16 unless the recipe says otherwise.

    Raises:
        UsageError: the text model cannot be had, or the sizes do not fit together.
    """
    num_samples = round(recipe.data.crop * fs) or num_samples
    text = text_sizes(recipe.model.text_model, recipe.model.max_tokens)
    config = architecture(recipe, fs, num_samples)
    sizes = sizes_of(recipe, config, text.config)
    parameters = count_parameters(config, text.config, sizes)
    num_parameters = sum(part.total for part in parameters.values())
    num_trained = sum(part.trained for part in parameters.values())

    train, batch_size = recipe.train, recipe.data.batch_size
    deepspeed = deepspeed_config(recipe, on_gpu=on_gpu)
    tokens = float(recipe.model.max_tokens if mean_tokens is None else mean_tokens)
    flops = flops_of_record(sizes, tokens, tokens)
    steps_per_epoch = num_records // (world_size * batch_size)
    return Estimate(
        sizes=sizes,
        text_source=text.source,
        parameters=parameters,
        flops=flops,
        executed=executed_flops(sizes, flops, micro_batches=train.micro_batches),
        precision=precision_of(deepspeed).name,
        zero_stage=zero_stage(deepspeed),
        world_size=world_size,
        batch_size=batch_size,
        micro_batches=train.micro_batches,
        fs=fs,
        mean_tokens=tokens,
        is_assumed=mean_tokens is None,
        max_tokens=recipe.model.max_tokens,
        num_records=num_records,
        steps_per_epoch=steps_per_epoch,
        total_steps=max(1, round(train.epochs * steps_per_epoch)),
        memory=memory_of_step(
            sizes,
            deepspeed,
            num_parameters=num_parameters,
            num_trained=num_trained,
            world_size=world_size,
            num_records=batch_size // train.micro_batches,
            num_tokens=recipe.model.max_tokens,
        ),
        checkpoint_bytes=checkpoint_bytes(deepspeed, num_parameters, num_trained),
    )


class _NoTokenizer:
    """Stands for a tokenizer where only its size is looked at."""

    def __len__(self) -> int:
        return 0


def count_parameters(config: ESIConfig, text_config: Any, sizes: Sizes) -> dict[str, Count]:
    """Parameters of a model by part, from the model itself without its memory.

    Raises:
        UsageError: the sizes do not fit together.
    """
    try:
        with torch.device("meta"):
            model = ESI(config, text_config, _NoTokenizer())
    except ValueError as error:
        raise UsageError(str(error)) from None
    ecg, text, decoder, everything = (
        sum(parameter.numel() for parameter in part.parameters())
        for part in (model.ecg, model.text, model.decoder, model)
    )
    adapters = sizes.text_layers * 2 * 2 * sizes.text_width * sizes.lora_rank
    rest = everything - ecg - text - decoder
    return {
        "ECG encoder": Count(ecg, ecg),
        "text encoder": Count(text + adapters, text if sizes.text_mode == "train" else adapters),
        "projections": Count(rest, rest),
        "caption decoder": Count(decoder, decoder),
    }


def describe(run: Estimate) -> str:
    """A table for the terminal."""
    return "\n".join([*_model_lines(run), "", *_step_lines(run), "", *_run_lines(run)])


def _model_lines(run: Estimate) -> list[str]:
    lines = [f"{'':16}{'parameters':>12}{'trained':>12}{'forward':>12}{'and backward':>14}"]
    rows = [
        (name, count.total, count.trained, run.flops[name].forward, run.flops[name].total)
        for name, count in run.parameters.items()
    ]
    totals = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    for name, total, trained, forward, both in [*rows, ("in all", *totals)]:
        lines.append(
            f"{name:16}{total / 1e6:10.2f} M{trained / 1e6:10.2f} M"
            f"{forward / 1e9:8.2f} GFLOP{both / 1e9:8.2f} GFLOP"
        )
    lines.append(f"text encoder: {run.text_source}")
    return lines


def _step_lines(run: Estimate) -> list[str]:
    memory = run.memory
    ecg_tokens = run.sizes.stage_lengths[-1]
    parts = f" in {run.micro_batches} parts" if run.micro_batches > 1 else ""
    kind = "assumed, the most there may be" if run.is_assumed else "measured"
    kept = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimiser": memory.optimizer,
        "buffers": memory.buffers,
        "activations": memory.activations,
    }
    if memory.texts:
        kept["remembered texts"] = memory.texts
    lines = [
        f"a record: {run.sizes.num_samples} samples at {run.fs:g} Hz, {ecg_tokens} ECG tokens, "
        f"{run.mean_tokens:.0f} tokens of caption ({kind})",
        f"a step:   {run.global_batch:,} records ({run.world_size} x {run.batch_size}{parts}), "
        f"{run.global_batch * ecg_tokens:,} ECG and {run.global_batch * run.mean_tokens:,.0f} "
        f"caption tokens, {_flops(run.global_batch * run.flops_per_record)}",
    ]
    if run.executed > run.flops_per_record:
        again = run.executed / run.flops_per_record - 1
        lines.append(f"          and {again:.0%} more computed twice, to save memory")
    lines += [
        f"a device: at least {_bytes(memory.total)} ({run.precision}, ZeRO-{run.zero_stage}; "
        f"captions padded to {run.max_tokens} tokens): "
        + ", ".join(f"{name} {_bytes(size)}" for name, size in kept.items()),
        f"a checkpoint: {_bytes(run.checkpoint_bytes)}",
    ]
    return lines


def _run_lines(run: Estimate) -> list[str]:
    lines = [
        f"the run:  {run.num_records:,} records, {run.steps_per_epoch:,} steps an epoch, "
        f"{run.total_steps:,} steps, {run.total_steps * run.global_batch:,} records in all, "
        f"{_flops(run.total_flops)}",
    ]
    if run.precision != "fp32":
        hours = ", ".join(f"{run.hours(share):,.1f} h at {share:.0%}" for share in UTILISATIONS)
        lines.append(
            f"          computed, not measured: {hours} of {PEAK_FLOPS_PER_S / 1e12:g} TFLOP/s "
            f"(H100 or H200, dense) on {run.world_size}"
        )
    return lines


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"


def _flops(number: float) -> str:
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if number >= size:
            return f"{number / size:,.1f} {prefix}FLOP"
    return f"{number / 1e9:,.1f} GFLOP"
