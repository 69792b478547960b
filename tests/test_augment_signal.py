"""Augmentation of signals: on what a draw depends, and how draws are distributed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from augmented_signals import ALL, KINDS, augmented, ecg, noise, only, rms, same_bits
from numpy.typing import NDArray

from esi_fast.data import augment_signal
from esi_fast.data.augment_signal import SignalAugmentation, crop_starts
from esi_fast.leads import STANDARD_LEADS

# On what a draw depends.


@pytest.mark.parametrize("augmentation", [*map(only, KINDS), ALL], ids=[*KINDS, "all"])
def test_a_sample_is_augmented_alike_in_any_batch(
    augmentation: SignalAugmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal, rows = ecg(13), torch.arange(13) * 7
    together = augmented(augmentation, signal, rows)
    assert same_bits(together, augmented(augmentation, signal, rows))  # again

    order = torch.randperm(13, generator=torch.Generator().manual_seed(3))
    assert same_bits(together[order], augmented(augmentation, signal[order], rows[order]))
    for world_size in (2, 4, 13):
        ranks = [
            augmented(augmentation, signal[part], rows[part])
            for part in torch.arange(13).tensor_split(world_size)
        ]
        assert same_bits(together, torch.cat(ranks))

    monkeypatch.setattr(augment_signal, "_CHUNK_VALUES", {"cpu": 5 * 12 * 501})
    assert same_bits(together, augmented(augmentation, signal, rows))
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if num_threads == 1 else 1)
        assert same_bits(together, augmented(augmentation, signal, rows))
    finally:
        torch.set_num_threads(num_threads)


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_epoch_or_row_draws_something_else(kind: str) -> None:
    signal = torch.ones(1, 12, 501).expand(6, 12, 501)
    rows = torch.arange(6)
    once = augmented(only(kind), signal, rows)
    for other in (
        augmented(only(kind), signal, rows, seed=2),
        augmented(only(kind), signal, rows, epoch=3),
        augmented(only(kind), signal, rows, seed=2, epoch=1),  # seed and epoch are not alike
        augmented(only(kind), signal, rows + 6),
    ):
        assert not any(same_bits(a, b) for a, b in zip(once, other, strict=True))


def test_draws_are_the_same_whatever_else_is_on() -> None:
    signal = ecg(20)
    everything = augmented(ALL, signal)
    dropped = augmented(only("lead_dropout"), signal).isnan()
    masked = augmented(only("time_mask"), signal).isnan()
    assert torch.equal(everything.isnan(), dropped | masked)

    gain = augmented(only("scaling"), torch.ones(20, 12, 501))
    added = [augmented(only(k), torch.zeros(20, 12, 501)) for k in KINDS if k.endswith("_uv")]
    expected = signal * gain + sum(added, torch.zeros(()))
    left = ~everything.isnan()
    torch.testing.assert_close(everything[left], expected[left], rtol=0, atol=2e-6)


def test_noise_does_not_depend_on_the_length_of_the_record() -> None:
    augmentation = SignalAugmentation(jitter_uv=10.0, wander_uv=10.0, mains_uv=10.0)
    long, short = (augmented(augmentation, torch.zeros(3, 12, n)) for n in (503, 250))
    assert same_bits(long[:, :, :250], short)


@pytest.mark.parametrize(
    "other",
    [{"row": 2000}, {"epoch": 3}, {"seed": 2}],
    ids=["rows", "epochs", "seeds"],
)
def test_noise_of_other_samples_is_uncorrelated(other: dict[str, int]) -> None:
    one = noise(only("jitter_uv"), (20, 5000)).flatten()
    two = noise(only("jitter_uv"), (20, 5000), **other).flatten()
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 4.5 / math.sqrt(len(one))


def test_neighbouring_samples_and_leads_are_uncorrelated() -> None:
    """Four values come from one word, so its quarters must be independent, too."""
    white = noise(only("jitter_uv"), (40, 2500))
    limit = 4.5 / math.sqrt(white.numel())
    for lag in (1, 2, 3, 4, 5, 8):
        product = (white[:, :, lag:] * white[:, :, :-lag]).mean() / 20.0**2
        assert abs(product) < limit
    leads = torch.corrcoef(white.transpose(0, 1).flatten(1))
    assert (leads - torch.eye(12)).abs().max() < 4.5 / math.sqrt(40 * 2500)
    rows = torch.corrcoef(white.flatten(1))
    assert (rows - torch.eye(40)).abs().max() < 5 / math.sqrt(12 * 2500)


def test_kinds_are_independent() -> None:
    """The same row has no kinship of, say, its gain in a lead and its noise there."""
    gain = augmented(only("scaling"), torch.ones(4000, 12, 1))[:, :, 0].double().log()
    first = noise(only("jitter_uv"), (4000, 1))[:, :, 0]
    dropped = augmented(only("lead_dropout"), torch.ones(4000, 12, 1)).isnan()[:, :, 0].double()
    wander = rms(noise(only("wander_uv"), (4000, 8))).amax(1)
    mains = rms(noise(only("mains_uv"), (4000, 50))).amax(1)
    draws = [*gain.T, *first.T, *dropped.T, wander, mains]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(4000)


# How draws are distributed.


def test_jitter_is_normal_with_the_standard_deviation_asked_for() -> None:
    white = noise(SignalAugmentation(jitter_uv=30.0), (100, 2501)).flatten() / 30
    n = len(white)
    assert abs(white.mean()) < 4 / math.sqrt(n)
    assert abs(white.std() - 1) < 4 / math.sqrt(2 * n)
    assert abs((white**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((white**4).mean() - 2.999) < 4 * math.sqrt(96 / n)
    for z in (0.5, 1.0, 2.0, 3.0, 4.0):
        share = math.erfc(z / math.sqrt(2))
        assert abs((white.abs() > z).double().mean() - share) < 5 * math.sqrt(share / n)
    spectrum = torch.fft.rfft(white[: n // 1000 * 1000].view(-1, 1000)).abs().square().mean(0)[1:-1]
    assert abs(spectrum / spectrum.mean() - 1).max() < 0.15  # white


def test_gains_are_log_normal_and_hold_for_the_record() -> None:
    signal = ecg(3000, 20).nan_to_num(1.0)
    gain = (augmented(SignalAugmentation(scaling=0.1), signal) / signal).double()
    assert (gain - gain[:, :, :1]).abs().max() < 1e-5
    log_gain = gain[:, :, 0].log()
    assert abs(log_gain.mean()) < 4 * 0.1 / math.sqrt(36_000)
    assert abs(log_gain.std() - 0.1) < 4 * 0.1 / math.sqrt(72_000)
    leads = torch.corrcoef(log_gain.T) - torch.eye(12)
    assert leads.abs().max() < 4.5 / math.sqrt(3000)


def limb_lead_errors(signal: torch.Tensor) -> list[torch.Tensor]:
    lead = dict(zip(STANDARD_LEADS, signal.unbind(1), strict=True))
    return [
        lead["I"] + lead["III"] - lead["II"],
        lead["aVR"] + (lead["I"] + lead["II"]) / 2,
        lead["aVL"] - (lead["I"] - lead["III"]) / 2,
        lead["aVF"] - (lead["II"] + lead["III"]) / 2,
    ]


@pytest.mark.parametrize("kind", ["wander_uv", "mains_uv"])
def test_wander_and_mains_obey_einthovens_law_and_differ_between_leads(kind: str) -> None:
    added = noise(only(kind), (30, 2500))
    assert rms(added).amax() > 20
    for error in limb_lead_errors(added):
        assert error.abs().max() < 1e-3  # uV
    alike = torch.stack([torch.corrcoef(sample) for sample in added])
    chest = alike[:, 6:, 6:][:, ~torch.eye(6, dtype=torch.bool)]
    assert 0.2 < chest.abs().mean() < 0.95  # correlated, but not the same
    assert chest.abs().max() < 1


def test_scaling_and_jitter_break_einthovens_law_as_documented() -> None:
    right, left, foot = torch.randn(3, 1, 500, generator=torch.Generator().manual_seed(0))
    signal = torch.zeros(1, 12, 500)
    signal[:, :3] = torch.stack([left - right, foot - right, foot - left], dim=1)
    for kind in ("scaling", "jitter_uv"):
        assert limb_lead_errors(augmented(only(kind), signal))[0].abs().max() > 0.01


@pytest.mark.parametrize(("kind", "fs", "num"), [("wander_uv", 2, 8000), ("mains_uv", 500, 5000)])
def test_the_level_is_uniform_up_to_the_limit(kind: str, fs: int, num: int) -> None:
    """That of the lead with the most, in 4000 s of wander and 10 s of mains."""
    level = rms(noise(SignalAugmentation(**{kind: 100.0}), (400, num), fs=fs)).amax(1)
    assert level.max() < 100 * 1.03
    shares = torch.histc(level, 4, 0, 104) / 400
    assert ((shares - 0.25).abs() < 4 * math.sqrt(0.25 * 0.75 / 400)).all()


def test_wander_lies_between_a_twentieth_and_half_a_hertz() -> None:
    added = noise(only("wander_uv"), (100, 10_000), fs=25)  # 400 s
    window = torch.hann_window(10_000, dtype=torch.float64)
    power = torch.fft.rfft(added * window).abs().square()
    hz = torch.fft.rfftfreq(10_000, 1 / 25)
    inside = (hz > 0.045) & (hz < 0.505)
    assert power[:, :, inside].sum() > 0.9999 * power.sum()
    tones = hz[power.mean((1,)).argmax(1)]  # each sample's strongest
    assert tones.min() < 0.1
    assert tones.max() > 0.45
    assert 0.22 < tones.mean() < 0.33


def test_mains_is_a_tone_at_50_or_60_hz_with_a_phase_for_each_lead() -> None:
    added = noise(only("mains_uv"), (400, 5000), fs=500)
    spectrum = torch.fft.rfft(added)
    power = spectrum.abs().square().sum(1)
    share = power[:, [500, 600]] / power.sum(1, keepdim=True)
    assert (share.max(1).values > 0.9999).all()
    is_60 = share.argmax(1)
    assert abs(is_60.double().mean() - 0.5) < 4 * 0.5 / math.sqrt(400)
    line = torch.where(is_60[:, None] == 1, spectrum[:, :, 600], spectrum[:, :, 500])
    turn = line / line.abs()
    assert (turn.mean(0).abs() < 4 / math.sqrt(400)).all()
    assert ((turn[:, 6:7] - turn[:, 7:]).abs().mean() > 0.5).all()


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.8])
def test_leads_are_dropped_with_their_probability(probability: float) -> None:
    out = augmented(SignalAugmentation(lead_dropout=probability), torch.ones(5000, 12, 2)).isnan()
    assert torch.equal(out[:, :, 0], out[:, :, 1])
    expected = probability - probability**12 / 12  # of all twelve one stays
    share = out[:, :, 0].double().mean(0)
    assert (share - expected).abs().max() < 4 * math.sqrt(probability * (1 - probability) / 5000)
    assert not out.all(1).any()
    count = out[:, :, 0].sum(1).double()
    if probability < 0.5:
        assert abs(count.var() / (12 * probability * (1 - probability)) - 1) < 0.1  # binomial


def test_a_record_never_loses_its_last_lead() -> None:
    signal = torch.ones(1200, 12, 3)
    left = ~augmented(SignalAugmentation(lead_dropout=1.0), signal).isnan()[:, :, 0]
    assert (left.sum(1) == 1).all()
    assert (left.sum(0) > 60).all()  # any of them

    signal[:, :5] = math.nan
    signal[:, 7] = 0.0  # as good as missing
    left = ~augmented(SignalAugmentation(lead_dropout=1.0), signal).isnan()[:, :, 0]
    assert (left.sum(1) == 1).all()
    assert left.any(0).tolist() == [False] * 5 + [True, True, False] + [True] * 4
    lost = augmented(SignalAugmentation(lead_dropout=0.9), torch.full((5, 12, 3), math.nan))
    assert lost.isnan().all()


def test_a_stretch_of_all_leads_is_masked() -> None:
    num_samples, longest = 40, 12
    out = augmented(SignalAugmentation(time_mask=0.3), torch.ones(26_000, 12, num_samples))
    missing = out.isnan()
    assert torch.equal(missing, missing[:, :1].expand_as(missing))
    masked = missing[:, 0]
    length = masked.sum(1)
    edges = masked.int().diff(dim=1, prepend=torch.zeros(len(masked), 1, dtype=torch.int32))
    assert torch.equal((edges == 1).sum(1), (length > 0).long())  # one stretch
    counts = torch.bincount(length, minlength=longest + 1).double()
    assert len(counts) == longest + 1
    assert (counts - 2000).abs().max() < 4.5 * math.sqrt(2000)
    start = masked.int().argmax(1)
    for samples in (1, 6, longest):
        places = torch.bincount(start[length == samples], minlength=num_samples - samples + 1)
        assert len(places) == num_samples - samples + 1  # both edges among them
        mean = places.double().mean()
        assert (places - mean).abs().max() < 4.5 * mean.sqrt()


def test_a_mask_never_covers_the_record() -> None:
    out = augmented(SignalAugmentation(time_mask=math.nextafter(1, 0)), torch.ones(2000, 12, 5))
    length = out.isnan()[:, 0].sum(1)
    assert (length.min(), length.max()) == (0, 4)


# What goes in and comes out.


def test_all_off_is_the_input_itself() -> None:
    signal = ecg(2)
    assert augmented(SignalAugmentation(), signal) is signal


@pytest.mark.parametrize("augmentation", [*map(only, KINDS), ALL], ids=[*KINDS, "all"])
def test_the_input_is_kept_and_missing_stays_missing(augmentation: SignalAugmentation) -> None:
    signal = ecg(9)
    before = signal.clone()
    out = augmented(augmentation, signal)
    assert same_bits(signal, before)
    assert (out.dtype, out.shape, out.is_contiguous()) == (torch.float32, signal.shape, True)
    assert out.isnan()[signal.isnan()].all()
    if not augmentation.lead_dropout and not augmentation.time_mask:
        assert torch.equal(out.isnan(), signal.isnan())
    strided = ecg(9).transpose(1, 2).contiguous().transpose(1, 2)
    assert same_bits(augmented(augmentation, strided), out)
    assert augmented(augmentation, signal[:0]).shape == (0, 12, 501)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jitter_uv": -1.0}, "jitter_uv -1.0 must be finite and >= 0"),
        ({"wander_uv": math.inf}, "wander_uv inf must be finite"),
        ({"mains_uv": math.nan}, "mains_uv nan must be finite"),
        ({"scaling": -0.1}, "scaling -0.1 is the SD"),
        ({"scaling": 1.5}, r"scaling 1.5 is the SD of ln\(gain\): give 0 \(off\) to 1"),
        ({"lead_dropout": 1.1}, "lead_dropout 1.1 is a probability"),
        ({"lead_dropout": math.nan}, "lead_dropout nan is a probability"),
        ({"time_mask": 1.0}, "time_mask 1.0 is a share .* below 1"),
        ({"time_mask": -0.5}, "time_mask -0.5 is a share"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SignalAugmentation(**values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, r: augmented(ALL, x[:, :8], r), r"shape \(2, 8, 501\): give \(B, 12, T\)"),
        (lambda x, r: augmented(ALL, x[0], r), r"shape \(12, 501\)"),
        (lambda x, r: augmented(ALL, x[:, :, :0], r), "with T >= 1"),
        (lambda x, r: augmented(ALL, x.double(), r), "float64: give float32"),
        (lambda x, r: augmented(ALL, x, r[:1]), r"shape \(1,\): give int64 of shape \(2,\)"),
        (lambda x, r: augmented(ALL, x, r.int()), "row is torch.int32"),
        (lambda x, r: augmented(ALL, x, r, fs=120.0), "fs 120.0 Hz is too low for mains_uv"),
        (lambda x, r: augmented(only("wander_uv"), x, r, fs=0.0), "too low for wander_uv"),
        (lambda x, r: augmented(ALL, x, r, seed=-1), "seed -1 is out of range"),
        (lambda x, r: augmented(ALL, x, r, epoch=1 << 63), "epoch 9223372036854775808 is out"),
    ],
)
def test_a_wrong_call_is_refused(
    call: Callable[[torch.Tensor, torch.Tensor], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(ecg(2), torch.arange(2))


# A run begun with an earlier version must resume in its own draws: these numbers stay.


def test_draws_are_those_of_earlier_versions() -> None:
    row_B = torch.tensor([0, 1, 123_456_789])
    where = {"seed": 7, "epoch": 3}
    starts: NDArray[np.int64] = crop_starts(row_B.numpy(), 5000, 1250, **where)
    assert starts.tolist() == GOLDEN["crop"]

    def out(kind: str, fill: float = 0.0, num_samples: int = 1000) -> torch.Tensor:
        signal = torch.full((3, 12, num_samples), fill)
        return only(kind)(signal, row_B, **where, fs=500.0)

    dropped = [
        sample.nonzero().flatten().tolist() for sample in out("lead_dropout", 1.0).isnan()[..., 0]
    ]
    assert dropped == GOLDEN["lead_dropout"]
    masked = out("time_mask").isnan()[:, 0].long()
    assert [masked.argmax(1).tolist(), masked.sum(1).tolist()] == GOLDEN["time_mask"]
    for kind, value in (
        ("scaling", out("scaling", 1.0)[:, 11, -1]),
        ("jitter_uv", out("jitter_uv")[:, 11, 998] * 1000),
        ("wander_uv", out("wander_uv")[:, 8, 777] * 1000),
        ("mains_uv", out("mains_uv")[:, 8, 777] * 1000),
    ):
        torch.testing.assert_close(value, torch.tensor(GOLDEN[kind]), rtol=0, atol=2e-4)


GOLDEN: dict[str, list] = {
    "crop": [102, 3525, 2840],
    "lead_dropout": [[0, 1, 8, 9], [2, 4, 5, 9, 11], [3, 5, 6, 8, 9]],
    "time_mask": [[502, 756, 210], [303, 81, 277]],
    "scaling": [0.902609, 1.111319, 1.065046],
    "jitter_uv": [-10.82871, 19.42593, -6.38533],
    "wander_uv": [-177.0948, 57.0276, 39.83],
    "mains_uv": [9.1006, 0.4454, -0.4682],
}


@pytest.mark.gpu
def test_a_gpu_draws_the_same() -> None:
    signal, rows = ecg(9), torch.arange(9)
    on_gpu = augmented(ALL, signal.cuda(), rows.cuda()).cpu()
    assert same_bits(on_gpu, augmented(ALL, signal, rows))
