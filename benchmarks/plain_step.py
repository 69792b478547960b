"""A training step as research code writes it, everything in full and nothing fused; and ours.

The plain model is `esi_fast.models.esi.ESI`, parameter by parameter, written plainly: a
channels-first encoder whose norms permute to and fro, attention as two products with a mask
between them, and logits of every position, padding included. As in the published arithmetic, the
decoder reads the states of the one bidirectional pass of BERT; ``decoder_reads="words"`` makes it
read the word embeddings as ours does, so that both can be compared number by number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.eager_encoder import EagerBlock, grn
from esi_fast.config import Recipe, parse_pretrain
from esi_fast.models.convnext1d import VARIANTS
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.pretrain.sizes import architecture, text_sizes
from esi_fast.pretrain.step import take_step
from esi_fast.recipe_rules import deepspeed_config
from esi_fast.training import losses, optim

NUM_LEADS = 12
# Tokens of the 318 training captions of shared/data/mimic-like, at every 16th part of them.
CAPTION_TOKENS = (32, 54, 56, 58, 59, 60, 61, 62, 64, 65, 66, 67, 68, 69, 71, 72, 74)
MEAN_TOKENS = 63
AGREEMENT = 1e-3
Batch = dict[str, Tensor]
Step = Callable[[Batch], object]
DecoderReads = Literal["states", "words"]


class PlainNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """There and back by permuting."""
        return super().forward(x.permute(0, 2, 1)).permute(0, 2, 1)


class PlainBlock(EagerBlock):
    """(B, C, T) -> (B, C, T)."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__(dim)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y = self.norm(self.dwconv(x).permute(0, 2, 1))
        y = grn(F.gelu(self.pwconv1(y)), self.gamma, self.beta)
        y = self.pwconv2(y).permute(0, 2, 1)
        if self.training and self.drop_path > 0:
            keep = 1 - self.drop_path
            y = y * (y.new_empty(y.shape[0], 1, 1).bernoulli_(keep) / keep)
        return x + y


class PlainEncoder(nn.Module):
    """(B, L, T) -> (B, C, T // 32)."""

    def __init__(self, name: str, drop_path: float) -> None:
        super().__init__()
        depths, channels = VARIANTS[name]
        stem = nn.Conv1d(NUM_LEADS, channels[0], 4, stride=4)
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(stem, PlainNorm(channels[0], eps=1e-6))]
        )
        for before, after in pairwise(channels):
            down = nn.Conv1d(before, after, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(PlainNorm(before, eps=1e-6), down))
        last = max(1, sum(depths) - 1)
        rates = [drop_path * block / last for block in range(sum(depths))]
        self.stages = nn.ModuleList(
            nn.Sequential(*(PlainBlock(width, rates.pop(0)) for _ in range(depth)))
            for depth, width in zip(depths, channels, strict=True)
        )
        self.norm = nn.LayerNorm(channels[-1], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """The tokens of the last stage."""
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return x


class PlainLayer(nn.Module):
    """Causal self-attention, cross-attention to the ECG, SwiGLU; one key-value head."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, dim + 2 * self.head_dim, bias=False)
        self.attn_out = nn.Linear(dim, dim, bias=False)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_q = nn.Linear(dim, dim, bias=False)
        self.cross_kv = nn.Linear(dim, 2 * self.head_dim, bias=False)
        self.cross_out = nn.Linear(dim, dim, bias=False)
        self.ff_norm = nn.LayerNorm(dim)
        self.ff_in = nn.Linear(dim, 4 * dim, bias=False)
        self.ff_out = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor, ecg: Tensor) -> Tensor:
        """(B, N, D) and the ECG's tokens (B, T, D)."""
        q, k, v = self.to_qkv(self.norm(x)).split([x.shape[-1], self.head_dim, self.head_dim], -1)
        position = torch.arange(x.shape[1], device=x.device)
        rotation = angles(position, self.head_dim)
        q, k = rotate(self.heads(q), rotation), rotate(k, rotation)
        x = x + self.attn_out(self.attend(q, k, v, position[:, None] < position))
        q = self.heads(self.cross_q(self.cross_norm(x)))
        k, v = self.cross_kv(ecg).chunk(2, -1)
        x = x + self.cross_out(self.attend(q, k, v, None))
        value, gate = self.ff_in(self.ff_norm(x)).chunk(2, -1)
        return x + self.ff_out(F.silu(gate) * value)

    def heads(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, H, N, D / H)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).permute(0, 2, 1, 3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        """All scores in memory, as their mask and softmax are."""
        scores = torch.einsum("bhid,bjd->bhij", q * self.head_dim**-0.5, k)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.finfo(scores.dtype).max)
        weights = (scores - scores.amax(-1, keepdim=True).detach()).softmax(-1)
        return torch.einsum("bhij,bjd->bhid", weights, v).permute(0, 2, 1, 3).flatten(2)


def angles(position: Tensor, head_dim: int) -> Tensor:
    """(N, head_dim): position x frequency, twice."""
    frequency = 10000.0 ** -(torch.arange(0, head_dim, 2, device=position.device) / head_dim)
    angle = position[:, None].float() * frequency
    return torch.cat([angle, angle], -1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotary positions, as they are usually written."""
    first, second = x.chunk(2, -1)
    turned = torch.cat([-second, first], -1)
    return x * angle.cos().to(x.dtype) + turned * angle.sin().to(x.dtype)


class PlainDecoder(nn.Module):
    """Logits (B, N, V) of every position."""

    def __init__(
        self, vocab_size: int, embedding_dim: int, ecg_dim: int, config: ESIConfig
    ) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.embed = nn.Linear(embedding_dim, dim)
        self.embed_ecg = nn.Sequential(nn.LayerNorm(ecg_dim), nn.Linear(ecg_dim, dim))
        self.layers = nn.ModuleList(
            PlainLayer(dim, config.decoder_heads) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.to_logits = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, states: Tensor, ecg: Tensor) -> Tensor:
        """States (B, N, C) and the ECG's tokens (B, T, C)."""
        x, ecg = self.embed(states), self.embed_ecg(ecg)
        for layer in self.layers:
            x = layer(x, ecg)
        return self.to_logits(self.norm(x))


class PlainESI(nn.Module):
    """Encoder, BERT and decoder; gives both losses.

    Args:
        config: sizes; pooling by the mean and the softmax contrast are what it can.
        text_config: a ``transformers.BertConfig``.
        decoder_reads: "states" of BERT's pass, or the "words" alone.
    """

    def __init__(
        self, config: ESIConfig, text_config: Any, decoder_reads: DecoderReads = "states"
    ) -> None:
        super().__init__()
        from transformers import BertModel

        self.scale, self.decoder_reads = config.ecg_scale, decoder_reads
        self.ecg = PlainEncoder(config.encoder, config.drop_path)
        self.bert = BertModel(text_config, add_pooling_layer=False)
        width, ecg_width = text_config.hidden_size, VARIANTS[config.encoder][1][-1]
        self.ecg_projection = nn.Linear(ecg_width, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(width, config.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / 0.07)))
        self.decoder = PlainDecoder(text_config.vocab_size, width, ecg_width, config)

    def load_ours(self, state_dict: Mapping[str, Tensor]) -> None:
        """The weights of an `ESI` of the same sizes."""
        renamed = {
            name.removeprefix("text.").replace(".grn.", "."): value
            for name, value in state_dict.items()
        }
        self.load_state_dict(renamed)

    def named_as_ours(self) -> dict[str, nn.Parameter]:
        """The parameters by the names that they have in an `ESI`."""
        return {
            re.sub(r"\.(gamma|beta)$", r".grn.\1", re.sub(r"^bert\.", "text.bert.", name)): value
            for name, value in self.named_parameters()
        }

    def forward(self, ecg: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """mV (B, L, T), captions and their mask (B, N) -> contrastive and captioning loss."""
        tokens = self.ecg(torch.nan_to_num(ecg) * self.scale)
        ecg_latent = F.normalize(self.ecg_projection(self.ecg.norm(tokens.mean(-1))), dim=-1)
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        text_latent = F.normalize(self.text_projection(states[:, 0]), dim=-1)
        similarity = self.logit_scale.exp() * ecg_latent @ text_latent.T
        target = torch.arange(len(ids), device=ids.device)
        contrastive = F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)
        if self.decoder_reads == "words":
            states = self.bert.embeddings.word_embeddings(ids)
        logits = self.decoder(states[:, :-1], tokens.permute(0, 2, 1))
        labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        captioning = F.cross_entropy(logits.permute(0, 2, 1), labels, ignore_index=-100)
        return contrastive / 2, captioning


@dataclass(frozen=True, slots=True)
class Task:
    """What both train: a recipe and the sizes that follow from it."""

    recipe: Recipe
    config: ESIConfig
    text_config: Any

    @classmethod
    def of(cls, name: str, samples: tuple[float, int]) -> Task:
        """A recipe of tools/recipes at records of (Hz, samples); no weights are read."""
        recipe = parse_pretrain(["--recipe", name, "--out", "unused"])
        config = architecture(recipe, *samples)
        return cls(recipe, config, text_sizes(recipe.model.text_model, config.max_tokens).config)

    def ours(self) -> ESI:
        """With fresh weights, and without a tokenizer: the captions come as tokens."""
        no_words: Any = range(self.text_config.vocab_size)
        return ESI(self.config, self.text_config, no_words)

    def plain(self) -> PlainESI:
        """With fresh weights."""
        return PlainESI(self.config, self.text_config)


def draw_batches(task: Task, size: int, number: int, device: torch.device) -> Iterator[Batch]:
    """Noise and random words, as long as real captions are; whole captions for both losses.

    A caption is padded to the longest of its batch. All records say something different.
    """
    generator = torch.Generator().manual_seed(size)
    bounds = torch.tensor(CAPTION_TOKENS, dtype=torch.float32)
    for _ in range(number):
        at = torch.rand(size, generator=generator) * (len(bounds) - 1)
        low = at.long().clamp(max=len(bounds) - 2)
        length_B = torch.lerp(bounds[low], bounds[low + 1], at - low).round().long()
        length_B = length_B.clamp(max=task.config.max_tokens)
        shape = size, int(length_B.max())
        mask_BN = (torch.arange(shape[1]) < length_B[:, None]).long()
        ids_BN = torch.randint(5, task.text_config.vocab_size, shape, generator=generator)
        ids_BN *= mask_BN
        ecg_BLT = 0.3 * torch.randn(size, 12, task.config.num_samples, generator=generator)
        key_B = torch.randperm(size, generator=generator)
        batch = {"ecg": ecg_BLT, "concept_key": key_B, "row": key_B}
        batch |= {"input_ids": ids_BN, "attention_mask": mask_BN}
        batch |= {"text_ids": ids_BN, "text_mask": mask_BN}
        yield {name: value.to(device) for name, value in batch.items()}


def compare(task: Task, device: torch.device, size: int = 4) -> int:
    """The records on which both, with the same weights, have the same losses and gradients.

    The plain decoder reads words here, as ours does.

    Raises:
        ValueError: they differ.
    """
    torch.manual_seed(0)
    ours = task.ours().to(device).eval()
    with torch.no_grad():
        for parameter in ours.parameters():  # GRN's start at zero, where it is no GRN
            parameter += 0.02 * torch.randn_like(parameter)
    plain = task.plain().to(device).eval()
    plain.load_ours(ours.state_dict())
    plain.decoder_reads = "words"
    (batch,) = draw_batches(task, size, 1, device)
    ids_BN, mask_BN = batch["input_ids"], batch["attention_mask"]
    output = ours(batch["ecg"], ids_BN, mask_BN, ids_BN, mask_BN)
    found = (
        losses.contrastive_loss(
            output.ecg_BD, output.text_BD, output.logit_scale, batch["concept_key"]
        ),
        losses.captioning_loss(output.caption_loss, losses.count_tokens(mask_BN)),
    )
    wanted = plain(batch["ecg"], ids_BN, mask_BN)
    for name, one, other in zip(("contrastive", "captioning"), found, wanted, strict=True):
        if not torch.allclose(one, other, rtol=AGREEMENT):
            raise ValueError(f"the {name} losses differ: {one.item()} and {other.item()}")
    sum(found).backward()  # type: ignore[union-attr]
    sum(wanted).backward()  # type: ignore[union-attr]
    gradients = plain.named_as_ours()
    largest = max(float(p.grad.abs().max()) for p in gradients.values() if p.grad is not None)
    for name, parameter in ours.named_parameters():
        one, other = parameter.grad, gradients[name].grad
        if (one is None) != (other is None):
            raise ValueError(f"only one of both has a gradient of {name}")
        if one is None or other is None:
            continue
        # The bias of a key has no true gradient: rounding alone.
        error = float((one - other).abs().max())
        if error > AGREEMENT * max(float(other.abs().max()), 1e-3 * largest):
            raise ValueError(f"the gradients of {name} differ by {error:.2g}")
    return size


class Loop:
    """What DeepSpeed's engine does on one device, in four lines of PyTorch."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float) -> None:
        self.model, self.optimizer, self.clip = model, optimizer, clip

    def __call__(self, *inputs: Tensor) -> Any:
        """The forward pass."""
        return self.model(*inputs)

    def backward(self, loss: Tensor) -> None:
        """The backward pass."""
        loss.backward()

    def step(self) -> None:
        """Clips and updates."""
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def our_step(task: Task, device: torch.device) -> Step:
    """The step of tools/pretrain.py, DeepSpeed included."""
    import deepspeed

    recipe, on_gpu = task.recipe, device.type == "cuda"
    model = task.ours()
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=our_optimizer(model, task),
        config=deepspeed_config(recipe, on_gpu=on_gpu), dist_init_required=False,
    )  # fmt: skip
    engine.train()
    return lambda batch: take_step(engine, batch["ecg"], batch, recipe.train, seed=1)


def our_optimizer(model: torch.nn.Module, task: Task) -> torch.optim.AdamW:
    """That of tools/pretrain.py."""
    settings = task.recipe.optim
    named = model.named_parameters()
    return optim.adamw(named, lr=settings.lr, weight_decay=settings.weight_decay)


def our_bare_step(task: Task, device: torch.device) -> Step:
    """Ours without DeepSpeed."""
    model = task.ours().to(device).train()
    engine = Loop(model, our_optimizer(model, task), task.recipe.optim.clip)
    return lambda batch: take_step(engine, batch["ecg"], batch, task.recipe.train, seed=1)


def plain_step(task: Task, device: torch.device) -> Step:
    """The plain model in the plain loop; on a GPU under bf16 autocast."""
    model, settings = task.plain().to(device).train(), task.recipe.optim
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.lr, (0.9, 0.98), 1e-6, settings.weight_decay
    )
    loop = Loop(model, optimizer, settings.clip)

    def step(batch: Batch) -> object:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            contrastive, captioning = loop(
                batch["ecg"], batch["input_ids"], batch["attention_mask"]
            )
            loss = contrastive + task.recipe.train.captioning_weight * captioning
        loop.backward(loss)
        loop.step()
        return contrastive.detach(), captioning.detach()

    return step
