"""Fine-tuning and its baselines on labels that are planted in the signals."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from esi_fast.evaluation import baselines
from esi_fast.evaluation.baselines import boost_measurements, train_convnext
from esi_fast.evaluation.contenders import beside
from esi_fast.evaluation.finetune import Network, Training, _optimizer, _Run, finetune, with_head
from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit
from esi_fast.evaluation.xresnet import xresnet1d101
from esi_fast.models.esi import ESI, ESIConfig

NUM_SAMPLES = 200
QUICK = Training(epochs=4, batch_size=16, lr=5e-3, patience=4)


def planted(sizes: dict[str, int]) -> EvaluationDataset:
    """Records with a wave in V1 where "loud" is true; "rare" has no positive training record."""
    splits = {}
    for place, (name, n) in enumerate(sizes.items()):
        rng = np.random.default_rng(place)
        labels = np.zeros((n, 2), bool)
        labels[:, 0] = np.arange(n) % 2 == 0
        labels[0, 1] = name != "train"
        ecg = rng.normal(scale=0.05, size=(n, 12, NUM_SAMPLES)).astype(np.float32)
        ecg[:, 6] += labels[:, :1] * np.sin(np.arange(NUM_SAMPLES) / 5)
        ecg[1, 3] = np.nan
        splits[name] = EvaluationSplit(
            name,
            tuple(f"{name}-{i:03d}" for i in range(n)),
            np.array([f"{name}-p{i}" for i in range(n)]),
            labels,
            lambda rows, ecg=ecg: (ecg[list(rows)], ("",) * len(rows)),
        )
    return EvaluationDataset(
        "planted", ("loud", "rare"), ("loud", "rare"), (("a",), ("b",)), splits
    )


@pytest.fixture(scope="module")
def dataset() -> EvaluationDataset:
    return planted({"train": 48, "val": 16, "test": 30})


@pytest.fixture(scope="module")
def model() -> ESI:
    torch.manual_seed(0)
    config = ESIConfig(
        encoder="convnextv2_zepto", fs=100.0, num_samples=NUM_SAMPLES, embed_dim=16, max_tokens=16,
        decoder_dim=16, decoder_layers=1, decoder_heads=2,
    )  # fmt: skip
    return ESI.from_captions(
        config, ["loud noise", "no noise"], vocab_size=120, hidden=16, layers=1, heads=2
    ).eval()


def test_what_is_planted_is_learned_and_the_model_stays_as_it_was(
    model: ESI, dataset: EvaluationDataset
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = finetune(model, dataset, training=QUICK)
    scores = result.scores["finetuned"]
    assert roc_auc_score(result.labels[:, 0], scores[:, 0]) > 0.95
    assert ((scores[:, 0] > 0) & (scores[:, 0] < 1)).all()
    assert np.isnan(scores[:, 1]).all()
    assert set(result.not_scored) == {"rare"}
    assert result.probabilities == {"finetuned"}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_seed_decides_and_the_baseline_stands_beside(
    model: ESI, dataset: EvaluationDataset
) -> None:
    short = dataclasses.replace(QUICK, epochs=1)
    first, again = (finetune(model, dataset, training=short) for _ in range(2))
    assert np.array_equal(first.scores["finetuned"], again.scores["finetuned"], equal_nan=True)
    other = finetune(model, dataset, training=dataclasses.replace(short, seed=1))
    assert not np.array_equal(first.scores["finetuned"], other.scores["finetuned"], equal_nan=True)
    scratch = train_convnext(model, dataset, training=short)
    both = beside("finetune", [first, scratch])
    assert list(both.scores) == ["finetuned", "scratch-convnext"]


def learned(network: Network, training: Training, dataset: EvaluationDataset) -> set[str]:
    """Names of the parameters that an epoch changes."""
    before = {name: value.clone() for name, value in network.module.named_parameters()}
    train = dataset.split("train")
    run = _Run(network.module, np.array([0]))
    run.train(network.layers, train, dataset.split("val"), training, "x")
    changed = network.module.named_parameters()
    return {name for name, value in changed if not torch.equal(value, before[name])}


def test_only_the_last_layers_learn_where_asked(model: ESI, dataset: EvaluationDataset) -> None:
    result = finetune(model, dataset, mode="last", training=dataclasses.replace(QUICK, epochs=1))
    assert np.isfinite(result.scores["finetuned"][:, 0]).all()
    # Two epochs: the head starts at zero, so that nothing below it moves at the first step.
    short = dataclasses.replace(QUICK, epochs=2)
    some = learned(with_head(model, torch.zeros(1), "last"), short, dataset)
    every = learned(with_head(model, torch.zeros(1), "full"), short, dataset)
    early = re.compile(r"ecg_side\.ecg\.(stages|downsample_layers)\.[012]\.")
    assert {"head.weight", "head.bias", "ecg_side.ecg_projection.weight"} <= some < every
    assert any("stages.3." in name for name in some)
    assert not any(early.match(name) for name in some)
    assert any(early.match(name) for name in every)
    assert not any("logit_scale" in name for name in every)


def test_layers_learn_the_slower_the_nearer_they_are_to_the_input(model: ESI) -> None:
    layers = with_head(model, torch.zeros(1)).layers
    optimizer = _optimizer(layers, Training(lr=1.0, layer_decay=0.5))
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = [{rate[id(p)] for _, p in layer} for layer in layers]
    assert rates == [{0.5**distance} for distance in reversed(range(len(layers)))]
    own = [p for module in (model.ecg, model.ecg_projection) for p in module.parameters()]
    assert sum(p.numel() for layer in layers[:-1] for _, p in layer) == sum(p.numel() for p in own)


def test_it_ends_without_progress_and_keeps_the_best_epoch(
    model: ESI, dataset: EvaluationDataset
) -> None:
    # Labels of noise: the more is learned by heart, the worse the validation records fare.
    noisy = planted({"train": 48, "val": 16})
    for split in noisy.splits.values():
        split.labels[:, 0] = np.random.default_rng(len(split.keys)).random(len(split.keys)) < 0.5
    # Scored on the validation records under another name, so that the log-loss is known.
    noisy.splits["test"] = dataclasses.replace(noisy.split("val"), name="test")  # type: ignore[index]
    training = Training(epochs=40, batch_size=16, lr=1e-2, patience=2)
    result = finetune(model, noisy, training=training)
    history, best = result.details["val_log_loss"], result.details["best_epoch"]
    assert len(history) == best + 2 < 40
    assert history[best - 1] == min(history) < history[-1]
    own = log_loss(result.labels[:, 0], result.scores["finetuned"][:, 0])
    assert own == pytest.approx(min(history), rel=1e-6)


def test_records_that_cannot_be_read_are_left_out_and_named(model: ESI) -> None:
    broken = planted({"train": 48, "val": 16, "test": 30})
    for name, split in broken.splits.items():
        read = split.read

        def partly(rows, read=read, bad=3 if name != "val" else None):
            signals, _ = read(rows)
            return signals, tuple("cut off" if row == bad else "" for row in rows)

        broken.splits[name] = dataclasses.replace(split, read=partly)
    result = finetune(model, broken, training=dataclasses.replace(QUICK, epochs=1))
    assert result.errors == {"train-003": "cut off", "test-003": "cut off"}
    assert "test-003" not in result.keys
    assert len(result.labels) == len(result.scores["finetuned"]) == 29


def test_a_loss_that_is_no_number_ends_it(model: ESI) -> None:
    wild = planted({"train": 48, "val": 16, "test": 30})
    split = wild.split("train")
    read = split.read
    wild.splits["train"] = dataclasses.replace(
        split, read=lambda rows: (np.full_like(read(rows)[0], np.inf), ("",) * len(rows))
    )
    with pytest.raises(ValueError, match=r"finetuned: the loss is nan in epoch 1 .*train-"):
        finetune(model, wild, training=QUICK)


def test_wrong_settings_are_refused(model: ESI, dataset: EvaluationDataset) -> None:
    with pytest.raises(ValueError, match="mode is 'half'"):
        finetune(model, dataset, mode="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        Training(epochs=0)
    with pytest.raises(ValueError, match="layer_decay must be in"):
        Training(layer_decay=1.5)
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=split):
            finetune(model, dataset, split=split, training=QUICK)


def test_xresnet1d101_has_its_layers_and_halves_time_as_it_should() -> None:
    network = xresnet1d101(5).eval()
    convolutions = [one for one in network.modules() if isinstance(one, torch.nn.Conv1d)]
    # Three in the stem, three in each of 33 bottlenecks, and the shortcut that widens.
    assert len(convolutions) == 3 + 3 * 33 + 1
    with torch.no_grad():
        assert network(torch.randn(2, 12, 250)).shape == (2, 5)
        assert network.stages(network.stem(torch.randn(1, 12, 1000))).shape == (1, 256, 32)


def test_boosting_takes_features_that_were_never_measured_or_never_vary(
    dataset: EvaluationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = len(baselines.feature_names())

    def features(dataset: EvaluationDataset, split: str, *_: Any) -> tuple[Any, Any, Any]:
        labels = dataset.split(split).labels
        found = np.random.default_rng(0).normal(size=(len(labels), width))
        found[:, 0] = labels[:, 0] + 0.1 * found[:, 0]
        found[:, 1], found[:, 2] = np.nan, 1.0
        return np.arange(len(labels)), found, {}

    monkeypatch.setattr(baselines, "measured_features", features)
    result = boost_measurements(dataset, fs=100.0)
    assert roc_auc_score(result.labels[:, 0], result.scores["measurements"][:, 0]) > 0.95
    assert len(result.details["features"]) == width - 2
