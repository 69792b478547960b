"""Weights in the layout of the published ESI, behind the doors that evaluation uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI
    from esi_fast.models.original import OriginalESI
    from esi_fast.models.original_weights import OriginalConfig


class PublishedModel(nn.Module):
    """The published arithmetic on recordings as evaluation gives them, to embed ECGs and texts.

    It cannot caption, since its decoder reads the caption that it should write, and it is not
    fine-tuned.

    Args:
        original: with a tokenizer.
    """

    def __init__(self, original: OriginalESI) -> None:
        super().__init__()
        self.original = original

    @property
    def config(self) -> OriginalConfig:
        """Sizes, 500 Hz and 5,000 samples."""
        return self.original.config

    def encode_ecg(self, x: Tensor, normalize: bool = True) -> Tensor:
        """(B, 12, T) mV at 500 Hz, standard order of leads, NaN missing, to embeddings (B, D)."""
        return self.original.encode_ecg(self.original.preprocess(x, self.config.fs), normalize)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit embeddings (B, D)."""
        return self.original.encode_text(texts)

    def untrained_copy(self, seed: int) -> PublishedModel:
        """The same architecture and tokenizer with fresh random weights: the baseline."""
        return PublishedModel(self.original.untrained_copy(seed))


def is_published(path: Path) -> bool:
    """Whether a model is not of this project's own format, whose folders have a config.json."""
    return not (path / "config.json").is_file()


def load_model(path: Path, tokenizer: str) -> ESI | PublishedModel:
    """A model folder of this project, or weights in the published layout.

    Args:
        path: the folder, or what :func:`esi_fast.load_original` takes.
        tokenizer: of the published model, by name or folder; not used for the project's own.

    Raises:
        FileNotFoundError, ValueError: as the two loaders; published weights without a tokenizer.
    """
    if is_published(path):
        if not tokenizer:
            raise ValueError(f"{path} has no config.json: weights in the published layout need a "
                             "tokenizer beside them")  # fmt: skip
        from esi_fast.models.original import load_original

        return PublishedModel(load_original(path, tokenizer=tokenizer))
    from esi_fast.models.esi import ESI

    return ESI.from_pretrained(path)


def require_own(model: object, task: str) -> ESI:
    """The model, if it is one that can caption and be fine-tuned.

    Raises:
        ValueError: it is in the published layout.
    """
    from esi_fast.models.esi import ESI

    if not isinstance(model, ESI):
        raise ValueError(
            f"{task} is not for weights in the published layout: embed them with zeroshot, probe, "
            "retrieval or identify"
        )
    return model
