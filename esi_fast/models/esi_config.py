"""The settings of an ESI: flat, as they stand in ``config.json``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from esi_fast.models.loading import read_json

CONFIG_FILE = "config.json"
# What Hugging Face's Auto classes go by; see transformers_adapter.
MODEL_TYPE = "esi"
_COUNTS = (
    "num_samples", "embed_dim", "max_tokens", "decoder_dim", "decoder_layers", "decoder_heads",
)  # fmt: skip
# What transformers adds to a config.json that it writes.
_BOOKKEEPING = {
    "transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path", "auto_map",
}  # fmt: skip


@dataclass(frozen=True)
class ESIConfig:
    """Everything that the architecture and the arithmetic depend on; flat, as ``config.json``.

    Attributes:
        encoder: a name of ``list_models``.
        fs: Hz that the encoder expects.
        num_samples: T of the records it was trained on.
        ecg_scale: millivolts are multiplied by it; the same for every record, so voltage stays.
        drop_path: stochastic depth of the encoder.
        embed_dim: D, the width of the shared space.
        max_tokens: captions are cut to this many tokens.
        decoder_dim, decoder_layers, decoder_heads: of the caption decoder.
        pooling: of the ECG tokens to one vector: their ``"mean"``, or ``"attention"``.
        contrast: ``"softmax"``, over the batch, or ``"sigmoid"``, pair by pair (SigLIP).
    """

    encoder: str = "convnextv2_base"
    fs: float = 500.0
    num_samples: int = 5000
    ecg_scale: float = 4.0
    drop_path: float = 0.0
    embed_dim: int = 512
    max_tokens: int = 256
    decoder_dim: int = 768
    decoder_layers: int = 6
    decoder_heads: int = 12
    pooling: Literal["mean", "attention"] = "mean"
    contrast: Literal["softmax", "sigmoid"] = "softmax"

    def __post_init__(self) -> None:
        """Refuse what there is not.

        Raises:
            ValueError: an unknown pooling or contrast, or a value of another kind or range.
        """
        if not isinstance(self.encoder, str):
            raise ValueError(f"encoder is {self.encoder!r}; give a name of list_models")
        for name in ("fs", "ecg_scale"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}; give a positive number")
        if not _is_number(self.drop_path) or not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path!r}; give a number in [0, 1)")
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        for name, known in (
            ("pooling", ("mean", "attention")),
            ("contrast", ("softmax", "sigmoid")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} is {value!r}; give {' or '.join(known)}")

    def save(self, path: Path) -> None:
        """Write ``config.json``: the settings, and the type of the model."""
        settings = {"model_type": MODEL_TYPE} | asdict(self)
        path.write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> ESIConfig:
        """Read what :meth:`save` wrote; without a type it is an older one.

        Raises:
            ValueError: it is no JSON object, of another type, or holds an unknown setting.
        """
        settings = read_json(path)
        found = settings.pop("model_type", MODEL_TYPE)
        if found != MODEL_TYPE:
            raise ValueError(f"{path}: the model is a {found}, not an {MODEL_TYPE}")
        known = {field.name for field in fields(cls)}
        if unknown := set(settings) - known - _BOOKKEEPING:
            raise ValueError(f"{path}: unknown setting(s) {', '.join(sorted(unknown))}")
        try:
            return cls(**{name: settings[name] for name in known if name in settings})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
