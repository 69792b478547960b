"""The counter-based generator behind the augmentation of signals."""

from __future__ import annotations

import math

import pytest
import torch

from esi_fast.data import draws

CPU = torch.device("cpu")


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of the reference implementation for these seeds."""
    zero = draws.hash_words(0, torch.arange(3))
    assert [word % 2**64 for word in zero.tolist()] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    other = draws.hash_words(torch.tensor(1234567), torch.arange(4))
    assert [word % 2**64 for word in other.tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
    ]


def test_keys_are_those_of_earlier_versions() -> None:
    """A run begun with an earlier version must resume in its own draws: these numbers stay."""
    rows = torch.tensor([0, 1, 2**40])
    assert draws.sample_keys(rows, 1, seed=0, epoch=0).tolist() == GOLDEN_FIRST
    assert draws.sample_keys(rows, 5, seed=2**63 - 1, epoch=12).tolist() == GOLDEN_LAST


GOLDEN_FIRST = [-7536426547905671131, 5396103473067506702, 3323369517187151302]
GOLDEN_LAST = [7036588337235267252, 6907892939712312524, -7157812240523637809]


def test_keys_of_all_seeds_epochs_kinds_and_rows_differ() -> None:
    rows = torch.arange(200)
    keys = torch.cat(
        [
            draws.sample_keys(rows, kind, seed=seed, epoch=epoch)
            for kind in range(6)
            for seed in range(6)
            for epoch in range(6)
        ]
    )
    assert len(keys.unique()) == len(keys)


def test_every_bit_is_fair_and_a_changed_row_changes_half_of_them() -> None:
    words = draws.sample_keys(torch.arange(40_000), 1, seed=0, epoch=0)
    bits = (words[:, None] >> torch.arange(64)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(40_000)
    flips = (bits[1:] ^ bits[:-1]).double().mean(0)
    assert (flips - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(40_000)


@pytest.mark.parametrize("bound", [1, 7, 5001, 2**31])
def test_below_covers_its_range(bound: int) -> None:
    words = torch.tensor([0, -1, 1 << 62, -1 << 63, 2**63 - 1])
    lower_half = (2**31 - 1) * bound >> 32
    expected = [0, (2**32 - 1) * bound >> 32, bound // 4, bound // 2, lower_half]
    assert draws.below(words, bound).tolist() == expected
    assert max(expected) == bound - 1


def test_unit_and_quarters_use_the_bits_they_say() -> None:
    words = torch.tensor([0, -1, 1 << 40, 1 << 39])
    assert draws.unit(words).tolist() == [0.0, 1 - 2.0**-24, 2.0**-24, 0.0]
    word = torch.tensor([[0x0004_0003_0002_0001]])
    assert draws.quarters(word).tolist() == [[32769, 32770, 32771, 32772]]
    assert draws.quarters(torch.tensor([-1 << 63])).tolist() == [32768, 32768, 32768, 0]


def test_tables_have_the_moments_that_they_state() -> None:
    normal = draws.normal_table(2.0, CPU).double()
    assert abs(normal.mean()) < 1e-9
    assert abs(normal.square().mean().sqrt() - 2) < 1e-6
    assert abs((normal / 2).pow(4).mean() - 2.999) < 5e-4
    assert 4.3 < normal.max() / 2 < 4.4
    assert (normal.diff() > 0).all()
    assert (draws.log_normal_table(0.5, CPU).double().log() * 4 - normal).abs().max() < 1e-5
    cosine, sine = draws.circle_table(CPU)
    assert (cosine[0], sine[16384], cosine[32768]) == (1, 1, -1)
    assert (cosine.double() ** 2 + sine.double() ** 2 - 1).abs().max() < 2e-7
