"""A model whose answers are known, for the tests of search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from shard_tree import NUM_SAMPLES, signal_of
from torch.nn import functional as F

from esi_fast.models.esi import ESI, ESIConfig


class PlantedESI(ESI):
    """Embeds an ECG as the first sample of its twelve leads, and "lead 3" as that lead alone."""

    def encode_ecg(self, ecg_BLT: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        first_BD = torch.nan_to_num(ecg_BLT[:, :, 0])
        return F.normalize(first_BD, dim=-1) if normalize else first_BD

    def encode_text(self, texts: Sequence[str], normalize: bool = True) -> torch.Tensor:
        return torch.eye(12)[[int(text.split()[-1]) for text in texts]]


def planted_model(seed: int = 0) -> PlantedESI:
    torch.manual_seed(seed)
    config = ESIConfig(
        encoder="convnextv2_zepto", fs=500.0, num_samples=NUM_SAMPLES, embed_dim=12, max_tokens=16,
        decoder_dim=8, decoder_layers=1, decoder_heads=1,
    )  # fmt: skip
    captions = ["sinus rhythm", "atrial fibrillation"]
    model = PlantedESI.from_captions(config, captions, vocab_size=150, hidden=8, layers=1, heads=1)
    assert isinstance(model, PlantedESI)
    return model.eval()


def unit_of(number: int) -> np.ndarray:
    first = signal_of(number)[:, 0].astype(np.float64)
    return first / np.linalg.norm(first)
