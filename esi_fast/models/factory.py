"""``create_model`` and ``list_models``, with timm's names and meaning."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from esi_fast.models.convnext1d import VARIANTS, ConvNeXtV2Encoder1d


def list_models(
    filter: str | Sequence[str] | None = "",
    pretrained: bool = False,
    exclude_filters: str | Sequence[str] | None = "",
) -> list[str]:
    """The encoders that :func:`create_model` knows, smallest first.

    Args:
        filter: a pattern as in a shell, or several of which one must fit; "" or None for all.
        pretrained: those with weights to download only: none.
        exclude_filters: a pattern, or several, of those to leave out; "" or None for none.
    """
    return [
        name
        for name in ([] if pretrained else VARIANTS)
        if _fits(name, filter or "*") and not _fits(name, exclude_filters or ())
    ]


def _fits(name: str, patterns: str | Sequence[str]) -> bool:
    some = (patterns,) if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in some)


def create_model(
    model_name: str,
    pretrained: bool = False,
    *,
    in_chans: int = 12,
    num_classes: int = 0,
    drop_path_rate: float = 0.0,
) -> ConvNeXtV2Encoder1d:
    """An ECG encoder with fresh weights.

    timm's or FAIR's ConvNeXt V2 weights load through ``models.convert.convnextv2_from_2d``.

    Args:
        model_name: one of :func:`list_models`.
        pretrained: refused, as no encoder has weights to download.
        in_chans: leads.
        num_classes: width of the head; 0 gives pooled features.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: the name is unknown (the message has the nearest one), ``pretrained``, or a
            number is out of its range.
    """
    if model_name not in VARIANTS:
        nearest = difflib.get_close_matches(model_name, VARIANTS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(VARIANTS)}"
        raise ValueError(f"unknown model {model_name!r}; {hint}")
    if pretrained:
        raise ValueError(
            f"{model_name} has no weights to download: the encoder of a trained model is "
            "ESI.from_pretrained(DIR).ecg"
        )
    if in_chans < 1:
        raise ValueError(f"in_chans is {in_chans}; give 1 or more")
    if num_classes < 0:
        raise ValueError(f"num_classes is {num_classes}; give 0 for none, or more")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate is {drop_path_rate}; give a number in [0, 1)")
    depths, channels = VARIANTS[model_name]
    return ConvNeXtV2Encoder1d(
        depths, channels, in_chans=in_chans, num_classes=num_classes, drop_path=drop_path_rate
    )
