"""Hugging Face's Auto classes load an exported folder, and their model gives what ESI gives."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel

from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.models.transformers_adapter import EsiModel, EsiProcessor, register

TEXTS = ["sinus rhythm. heart rate 70 bpm.", "atrial fibrillation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = ESIConfig(
        encoder="convnextv2_zepto", fs=100.0, num_samples=256, embed_dim=24, max_tokens=24,
        decoder_dim=32, decoder_layers=1, decoder_heads=2, contrast="sigmoid",
    )  # fmt: skip
    model = ESI.from_captions(config, TEXTS, vocab_size=200, hidden=32, layers=1, heads=2)
    folder = tmp_path_factory.mktemp("model") / "esi"
    model.save_pretrained(folder)
    register()
    register()  # once more does no harm
    return folder


@pytest.fixture(scope="module")
def esi(folder: Path) -> ESI:
    return ESI.from_pretrained(folder)


def record(seed: int) -> SimpleNamespace:
    signal = np.random.default_rng(seed).normal(size=(12, 600)).astype(np.float32)
    return SimpleNamespace(signal=signal, fs=250.0)


def test_the_config_has_every_setting(folder: Path, esi: ESI) -> None:
    assert json.loads((folder / "config.json").read_text()) == {
        "model_type": "esi", **asdict(esi.config)
    }  # fmt: skip
    config = AutoConfig.from_pretrained(folder)
    assert config.settings() == esi.config
    assert (config.model_type, config.fs, config.embed_dim) == ("esi", 100.0, 24)


def test_its_outputs_are_those_of_esi(folder: Path, esi: ESI) -> None:
    model = AutoModel.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(model, EsiModel)
    assert isinstance(model, PreTrainedModel)
    assert isinstance(processor, EsiProcessor)
    assert not model.training
    inputs = processor(ecg=[record(0), record(1), record(2)], text=TEXTS)
    ecg_BLT = torch.stack([esi.preprocess(record(seed)) for seed in range(3)])
    assert torch.equal(inputs["input_values"].nan_to_num(), ecg_BLT.nan_to_num())
    with torch.no_grad():
        output = model(**inputs)
    torch.testing.assert_close(output.ecg_embeds, esi.encode_ecg(ecg_BLT))
    torch.testing.assert_close(output.text_embeds, esi.encode_text(TEXTS))
    with torch.no_grad():
        torch.testing.assert_close(output.last_hidden_state, esi.ecg_tokens(ecg_BLT))
        step = esi(ecg_BLT[:2], inputs["input_ids"], inputs["attention_mask"])
        features = model.get_ecg_features(ecg_BLT)
    torch.testing.assert_close(features, esi.encode_ecg(ecg_BLT, normalize=False))
    logits = step.logit_scale * step.ecg_BD @ step.text_BD.T + step.logit_bias
    torch.testing.assert_close(output.logits_per_ecg[:2], logits)
    assert torch.equal(output.logits_per_text, output.logits_per_ecg.T)
    assert model.esi.caption(ecg_BLT) == esi.caption(ecg_BLT)


def test_one_side_alone_and_a_tuple(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    ecgs = processor(ecg=record(0))
    assert set(ecgs) == {"input_values"}
    texts = processor(text=TEXTS[0])
    with torch.no_grad():
        seen, read = model(**ecgs), model(**texts)
        both = model(**ecgs, **texts, return_dict=False)
    assert set(seen) == {"ecg_embeds", "last_hidden_state"}
    assert set(read) == {"text_embeds"}
    assert [tuple(value.shape) for value in both] == [(1, 1), (1, 1), (1, 24), (1, 24), (1, 8, 192)]
    for call in (model, processor):
        with pytest.raises(ValueError, match=r"give .*both"):
            call()


def test_arrays_paths_and_fewer_leads(folder: Path, esi: ESI, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    ecg = record(3).signal
    np.save(tmp_path / "ecg.npy", ecg)
    whole = processor(ecg=ecg, fs=250.0)["input_values"]
    assert whole.shape == (1, 12, 256)
    stored = processor(ecg=tmp_path / "ecg.npy", fs=250.0)["input_values"]
    assert torch.equal(whole.nan_to_num(), stored.nan_to_num())
    two = processor(ecg=ecg[:2] * 1e3, fs=250.0, leads=["I", "II"], unit="uV")["input_values"][0]
    torch.testing.assert_close(two[:2].nan_to_num(), whole[0, :2].nan_to_num())
    assert two[6:].isnan().all()
    torch.testing.assert_close(two[2, :240], whole[0, 1, :240] - whole[0, 0, :240])
    with pytest.raises(ValueError, match="only 'pt' is known"):
        processor(ecg=ecg, fs=250.0, return_tensors="np")


def test_saved_by_either_it_loads_by_both(folder: Path, esi: ESI, tmp_path: Path) -> None:
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path / "again")
    ecg_BLT = torch.randn(2, 12, 256)
    again = ESI.from_pretrained(tmp_path / "again")
    assert torch.equal(again.encode_ecg(ecg_BLT), esi.encode_ecg(ecg_BLT))
    model = AutoModel.from_pretrained(tmp_path / "again", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        output = model(input_values=ecg_BLT)
    assert output.ecg_embeds.dtype == torch.float32
    torch.testing.assert_close(output.ecg_embeds, esi.encode_ecg(ecg_BLT), atol=0.05, rtol=0)


def test_what_it_cannot_do_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes no device_map"):
        AutoModel.from_pretrained(folder, device_map={"": "cpu"})
    with pytest.raises(ValueError, match=r"use AutoModel\.from_pretrained\(DIR\)"):
        AutoModel.from_config(AutoConfig.from_pretrained(folder))


def test_folders_from_before_have_no_type_and_still_load(folder: Path, tmp_path: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    path = tmp_path / "config.json"
    settings.pop("model_type")
    path.write_text(json.dumps(settings))
    assert ESIConfig.load(path).fs == 100.0
    for content, message in (
        ('{"model_type": "bert"}', "the model is a bert, not an esi"),
        ('{"depth": 3, "breadth": 4}', r"unknown setting\(s\) breadth, depth"),
        ("[1]", "is no JSON object"),
        ("{", "is no JSON object"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            ESIConfig.load(path)
