"""Augmentation of captions, seeded by (seed, epoch, row): a resumed run draws what it would have.

Signals: see `esi_fast.data.augment_signal`.
"""

from __future__ import annotations

import random


def sentences_of(caption: str) -> list[str]:
    """The sentences of a caption, each with its full stop; joined by blanks they are the caption.

    A full stop ends a sentence where a blank follows.
    """
    sentences = caption.split(". ")
    return [*(f"{sentence}." for sentence in sentences[:-1]), sentences[-1]]


def draw_sentences(
    num_sentences: int, *, seed: int, epoch: int, row: int, share: float
) -> list[int] | None:
    """Which sentences of a caption are kept, ascending; None keeps the whole of it.

    A caption says many things at once, and a model that has only ever read whole captions cannot
    place a text that says one of them, such as a zero-shot prompt. So a share of the captions is
    cut to one, two or three sentences drawn at random (compare the sub-captions of DreamLIP, Zheng
    et al., ECCV 2024).

    Args:
        num_sentences: how many the caption has.
        seed, epoch, row: what the draw depends on, and nothing else.
        share: probability of a cut, 0 to 1.
    """
    draw = random.Random(f"{seed} {epoch} {row}")
    if draw.random() >= share or num_sentences == 1:
        return None
    return sorted(draw.sample(range(num_sentences), min(draw.randint(1, 3), num_sentences)))


def sample_sentences(caption: str, *, seed: int, epoch: int, row: int, share: float) -> str:
    """Some sentences of a caption, in their order, or the whole of it: see `draw_sentences`."""
    sentences = sentences_of(caption)
    kept = draw_sentences(len(sentences), seed=seed, epoch=epoch, row=row, share=share)
    return caption if kept is None else " ".join(sentences[index] for index in kept)
