"""Augmentation, seeded by (seed, epoch, row): a resumed run draws what it would have drawn."""

from __future__ import annotations

import random


def sample_sentences(caption: str, *, seed: int, epoch: int, row: int, share: float) -> str:
    """Some sentences of a caption, in their order, or the whole of it.

    A caption says many things at once, and a model that has only ever read whole captions cannot
    place a text that says one of them, such as a zero-shot prompt. So a share of the captions is
    cut to one, two or three sentences drawn at random (compare the sub-captions of DreamLIP, Zheng
    et al., ECCV 2024).

    Args:
        caption: sentences that end in a full stop.
        seed, epoch, row: what the draw depends on, and nothing else.
        share: probability of a cut, 0 to 1.

    Returns:
        The text for the contrastive loss.
    """
    draw = random.Random(f"{seed} {epoch} {row}")
    sentences = caption.removesuffix(".").split(". ")
    if draw.random() >= share or len(sentences) == 1:
        return caption
    kept = sorted(draw.sample(range(len(sentences)), min(draw.randint(1, 3), len(sentences))))
    return ". ".join(sentences[index] for index in kept) + "."
