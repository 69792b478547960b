"""ECGs and texts as a model takes them, by its settings alone: no weights are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from esi_fast.models.esi_config import ESIConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from esi_fast.signal.inputs import ECGSource


def prepare_ecg(
    config: ESIConfig,
    ecg: ECGSource,
    *,
    fs: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
) -> Tensor:
    """As :meth:`esi_fast.ESI.preprocess`, for a model of these settings."""
    from esi_fast.signal.inputs import read_ecg
    from esi_fast.signal.resample import resample

    record = read_ecg(ecg, fs=fs, leads=leads, unit=unit)
    signal = torch.from_numpy(resample(record.signal, record.fs, config.fs))
    signal = signal[:, : config.num_samples].float()
    return F.pad(signal, (0, config.num_samples - signal.shape[1]), value=math.nan)


def tokenize(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int
) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, ``(B, N)`` int64, cut to ``max_tokens``."""
    encoded = tokenizer(
        list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}
