"""What a recipe's model is made of, in numbers, without drawing a weight or loading one."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esi_fast.cli import UsageError
from esi_fast.config import Recipe
from esi_fast.models.convnext1d import STEM_STRIDE, VARIANTS
from esi_fast.models.esi import ESIConfig
from esi_fast.models.text import small_bert_config
from esi_fast.recipe_rules import lora_rank, small_bert_sizes

_HUB_TIMEOUT_S = 5.0
# What the models' own config.json say, for machines that have neither them nor the network: both
# are uncased BERTs (Yasunaga, Leskovec & Liang, "LinkBERT", ACL 2022, section 5).
_BIOLINKBERT = {"vocab_size": 28895, "max_position_embeddings": 512}
_BUILT_IN = {
    "michiyasunaga/BioLinkBERT-base": _BIOLINKBERT,
    "michiyasunaga/BioLinkBERT-large": _BIOLINKBERT
    | {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}


@dataclass(frozen=True)
class TextSizes:
    """The configuration of a text encoder, and where it comes from.

    Attributes:
        config: a ``transformers.BertConfig``.
        source: for people: "a fresh one", "local folder", "hub cache", "hub", or "built-in sizes".
    """

    config: Any
    source: str


@dataclass(frozen=True)
class Sizes:
    """All that operations and memory of a model depend on.

    Attributes:
        num_samples: T of a record.
        depths, channels: of the ECG encoder's stages.
        attention_pool: whether attention makes the ECG's embedding, and not the mean.
        text_width, text_layers, text_heads, text_inner: of the BERT.
        text_dropout: whether it has any.
        text_mode: ``"train"``, ``"frozen"`` or ``"lora"``.
        lora_rank: 0 without adapters.
        vocab_size: V.
        embed_dim: of the shared space.
        decoder_dim, decoder_layers, decoder_heads: of the caption decoder.
        recompute: whether activations are computed again in the backward pass.
    """

    num_samples: int
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    attention_pool: bool
    text_width: int
    text_layers: int
    text_heads: int
    text_inner: int
    text_dropout: bool
    text_mode: str
    lora_rank: int
    vocab_size: int
    embed_dim: int
    decoder_dim: int
    decoder_layers: int
    decoder_heads: int
    recompute: bool

    @property
    def stage_lengths(self) -> list[int]:
        """Positions in each stage of the ECG encoder; the last are the ECG tokens."""
        return [self.num_samples // STEM_STRIDE // 2**stage for stage in range(len(self.channels))]


def num_heads(width: int) -> int:
    """Heads of 64, or of 16 where there is not the width for several of them."""
    return width // 64 if width % 64 == 0 and width > 64 else width // 16


def architecture(recipe: Recipe, fs: float, num_samples: int) -> ESIConfig:
    """What a recipe makes of records of ``num_samples`` at ``fs`` Hz, already cropped."""
    model = recipe.model
    return ESIConfig(
        encoder=model.encoder,
        fs=fs,
        num_samples=num_samples,
        drop_path=model.drop_path,
        embed_dim=model.embed_dim,
        max_tokens=model.max_tokens,
        decoder_dim=model.decoder_dim,
        decoder_layers=model.decoder_layers,
        decoder_heads=num_heads(model.decoder_dim),
        pooling=model.pooling,
        contrast="sigmoid" if recipe.train.contrast == "sigmoid" else "softmax",
    )


def sizes_of(recipe: Recipe, config: ESIConfig, text_config: Any) -> Sizes:
    """The sizes of a recipe's model."""
    rank = lora_rank(recipe.model.text_mode)
    depths, channels = VARIANTS[config.encoder]
    return Sizes(
        num_samples=config.num_samples,
        depths=depths,
        channels=channels,
        attention_pool=config.pooling == "attention",
        text_width=text_config.hidden_size,
        text_layers=text_config.num_hidden_layers,
        text_heads=text_config.num_attention_heads,
        text_inner=text_config.intermediate_size,
        text_dropout=text_config.hidden_dropout_prob > 0,
        text_mode="lora" if rank else recipe.model.text_mode,
        lora_rank=rank,
        vocab_size=text_config.vocab_size,
        embed_dim=config.embed_dim,
        decoder_dim=config.decoder_dim,
        decoder_layers=config.decoder_layers,
        decoder_heads=config.decoder_heads,
        recompute=recipe.train.checkpoint_activations,
    )


def text_sizes(text_model: str, max_tokens: int) -> TextSizes:
    """The configuration of ``model.text_model``; no weights are read.

    Tried in this order: ``bert:64x2x1500``, a local folder, the hub's cache, the sizes of
    BioLinkBERT that are known here, the hub (for at most a few seconds).

    Args:
        text_model: as in the recipe.
        max_tokens: positions of a fresh BERT.

    Raises:
        UsageError: it cannot be had, or is no BERT.
    """
    if text_model.startswith("bert:"):
        hidden, layers, vocabulary = small_bert_sizes(text_model)
        config = small_bert_config(
            vocabulary,
            hidden=hidden,
            layers=layers,
            heads=num_heads(hidden),
            max_tokens=max_tokens,
            dropout=0.0,
        )
        return TextSizes(config, "a fresh one")
    settings, source = _settings(text_model)
    if settings.get("model_type", "bert") != "bert":
        raise UsageError(f"text model {text_model!r} is a {settings['model_type']}, not a BERT")
    from transformers import BertConfig

    return TextSizes(BertConfig.from_dict(settings), source)


def _settings(text_model: str) -> tuple[dict[str, Any], str]:
    """The content of a model's ``config.json``, and where it was found."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(text_model).is_dir():
        return _read(Path(text_model) / "config.json"), "local folder"
    try:
        cached = try_to_load_from_cache(text_model, "config.json")
    except HFValidationError:
        raise UsageError(
            f"text model {text_model!r} is neither a folder nor a name on the hub"
        ) from None
    if isinstance(cached, str):
        return _read(Path(cached)), "hub cache"
    if text_model in _BUILT_IN:
        return dict(
            _BUILT_IN[text_model]
        ), "built-in sizes: the model itself is not on this machine"
    return _from_hub(text_model), "hub"


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a model's configuration: {error}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{path} is not a model's configuration")
    return settings


def _from_hub(text_model: str) -> dict[str, Any]:
    """One request: the hub's own client tries for half a minute where there is no network."""
    from huggingface_hub import constants, hf_hub_url

    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        url = hf_hub_url(text_model, "config.json")
        with urllib.request.urlopen(url, timeout=_HUB_TIMEOUT_S) as reply:
            settings: dict[str, Any] = json.load(reply)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"text model {text_model!r} cannot be had ({error}): download it once with "
            f"`hf download {text_model}` and pass its folder as --model.text-model"
        ) from None
    return settings
