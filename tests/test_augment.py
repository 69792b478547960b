"""Sentence sampling: what it may produce, and on what it depends."""

from __future__ import annotations

from collections import Counter

from esi_fast.data.augment import sample_sentences

CAPTION = "Sinus rhythm. Left axis deviation. Heart rate 70 bpm, axis -40 degrees. Abnormal ECG."
SENTENCES = ["Sinus rhythm", "Left axis deviation", "Heart rate 70 bpm, axis -40 degrees"]
SENTENCES += ["Abnormal ECG"]


def sample(row: int, *, share: float = 1.0, epoch: int = 0, caption: str = CAPTION) -> str:
    return sample_sentences(caption, seed=5, epoch=epoch, row=row, share=share)


def test_a_sample_is_one_to_three_whole_sentences_in_order() -> None:
    lengths: Counter[int] = Counter()
    for row in range(300):
        kept = sample(row).removesuffix(".").split(". ")
        positions = [SENTENCES.index(sentence) for sentence in kept]
        assert positions == sorted(set(positions))
        lengths[len(kept)] += 1
    assert set(lengths) == {1, 2, 3}
    assert min(lengths.values()) > 60


def test_it_depends_on_seed_epoch_and_row_alone() -> None:
    assert [sample(row) for row in range(50)] == [sample(row) for row in range(50)]
    assert [sample(row) for row in range(50)] != [sample(row, epoch=1) for row in range(50)]


def test_the_share_is_kept_and_single_sentences_stay() -> None:
    whole = sum(sample(row, share=0.3) == CAPTION for row in range(1000))
    assert 640 < whole < 760
    assert sample(0, share=0.0) == CAPTION
    assert sample(0, caption="Atrial fibrillation.") == "Atrial fibrillation."
