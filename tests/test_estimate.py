"""What a recipe would be and cost: counted here against models that are really run."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from esi_fast.cli import UsageError
from esi_fast.config import RECIPES, Recipe, parse_pretrain
from esi_fast.kernels import nn as kernel_modules
from esi_fast.kernels import reference
from esi_fast.models.esi import ESI
from esi_fast.models.text import train_wordpiece
from esi_fast.pretrain.estimate import Estimate, describe, estimate
from esi_fast.pretrain.flops import executed_flops, flops_of_record, flops_per_step
from esi_fast.pretrain.memory import activation_bytes, checkpoint_bytes, memory_of_step
from esi_fast.pretrain.sizes import Sizes, architecture, num_heads, sizes_of, text_sizes

NUM_TOKENS = 50
SMALL = ("--recipe=demo", "--out=x", "--model.text-model=bert:128x2x600", "--model.decoder-dim=128")
VARIANTS = {
    "zepto": (),
    "atto, attention pool": ("--model.encoder=convnextv2_atto", "--model.pooling=attention"),
    "deep decoder": ("--model.decoder-layers=3", "--model.decoder-dim=64"),
}


def read(*flags: str) -> Recipe:
    return parse_pretrain(list(flags))


def words(count: int) -> list[str]:
    letters = itertools.product(string.ascii_lowercase, repeat=3)
    return list(map("".join, itertools.islice(letters, count)))


def build(recipe: Recipe, text_mode: str = "train") -> tuple[ESI, Sizes]:
    """A real model of the recipe, with a tokenizer of few words."""
    text = text_sizes(recipe.model.text_model, recipe.model.max_tokens)
    config = architecture(recipe, 250.0, 1250)
    model = ESI(config, text.config, train_wordpiece(["a normal ECG"], 200))
    if text_mode == "frozen":
        model.text.freeze()
    return model.train(), replace(sizes_of(recipe, config, text.config), text_mode=text_mode)


def inputs(sizes: Sizes, num_records: int = 2) -> tuple[Tensor, ...]:
    ecg = torch.randn(num_records, 12, sizes.num_samples)
    ids = torch.randint(5, sizes.vocab_size, (num_records, NUM_TOKENS))
    mask = torch.ones_like(ids)
    return ecg, ids, mask, ids, mask


def assert_counts(found: Estimate, model: ESI) -> None:
    """The estimate has the parameters of a model that was really built."""
    parts = {
        "ECG encoder": model.ecg,
        "text encoder": model.text,
        "caption decoder": model.decoder,
    }
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    counts["projections"] = sum(p.numel() for p in model.parameters()) - sum(counts.values())
    assert {name: count.total for name, count in found.parameters.items()} == counts


def test_every_recipe_is_estimated_and_described() -> None:
    names = {path.stem for path in RECIPES.glob("*.toml")}
    assert names >= {"atto", "base", "demo", "large", "paper"}
    for name in names:
        recipe = read("--recipe", name, "--out", "x")
        found = estimate(recipe, world_size=4, fs=500.0, num_samples=5000, num_records=800_000)
        assert found.steps_per_epoch == 800_000 // (4 * recipe.data.batch_size)
        assert found.total_steps == round(recipe.train.epochs * found.steps_per_epoch)
        text = describe(found)
        for part in ("ECG encoder", "steps an epoch", "a checkpoint", "computed, not measured"):
            assert part in text, f"{name} lacks {part!r}"
        assert max(map(len, text.splitlines())) < 200


def test_the_paper_is_the_published_run() -> None:
    paper = read("--recipe", "paper", "--out", "x")
    assert paper.model.encoder == "convnextv2_base"
    assert paper.model.text_model == "michiyasunaga/BioLinkBERT-base"
    assert (paper.model.max_tokens, paper.data.batch_size) == (500, 48)
    schedule = paper.optim
    assert (schedule.lr, schedule.warmup_epochs) == (5e-5, 5.0)
    assert (schedule.decay_epochs, schedule.decay_factor) == (10.0, 0.1)
    assert paper.train.epochs == 30.0
    found = estimate(paper, world_size=4, fs=500.0, num_samples=5000, num_records=800_000)
    assert found.sizes.stage_lengths == [1250, 625, 312, 156]
    # Recorded from the published code: 85.6 M.
    assert found.parameters["ECG encoder"].total == pytest.approx(85.6e6, rel=0.002)
    assert found.parameters["text encoder"].total == 107_642_112


def test_parameters_are_those_of_the_demo_as_it_is_built() -> None:
    recipe = read("--recipe", "demo", "--out", "x")
    model = ESI.from_captions(
        architecture(recipe, 250.0, 2500),
        [" ".join(words(1500))],
        vocab_size=1500,
        hidden=64,
        layers=2,
        heads=num_heads(64),
    )
    found = estimate(recipe, world_size=1, fs=250.0, num_samples=2500, num_records=100)
    assert_counts(found, model)


def test_parameters_are_those_of_atto_as_it_is_built() -> None:
    recipe = read("--recipe", "atto", "--out", "x")
    model, _ = build(recipe)
    found = estimate(recipe, world_size=1, fs=250.0, num_samples=1250, num_records=100)
    assert_counts(found, model)
    assert "built-in" in found.text_source


def depthwise_backward(grad: Any, x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """torch's counter takes the groups of a convolution's backward for one: 2 x forward instead."""
    return 2 * 2 * grad.numel() * weight.shape[-1]


depthwise_backward._get_raw = True  # type: ignore[attr-defined]


def counted(run: Callable[[], Tensor]) -> int:
    """What torch counts of ``run`` and its backward pass, with the operators in plain PyTorch."""
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: depthwise_backward}
    )
    names = ("depthwise_conv1d_layer_norm", "gelu_grn_mlp")
    plain = {name: getattr(reference, name) for name in names}
    with (
        mock.patch.multiple(kernel_modules, **plain),
        sdpa_kernel(SDPBackend.MATH),
        set_checkpoint_early_stop(False),
        counter,
    ):
        output = run()
        if output.requires_grad:
            output.backward()
    return counter.get_total_flops()


def step(model: ESI, sizes: Sizes) -> Callable[[], Tensor]:
    """A step with any loss."""

    def run() -> Tensor:
        output = model(*inputs(sizes))
        total: Tensor = output.caption_loss + output.ecg_BD.sum() + output.text_BD.sum()
        return total

    return run


def steps_of_parts(model: ESI, sizes: Sizes) -> dict[str, Callable[[], Tensor]]:
    """Each part of the model by itself."""
    ecg, ids, mask, *_ = inputs(sizes)
    is_trained = sizes.text_mode == "train"
    words = torch.randn(2, NUM_TOKENS - 1, sizes.text_width, requires_grad=is_trained)
    tokens = torch.randn(2, sizes.stage_lengths[-1], sizes.channels[-1], requires_grad=True)

    def ecg_encoder() -> Tensor:
        found = model.ecg_tokens(ecg)
        return (found if model.pool is None else model.pool(found)).sum()

    return {
        "ECG encoder": ecg_encoder,
        "text encoder": lambda: model.text(ids, mask).sum(),
        "caption decoder": lambda: model.decoder(words, tokens, ids[:, 1:]),
    }


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_operations_are_those_that_torch_counts(name: str, mode: str) -> None:
    model, sizes = build(read(*SMALL, *VARIANTS[name]), mode)
    parts = flops_of_record(sizes, NUM_TOKENS, NUM_TOKENS)
    for part, run in steps_of_parts(model, sizes).items():
        assert 2 * parts[part].total == pytest.approx(counted(run), rel=0.001), part
    of_step = flops_per_step(sizes, 2, 2 * NUM_TOKENS, 2 * NUM_TOKENS)
    assert of_step == pytest.approx(counted(step(model, sizes)), rel=0.001)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_operations_of_adapters() -> None:
    peft = pytest.importorskip("peft")
    model, sizes = build(read(*SMALL))
    sizes = replace(sizes, text_mode="lora", lora_rank=8)
    model.text.requires_grad_(False)
    before = sum(p.numel() for p in model.text.parameters())
    model.text.bert = peft.get_peft_model(model.text.bert, peft.LoraConfig(r=8))
    adapters = sum(p.numel() for p in model.text.parameters()) - before
    recipe = read(*SMALL, "--model.text-mode=lora:8", "--model.text-model=x")
    small = text_sizes("bert:128x2x600", 80)
    with mock.patch("esi_fast.pretrain.estimate.text_sizes", return_value=small):
        found = estimate(recipe, world_size=1, fs=250.0, num_samples=1250, num_records=100)
    assert found.parameters["text encoder"].trained == adapters
    assert found.parameters["text encoder"].total == before + adapters
    parts = flops_of_record(sizes, NUM_TOKENS, NUM_TOKENS)
    total = 2 * sum(part.total for part in parts.values())
    assert total == pytest.approx(counted(step(model, sizes)), rel=0.02)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_operations_with_activations_computed_again() -> None:
    model, sizes = build(read(*SMALL))
    model.checkpoint_activations()
    sizes = replace(sizes, recompute=True)
    parts = flops_of_record(sizes, NUM_TOKENS, NUM_TOKENS)
    found = counted(step(model, sizes))
    assert 2 * executed_flops(sizes, parts, micro_batches=1) == pytest.approx(found, rel=0.001)


def test_micro_batches_embed_everything_once_more() -> None:
    _, sizes = build(read(*SMALL))
    parts = flops_of_record(sizes, NUM_TOKENS, NUM_TOKENS)
    once, twice = (executed_flops(sizes, parts, micro_batches=number) for number in (1, 2))
    assert once == sum(part.total for part in parts.values())
    assert twice - once == sum(
        parts[name].forward for name in ("ECG encoder", "text encoder", "projections")
    )


def saved_bytes(model: ESI, batch: tuple[Tensor, ...]) -> int:
    """What autograd keeps of a forward pass, each storage once and the weights not."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(*batch)
    assert output.caption_loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_those_that_autograd_keeps(
    name: str, mode: str, dtype: torch.dtype
) -> None:
    model, sizes = build(read(*SMALL, *VARIANTS[name]), mode)
    batch = inputs(sizes, num_records=4)
    found = saved_bytes(model.to(dtype), batch) + batch[0].nbytes
    expected = activation_bytes(sizes, 4, NUM_TOKENS, dtype.itemsize)
    assert expected == pytest.approx(found, rel=0.1)


def test_activations_computed_again_are_not_kept() -> None:
    _, sizes = build(read(*SMALL, *VARIANTS["deep decoder"]))
    kept, again = (
        activation_bytes(replace(sizes, recompute=recompute), 64, NUM_TOKENS, 2)
        for recompute in (False, True)
    )
    assert 0.2 * kept < again < 0.6 * kept


@pytest.mark.parametrize(
    ("stage", "bf16", "world_size", "weights", "gradients", "optimizer"),
    [
        (0, False, 4, 4, 4, 8),
        (1, False, 1, 4, 4, 12),
        (1, True, 1, 2, 2, 12),
        (1, True, 4, 2, 2, 3),
        (2, True, 4, 2, 0.5, 3),
        (3, True, 4, 0.5, 0.5, 3),
    ],
)
def test_memory_by_zero_stage(
    stage: int, bf16: bool, world_size: int, weights: float, gradients: float, optimizer: float
) -> None:
    _, sizes = build(read(*SMALL))
    found = memory_of_step(
        sizes,
        {"zero_optimization": {"stage": stage}, "bf16": {"enabled": bf16}},
        num_parameters=1000,
        num_trained=600,
        world_size=world_size,
        num_records=2,
        num_tokens=NUM_TOKENS,
    )
    assert found.weights == 1000 * weights
    assert (found.gradients, found.optimizer) == (600 * gradients, 600 * optimizer)
    assert found.buffers == (5e8 * (2 if bf16 else 4) if stage in (1, 2) else 0)


def test_a_checkpoint_holds_weights_and_the_optimizer() -> None:
    zero1 = {"zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}
    assert checkpoint_bytes(zero1, 1000, 600) == 1000 * 2 + 600 * 12
    assert checkpoint_bytes({}, 1000, 600) == 1000 * 4 + 600 * 8
    assert checkpoint_bytes({"zero_optimization": {"stage": 3}}, 1000, 600) == 600 * 12


@pytest.fixture
def atto() -> Estimate:
    recipe = read("--recipe=atto", "--out=x", "--train.micro-batches=4", "--data.crop=2.5")
    return estimate(
        recipe, world_size=2, fs=500.0, num_samples=5000, num_records=12_800, mean_tokens=120.0
    )


def test_the_table_says_what_is_assumed_and_what_is_done_twice(atto: Estimate) -> None:
    text = describe(atto)
    assert "1250 samples at 500 Hz, 39 ECG tokens, 120 tokens of caption (measured)" in text
    assert "128 records (2 x 64 in 4 parts)" in text
    assert "computed twice" in text
    assert "100 steps an epoch, 3,000 steps, 384,000 records in all" in text
    assert "built-in sizes" in text
    peak = 989.5e12 * 2 * 0.5
    assert atto.hours(0.5) == pytest.approx(atto.flops_per_record * 384_000 / peak / 3600)


def test_without_a_gpu_nothing_is_said_of_its_hours() -> None:
    recipe = read("--recipe=demo", "--out=x")
    found = estimate(
        recipe, world_size=1, fs=250.0, num_samples=2500, num_records=100, on_gpu=False
    )
    assert found.precision == "fp32"
    text = describe(found)
    assert "(assumed, the most there may be)" in text
    assert "H100" not in text


def test_a_frozen_text_encoder_is_not_trained() -> None:
    recipe = read("--recipe=base", "--out=x", "--model.text-mode=frozen")
    found = estimate(recipe, world_size=1, fs=500.0, num_samples=5000, num_records=1000)
    assert found.parameters["text encoder"].trained == 0
    assert found.flops["text encoder"].backward == 0
    assert found.memory.texts == 2**18 * 768 * 2
    assert "remembered texts 403 MB" in describe(found)


def test_captions_longer_than_the_text_encoder_reads() -> None:
    recipe = read("--recipe=base", "--out=x", "--model.max-tokens=600")
    with pytest.raises(UsageError, match="max_tokens is 600; the text encoder has 512"):
        estimate(recipe, world_size=1, fs=500.0, num_samples=5000, num_records=1000)


def test_the_readmes_table_is_what_a_dry_run_says(root: Path) -> None:
    readme = (root / "README.md").read_text()
    rows = re.findall(r"\| `(\w+)` \| ([\d.]+) M \| (\d+) GFLOP \|", readme)
    assert {name for name, _, _ in rows} == {"atto", "base", "large", "paper"}
    for name, parameters, flops in rows:
        recipe = parse_pretrain(["--recipe", name, "--dry-run"])
        run = estimate(recipe, world_size=1, fs=500.0, num_samples=5000, num_records=800_035)
        total = sum(count.total for count in run.parameters.values())
        assert (f"{total / 1e6:.1f}", f"{run.flops_per_record / 1e9:.0f}") == (parameters, flops)
