"""Crops: where they begin, and those that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esi_fast.data.augment_signal import crop_starts


def test_crops_begin_anywhere_they_fit() -> None:
    rows = np.arange(20_000)
    rows.flags.writeable = False
    starts = crop_starts(rows, 100, 81, seed=4, epoch=0)
    assert starts.dtype == np.int64
    counts = np.bincount(starts)
    assert len(counts) == 20
    assert abs(counts - 1000).max() < 4.5 * math.sqrt(1000)
    assert np.array_equal(crop_starts(rows[::-1], 100, 81, seed=4, epoch=0), starts[::-1])
    assert np.array_equal(crop_starts(rows[500:507], 100, 81, seed=4, epoch=0), starts[500:507])
    for other in (
        crop_starts(rows, 100, 81, seed=5, epoch=0),
        crop_starts(rows, 100, 81, seed=4, epoch=1),
    ):
        assert abs(np.corrcoef(starts, other)[0, 1]) < 4.5 / math.sqrt(20_000)
    assert not crop_starts(rows, 100, 100, seed=4, epoch=0).any()
    assert len(crop_starts(rows[:0], 100, 81, seed=4, epoch=0)) == 0


@pytest.mark.parametrize("crop", [101, 0, -1])
def test_a_crop_that_does_not_fit_is_refused(crop: int) -> None:
    with pytest.raises(ValueError, match=rf"crop of {crop} samples .* give 1 to 100"):
        crop_starts(np.arange(3), 100, crop, seed=0, epoch=0)
