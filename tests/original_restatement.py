"""The published ESI once more, as plain arithmetic: the oracle of ``esi_fast.models.original``.

Written from the notes on the state dict alone, and unlike the package on purpose: channels-first,
float64, loops over heads and positions, the padding left out instead of masked, the ECG context
repeated as published. Also a random state dict of any size in the published layout.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]
TEXT = "pretrained_text_encoder"


class Sizes(NamedTuple):
    depths: tuple[int, ...] = (1, 1, 2, 1)
    channels: tuple[int, ...] = (8, 12, 16, 24)
    dim: int = 64
    text_layers: int = 1
    vocab: int = 50
    positions: int = 32
    layers: int = 2
    heads: int = 8
    head_dim: int = 64
    ff_mult: int = 4


TINY = Sizes()
BASE = Sizes((3, 3, 27, 3), (128, 256, 512, 1024), 768, 12, 28895, 512, 6)


def layout(s: Sizes) -> dict[str, tuple[int, ...]]:
    """Every name of the safetensors file that accelerate writes, with its shape."""
    out: dict[str, tuple[int, ...]] = {"temperature": (1,)}

    def affine(name: str, *weight: int, bias: bool = True) -> None:
        out[f"{name}.weight"] = weight
        if bias:
            out[f"{name}.bias"] = (1, weight[1], 1) if weight[0] == 1 < len(weight) else weight[:1]

    def gamma(name: str, *shape: int) -> None:
        out[f"{name}.gamma"] = out[f"{name}.beta"] = shape

    encoder, width, attention = "img_encoder", s.channels[-1], s.heads * s.head_dim
    for i, c in enumerate(s.channels):
        before = s.channels[i - 1] if i else 12
        convolution, norm = (1, 0) if i else (0, 1)
        affine(f"{encoder}.downsample_layers.{i}.{convolution}", c, before, 2 if i else 4)
        affine(f"{encoder}.downsample_layers.{i}.{norm}", 1, before if i else c, 1)
        for j in range(s.depths[i]):
            block = f"{encoder}.stages.{i}.{j}"
            affine(f"{block}.dwconv", c, 1, 7)
            affine(f"{block}.norm", c)
            affine(f"{block}.pwconv1", 4 * c, c)
            gamma(f"{block}.grn", 1, 1, 4 * c)
            affine(f"{block}.pwconv2", c, 4 * c)
    affine(f"{encoder}.norm", width)
    affine(f"{encoder}.head", 5, width)
    affine("img_token_head", s.dim, width)
    gamma("img_attn_pool.norm", s.dim)
    gamma("img_attn_pool.context_norm", width)
    affine("img_attn_pool.to_q", 512, s.dim, bias=False)
    affine("img_attn_pool.to_kv", 128, width, bias=False)
    affine("img_attn_pool.to_out", s.dim, 512, bias=False)
    gamma("img_attn_pool_norm", s.dim)
    gamma("text_cls_norm", s.dim)
    for side in ("img", "text"):
        affine(f"{side}_to_latents.to_latents", s.dim, s.dim, bias=False)
    for kind, count in (("word", s.vocab), ("position", s.positions), ("token_type", 2)):
        affine(f"{TEXT}.embeddings.{kind}_embeddings", count, s.dim, bias=False)
    affine(f"{TEXT}.embeddings.LayerNorm", s.dim)
    for n in range(s.text_layers):
        layer = f"{TEXT}.encoder.layer.{n}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            affine(f"{layer}.attention.{part}", s.dim, s.dim)
        affine(f"{layer}.attention.output.LayerNorm", s.dim)
        affine(f"{layer}.intermediate.dense", 4 * s.dim, s.dim)
        affine(f"{layer}.output.dense", s.dim, 4 * s.dim)
        affine(f"{layer}.output.LayerNorm", s.dim)
    affine(f"{TEXT}.pooler.dense", s.dim, s.dim)
    inner = s.ff_mult * s.dim
    for m in range(s.layers):
        first, second = f"multimodal_layers.{m}.0.fn", f"multimodal_layers.{m}.1.fn"
        gamma(f"{first}.norm", s.dim)
        out[f"{first}.rotary_emb.inv_freq"] = (s.head_dim // 2,)
        rows = attention + 2 * s.head_dim + 2 * inner
        affine(f"{first}.fused_attn_ff_proj", rows, s.dim, bias=False)
        affine(f"{first}.attn_out", s.dim, attention, bias=False)
        affine(f"{first}.ff_out.1", s.dim, inner, bias=False)
        gamma(f"{second}.norm", s.dim)
        affine(f"{second}.to_q", attention, s.dim, bias=False)
        affine(f"{second}.to_kv", 2 * s.head_dim, s.dim, bias=False)
        affine(f"{second}.to_out", s.dim, attention, bias=False)
        affine(f"{second}.ff.0", 2 * inner, s.dim, bias=False)
        affine(f"{second}.ff.2", s.dim, inner, bias=False)
    gamma("to_logits.0", s.dim)
    affine("to_logits.1", s.vocab, s.dim, bias=False)
    return out


def random_state(s: Sizes, seed: int) -> State:
    """Float32 weights; nothing is zero or one where that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in layout(s).items():
        x = torch.randn(shape, generator=generator)
        if name.endswith("inv_freq"):
            x = 10000.0 ** -(torch.arange(0, s.head_dim, 2) / s.head_dim)
        elif len(shape) > 1 and shape[0] > 1 and "embeddings" not in name:
            x = x / math.prod(shape[1:]) ** 0.5
        else:
            is_scale = ("gamma" in name and "grn" not in name) or "orm.weight" in name
            x = 0.3 * x + float(is_scale)
        state[name] = x
    return state


def random_inputs(sizes: Sizes, num_tokens: int, num_samples: int, seed: int) -> tuple[Tensor, ...]:
    """ECGs, ids and mask of three records, two of them padded."""
    generator = torch.Generator().manual_seed(seed)
    ecg = torch.randn(3, 12, num_samples, generator=generator)
    ids = torch.randint(1, sizes.vocab, (3, num_tokens), generator=generator)
    mask = torch.ones_like(ids)
    for record, length in ((1, num_tokens - 4), (2, num_tokens // 2)):
        ids[record, length:] = mask[record, length:] = 0
    return ecg, ids, mask


def forward(state: State, ecg: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All outputs, float64, of ECGs ``(B, 12, T)`` and ids and mask ``(B, N)``."""
    w = {name: value.double() for name, value in state.items()}
    vector = ecg_vector(w, ecg.double())
    states = bert(w, ids, mask)
    out = {"ecg_embeds": vector, "text_embeds": states[:, 0]}
    out["ecg_latents"], out["text_latents"] = latents(w, vector, states[:, 0])
    tokens = ecg.shape[2] // 4 // 2 // 2 // 2
    out["logits"] = decode(w, states[:, 1:], vector, tokens)

    states = bert(w, ids[:, :-1], mask[:, :-1])
    logits = decode(w, states[:, 1:], vector, tokens)
    nats = [
        -logits[b, n].log_softmax(0)[word]
        for b, row in enumerate(ids[:, 2:])
        for n, word in enumerate(row)
        if word != 0
    ]
    caption = torch.stack(nats).mean()
    ecg_side, text_side = latents(w, vector, states[:, 0])
    similarity = w["temperature"].exp() * text_side @ ecg_side.T
    rows = sum(-similarity[b].log_softmax(0)[b] for b in range(len(ids))) / len(ids)
    columns = sum(-similarity[:, b].log_softmax(0)[b] for b in range(len(ids))) / len(ids)
    contrastive = (rows + columns) / 2
    out["losses"] = torch.stack([caption + contrastive, caption, contrastive])
    return out


def latents(w: State, ecg: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    pair = (
        ecg @ w["img_to_latents.to_latents.weight"].T,
        text @ w["text_to_latents.to_latents.weight"].T,
    )
    first, second = (x / x.square().sum(1, keepdim=True).sqrt() for x in pair)
    return first, second


def normed(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * scale + shift


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def convolve(w: State, name: str, x: Tensor, stride: int) -> Tensor:
    """``(B, C, T)``: one matrix product a kernel position; a remainder is dropped."""
    weight = w[f"{name}.weight"]
    steps = x.shape[2] // stride
    taps = [
        torch.einsum("oc,bct->bot", weight[:, :, k], x[:, :, k::stride][:, :, :steps])
        for k in range(weight.shape[2])
    ]
    return sum(taps) + w[f"{name}.bias"][:, None]


def over_time(w: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.sum(2, keepdim=True) / x.shape[2]
    deviation = (centred.square().sum(2, keepdim=True) / (x.shape[2] - 1)).sqrt()
    return centred / (deviation + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def ecg_vector(w: State, x: Tensor) -> Tensor:
    for stage in range(4):
        name = f"img_encoder.downsample_layers.{stage}"
        if stage == 0:
            x = over_time(w, f"{name}.1", convolve(w, f"{name}.0", x, 4))
        else:
            x = convolve(w, f"{name}.1", over_time(w, f"{name}.0", x), 2)
        depth = 0
        while f"img_encoder.stages.{stage}.{depth}.norm.weight" in w:
            x = x + block(w, f"img_encoder.stages.{stage}.{depth}", x)
            depth += 1
    pooled = x.mean(2)
    pooled = normed(pooled, w["img_encoder.norm.weight"], w["img_encoder.norm.bias"], 1e-6)
    projected = pooled @ w["img_token_head.weight"].T + w["img_token_head.bias"]
    return normed(projected, w["img_attn_pool_norm.gamma"], w["img_attn_pool_norm.beta"], 1e-5)


def block(w: State, name: str, x: Tensor) -> Tensor:
    steps, kernel = x.shape[2], w[f"{name}.dwconv.weight"]
    wide = torch.cat([x.new_zeros(*x.shape[:2], 3), x, x.new_zeros(*x.shape[:2], 3)], dim=2)
    x = sum(kernel[:, 0, k, None] * wide[:, :, k : k + steps] for k in range(7))
    x = (x + w[f"{name}.dwconv.bias"][:, None]).transpose(1, 2)
    x = normed(x, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"], 1e-6)
    x = gelu(x @ w[f"{name}.pwconv1.weight"].T + w[f"{name}.pwconv1.bias"])
    size = x.square().sum(1, keepdim=True).sqrt()
    size = size / (size.mean(2, keepdim=True) + 1e-6)
    x = w[f"{name}.grn.gamma"] * x * size + w[f"{name}.grn.beta"] + x
    return (x @ w[f"{name}.pwconv2.weight"].T + w[f"{name}.pwconv2.bias"]).transpose(1, 2)


def bert(w: State, ids: Tensor, mask: Tensor) -> Tensor:
    """Hidden states ``(B, N, D)``: every position looks at the real tokens, and only at them."""
    prefix = f"{TEXT}.embeddings"
    x = w[f"{prefix}.word_embeddings.weight"][ids]
    x = x + w[f"{prefix}.position_embeddings.weight"][: ids.shape[1]]
    x = x + w[f"{prefix}.token_type_embeddings.weight"][0]
    x = normed(x, w[f"{prefix}.LayerNorm.weight"], w[f"{prefix}.LayerNorm.bias"], 1e-12)
    return torch.stack([bert_record(w, x[b], mask[b].bool()) for b in range(len(ids))])


def bert_record(w: State, x: Tensor, real: Tensor) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def add_and_norm(name: str, x: Tensor, branch: Tensor) -> Tensor:
        return normed(x + branch, w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    depth = 0
    while f"{TEXT}.encoder.layer.{depth}.output.dense.weight" in w:
        name = f"{TEXT}.encoder.layer.{depth}"
        q = linear(f"{name}.attention.self.query", x)
        k, v = (linear(f"{name}.attention.self.{part}", x[real]) for part in ("key", "value"))
        heads = [
            (q[:, h : h + 64] @ k[:, h : h + 64].T / 8).softmax(1) @ v[:, h : h + 64]
            for h in range(0, x.shape[1], 64)
        ]
        branch = linear(f"{name}.attention.output.dense", torch.cat(heads, dim=1))
        x = add_and_norm(f"{name}.attention.output.LayerNorm", x, branch)
        branch = linear(f"{name}.output.dense", gelu(linear(f"{name}.intermediate.dense", x)))
        x = add_and_norm(f"{name}.output.LayerNorm", x, branch)
        depth += 1
    return x


def decode(w: State, x: Tensor, vector: Tensor, tokens: int) -> Tensor:
    """Logits ``(B, N, V)`` of states ``(B, N, D)`` and the pooled ECG ``(B, D)``."""
    rows = []
    for record, context in zip(x, vector.unsqueeze(1).expand(-1, tokens, -1), strict=True):
        depth, y = 0, record
        while f"multimodal_layers.{depth}.0.fn.norm.gamma" in w:
            y = y + self_attention(w, f"multimodal_layers.{depth}.0.fn", y)
            y = y + cross_attention(w, f"multimodal_layers.{depth}.1.fn", y, context)
            depth += 1
        y = normed(y, w["to_logits.0.gamma"], w["to_logits.0.beta"], 1e-5)
        rows.append(y @ w["to_logits.1.weight"].T)
    return torch.stack(rows)


def gated(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:] * torch.sigmoid(x[:, half:])


def turned(x: Tensor, position: int, frequency: Tensor) -> Tensor:
    """Channel i and channel i + width / 2 as the two parts of a complex number."""
    half = len(x) // 2
    z = torch.complex(x[:half], x[half:]) * torch.exp(1j * position * frequency)
    return torch.cat([z.real, z.imag])


def self_attention(w: State, name: str, x: Tensor) -> Tensor:
    x = normed(x, w[f"{name}.norm.gamma"], w[f"{name}.norm.beta"], 1e-5)
    frequency = w[f"{name}.rotary_emb.inv_freq"]
    width = 2 * len(frequency)
    inner = w[f"{name}.attn_out.weight"].shape[1]
    projected = x @ w[f"{name}.fused_attn_ff_proj.weight"].T
    key_at, value_at, ff_at = inner, inner + width, inner + 2 * width
    keys = [turned(row[key_at:value_at], n, frequency) for n, row in enumerate(projected)]
    values = projected[:, value_at:ff_at]
    rows = []
    for n, row in enumerate(projected):
        heads = []
        for h in range(0, inner, width):
            query = turned(row[h : h + width], n, frequency) * width**-0.5
            score = torch.stack([query @ key for key in keys[: n + 1]])
            heads.append(score.softmax(0) @ values[: n + 1])
        rows.append(torch.cat(heads))
    attended = torch.stack(rows) @ w[f"{name}.attn_out.weight"].T
    return attended + gated(projected[:, ff_at:]) @ w[f"{name}.ff_out.1.weight"].T


def cross_attention(w: State, name: str, x: Tensor, context: Tensor) -> Tensor:
    x = normed(x, w[f"{name}.norm.gamma"], w[f"{name}.norm.beta"], 1e-5)
    q = x @ w[f"{name}.to_q.weight"].T
    both = context @ w[f"{name}.to_kv.weight"].T
    width = both.shape[1] // 2
    k, v = both[:, :width], both[:, width:]
    heads = [
        (q[:, h : h + width] * width**-0.5 @ k.T).softmax(1) @ v
        for h in range(0, q.shape[1], width)
    ]
    attended = torch.cat(heads, dim=1) @ w[f"{name}.to_out.weight"].T
    return attended + gated(x @ w[f"{name}.ff.0.weight"].T) @ w[f"{name}.ff.2.weight"].T
