"""``create_model`` and ``list_models``, with timm's names and meaning."""

from __future__ import annotations

import difflib
import fnmatch

from esi_fast.models.convnext1d import VARIANTS, ConvNeXtV2Encoder1d


def list_models(pattern: str = "*") -> list[str]:
    """The encoders that :func:`create_model` knows, smallest first; ``pattern`` as in a shell."""
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name, pattern)]


def create_model(
    name: str, *, in_chans: int = 12, num_classes: int = 0, drop_path: float = 0.0
) -> ConvNeXtV2Encoder1d:
    """An ECG encoder with fresh weights.

    Args:
        name: one of :func:`list_models`.
        in_chans: leads.
        num_classes: width of the head; 0 gives pooled features.
        drop_path: stochastic depth of the last block.

    Raises:
        ValueError: the name is unknown; the message has the nearest one.
    """
    if name not in VARIANTS:
        nearest = difflib.get_close_matches(name, VARIANTS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(VARIANTS)}"
        raise ValueError(f"unknown model {name!r}; {hint}")
    depths, channels = VARIANTS[name]
    return ConvNeXtV2Encoder1d(
        depths, channels, in_chans=in_chans, num_classes=num_classes, drop_path=drop_path
    )
