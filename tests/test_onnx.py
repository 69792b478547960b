"""The encoder outside PyTorch: onnxruntime and torch.export compute what the model computes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esi_fast.leads import STANDARD_LEADS
from esi_fast.models.convnext1d import VARIANTS
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.models.onnx import encoder_program, export_onnx

pytest.importorskip("onnxscript")
SAMPLES = 256


def small_model(pooling: str) -> ESI:
    """One block a stage; weights that start at zero are drawn, so that GRN and biases count."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "convnextv2_test", ((1, 1, 1, 1), (8, 16, 24, 32)))
        config = ESIConfig(
            encoder="convnextv2_test", fs=100.0, num_samples=SAMPLES, embed_dim=16, max_tokens=16,
            decoder_dim=16, decoder_layers=1, decoder_heads=2, pooling=pooling,  # type: ignore[arg-type]
        )  # fmt: skip
        texts = ["sinus rhythm", "atrial fibrillation"]
        model = ESI.from_captions(config, texts, vocab_size=200, hidden=16, layers=1, heads=2)
    with torch.no_grad():
        for value in model.ecg.parameters():
            value.add_(torch.randn_like(value), alpha=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> ESI:
    return small_model("mean")


@pytest.fixture(scope="module")
def onnx_file(model: ESI, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "encoder.onnx", tokens=True)


def ecgs(batch: int) -> torch.Tensor:
    """mV; a lead and some samples are missing."""
    ecg_BLT = torch.randn(batch, 12, SAMPLES, generator=torch.Generator().manual_seed(batch))
    ecg_BLT[0, 3] = torch.nan
    ecg_BLT[-1, :, 40:55] = torch.nan
    return ecg_BLT


def test_onnxruntime_gives_the_models_embeddings_and_tokens(model: ESI, onnx_file: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
        ("ecg", "tensor(float)", ["batch", 12, SAMPLES])
    ]
    for batch in (1, 2, 5):
        ecg_BLT = ecgs(batch)
        embedding, tokens = session.run(["embedding", "tokens"], {"ecg": ecg_BLT.numpy()})
        expected = model.encode_ecg(ecg_BLT)
        assert np.abs(embedding - expected.numpy()).max() < 1e-4
        assert np.linalg.norm(embedding, axis=1) == pytest.approx(1, abs=1e-5)
        with torch.no_grad():
            expected = model.ecg_tokens(ecg_BLT)
        assert tokens.shape == (batch, SAMPLES // 32, 32)
        assert np.abs(tokens - expected.numpy()).max() < 1e-4 * expected.abs().max()
    # The bound tells models apart.
    other = model.encode_ecg(ecg_BLT * 2)
    assert np.abs(embedding - other.numpy()).max() > 1e-3


def test_the_file_says_what_it_takes_and_needs_no_operator_of_ours(
    model: ESI, onnx_file: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    written = onnx.load(onnx_file)
    onnx.checker.check_model(written)
    assert {node.domain for node in written.graph.node} <= {"", "ai.onnx"}
    says = {entry.key: entry.value for entry in written.metadata_props}
    assert says["fs"] == "100"
    assert says["unit"] == "mV"
    assert says["leads"].split() == [*STANDARD_LEADS]
    assert json.loads(says["config"]) == asdict(model.config)
    assert [file.name for file in onnx_file.parent.iterdir()] == ["encoder.onnx"]


@pytest.mark.parametrize("pooling", ["attention"])
def test_an_exported_program_is_the_encoder(pooling: str, tmp_path: Path) -> None:
    model = small_model(pooling)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    program = encoder_program(model)
    assert not [node for node in program.graph.nodes if "esi_fast" in str(node.target)]
    torch.export.save(program, tmp_path / "encoder.pt2")
    again = torch.export.load(tmp_path / "encoder.pt2").module()
    for batch in (1, 4):
        torch.testing.assert_close(again(ecgs(batch)), model.encode_ecg(ecgs(batch)))
    # The model itself is as it was, its text side included.
    assert model.text is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.logit_scale.requires_grad


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_package_that_is_not_installed_is_one_line(
    model: ESI, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'esi-fast\[onnx\]'"):
        export_onnx(model, tmp_path / "x.onnx")
    assert not [*tmp_path.iterdir()]


def test_what_fails_leaves_no_file(
    model: ESI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no graph today")

    monkeypatch.setattr("torch.onnx.export", fail)
    monkeypatch.setattr("esi_fast.models.onnx.encoder_program", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="no graph today"):
        export_onnx(model, tmp_path / "x.onnx")
    assert not [*tmp_path.iterdir()]
