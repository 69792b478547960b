"""Model folders that are not there, are damaged, or were asked for what they do not have."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import esi_fast as ef
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.models.transformers_adapter import EsiConfig, EsiModel, EsiProcessor

CAPTIONS = ["sinus rhythm", "atrial fibrillation"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    config = ESIConfig(
        encoder="convnextv2_zepto", fs=100.0, num_samples=256, embed_dim=16, max_tokens=16,
        decoder_dim=16, decoder_layers=1, decoder_heads=2,
    )  # fmt: skip
    ESI.from_captions(
        config, CAPTIONS, vocab_size=150, hidden=16, layers=1, heads=2
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


@pytest.mark.parametrize("name", ["/no/such/model", "./model", "~/no-such-model", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}: no such folder$"):
        ESI.from_pretrained(name)


def test_a_name_that_the_hub_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError("An error happened while trying to locate the file\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"^lab/model: no such folder, and .* locate the"):
        ESI.from_pretrained("lab/model")


def test_an_argument_that_means_nothing_is_an_error(folder: Path) -> None:
    for arguments in ({"fs": 250.0}, {"devce": "cuda"}):
        with pytest.raises(TypeError, match=next(iter(arguments))):
            ESI.from_pretrained(folder, **arguments)  # type: ignore[arg-type]
    own = ESI.from_pretrained(folder).config
    with pytest.raises(ValueError, match=r"fs is 500\.0 in config and 100\.0 in the model"):
        EsiModel.from_pretrained(folder, config=EsiConfig(**asdict(own) | {"fs": 500.0}))
    model = EsiModel.from_pretrained(folder, config=EsiConfig(**asdict(own)))
    assert model.config.fs == 100.0
    with pytest.raises(ValueError, match=r"EsiProcessor.* takes no fs"):
        EsiProcessor.from_pretrained(folder, fs=500.0)


def test_the_adapter_saves_as_it_is_asked_or_says_why_not(folder: Path, tmp_path: Path) -> None:
    model, processor = EsiModel.from_pretrained(folder), EsiProcessor.from_pretrained(folder)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="call push_to_hub"):
        model.save_pretrained(out, push_to_hub=True)
    with pytest.raises(ValueError, match="takes no state_dict"):
        model.save_pretrained(out, state_dict={})
    for owner in (model, processor):
        with pytest.raises(TypeError, match="psh_to_hub"):
            owner.save_pretrained(out, psh_to_hub=True)
    model.save_pretrained(out, is_main_process=False)
    assert not out.exists()


def test_the_adapter_pushes_what_esi_pushes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ESI, "push_to_hub", lambda *given, **named: asked.extend([*given, named]))
    model = EsiModel.from_pretrained(folder)
    model.push_to_hub("lab/model", private=True)
    assert asked == [model.esi, "lab/model", {"private": True}]


def test_the_processor_fetches_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(name: str, **arguments: object) -> str:
        asked.update(arguments, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert EsiProcessor.from_pretrained("lab/model", revision="v1").config.fs == 100.0
    assert asked == {"name": "lab/model", "allow_patterns": "*.json", "revision": "v1"}


@pytest.mark.parametrize(
    "name", ["config.json", "text_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_damaged_file_is_one_line_that_names_it(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text(path.read_text()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"model/{name} is no JSON object") as error:
        ESI.from_pretrained(folder)
    assert "\n" not in str(error.value)
    if name != "text_config.json":  # which the processor does not need
        with pytest.raises(ValueError, match=rf"model/{name} is no JSON object"):
            EsiProcessor.from_pretrained(folder)
    path.write_text("[]")
    with pytest.raises(ValueError, match=rf"model/{name} is no JSON object: it is not"):
        ESI.from_pretrained(folder)


def test_text_settings_that_cannot_be_are_one_line_that_names_the_file(folder: Path) -> None:
    path = folder / "text_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": "16"}))
    with pytest.raises(ValueError, match=r"text_config\.json does .* 'hidden_size'") as error:
        ESI.from_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("encoder", "convnextv2_zept", "unknown model 'convnextv2_zept'; did you mean"),
        ("max_tokens", 1000, "max_tokens is 1000; the text encoder has 16 positions"),
        ("num_samples", 31, "num_samples is 31; at least 32"),
    ],
)
def test_settings_that_do_not_go_together_name_the_folder(
    folder: Path, setting: str, value: object, message: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: value}))
    with pytest.raises(ValueError, match=f"^{folder}: {message}"):
        ESI.from_pretrained(folder)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("fs", "500", "fs is '500'; give a positive number"),
        ("fs", -5, "fs is -5"),
        ("encoder", 5, "encoder is 5; give a name of list_models"),
        ("drop_path", 1.0, "drop_path is 1.0"),
        ("num_samples", 100.5, "num_samples is 100.5; give a whole number"),
        ("decoder_layers", 0, "decoder_layers is 0"),
        ("pooling", "max", "pooling is 'max'; give mean or attention"),
        ("colour", "red", "unknown setting"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    folder: Path, setting: str, value: object, message: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {setting: value}))
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        ESI.from_pretrained(folder)


def test_a_configuration_that_transformers_wrote_is_read(folder: Path) -> None:
    config = EsiModel.from_pretrained(folder).config
    config.save_pretrained(folder)
    assert "transformers_version" in json.loads((folder / "config.json").read_text())
    assert ESI.from_pretrained(folder).config.fs == 100.0


def test_encoders_are_listed_as_timm_lists_them() -> None:
    every = ef.list_models()
    for nothing in ("", None):
        assert ef.list_models(nothing) == ef.list_models(exclude_filters=nothing) == every
    assert ef.list_models("*zepto*") == ["convnextv2_zepto"]
    kept = ef.list_models(exclude_filters=["*zepto*", "*large*"])
    assert kept == [name for name in every if "zepto" not in name and "large" not in name]
    assert ef.list_models("*zepto*", exclude_filters="convnextv2*") == []


@pytest.mark.parametrize(
    ("argument", "value"), [("drop_path_rate", 1.5), ("in_chans", 0), ("num_classes", -1)]
)
def test_arguments_out_of_range_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{argument} is {value}; give"):
        ef.create_model("convnextv2_zepto", **{argument: value})  # type: ignore[arg-type]


def test_a_head_and_a_record_that_cannot_be() -> None:
    encoder = ef.create_model("convnextv2_zepto", num_classes=3)
    encoder.reset_classifier(5, "avg")
    assert encoder(torch.zeros(1, 12, 64)).shape == (1, 5)
    with pytest.raises(ValueError, match="global_pool is 'max'; this encoder has 'avg'"):
        encoder.reset_classifier(5, "max")
    with pytest.raises(ValueError, match="num_classes is -2"):
        encoder.reset_classifier(-2)
    with pytest.raises(ValueError, match="T is 31; one token takes 32 samples"):
        encoder.forward_features(torch.zeros(1, 12, 31))


def test_the_processor_refuses_nothing_at_all(folder: Path) -> None:
    from esi_fast.models.transformers_adapter import register

    register()
    processor = EsiProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match="ecg is empty"):
        processor(ecg=[])
    with pytest.raises(ValueError, match="text is empty"):
        processor(text=[])
    ids = processor(text=CAPTIONS)["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == CAPTIONS
