"""What users of timm and of the hub expect: names, heads, weights, folders, cards."""

from __future__ import annotations

import runpy
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import esi_fast as ef
from esi_fast.models.card import write_card
from esi_fast.models.convert import convnextv2_from_2d
from esi_fast.models.convnext1d import VARIANTS
from esi_fast.models.esi import ESI, ESIConfig


@pytest.fixture(scope="module")
def model() -> ESI:
    torch.manual_seed(0)
    config = ESIConfig(
        encoder="convnextv2_zepto", fs=100.0, num_samples=256, embed_dim=16, max_tokens=16,
        decoder_dim=16, decoder_layers=1, decoder_heads=2,
    )  # fmt: skip
    texts = ["sinus rhythm", "atrial fibrillation"]
    return ESI.from_captions(config, texts, vocab_size=200, hidden=16, layers=1, heads=2).eval()


def test_create_model_takes_timms_arguments() -> None:
    encoder = ef.create_model(
        "convnextv2_zepto", pretrained=False, in_chans=8, num_classes=5, drop_path_rate=0.3
    )
    assert encoder.num_features == VARIANTS["convnextv2_zepto"][1][-1] == 192
    assert encoder.num_classes == 5
    rates = [block.drop_path for stage in encoder.stages for block in stage.children()]
    assert rates == pytest.approx(np.linspace(0, 0.3, 6).tolist())
    x_BLT = torch.randn(2, 8, 128)
    encoder.eval()
    tokens = encoder.forward_features(x_BLT)
    assert tokens.shape == (2, 4, 192)
    pooled = encoder.forward_head(tokens, pre_logits=True)
    assert pooled.shape == (2, 192)
    torch.testing.assert_close(encoder.forward_head(tokens), encoder.get_classifier()(pooled))
    torch.testing.assert_close(encoder(x_BLT), encoder.forward_head(tokens))


def test_the_head_can_be_replaced_and_taken_away() -> None:
    encoder = ef.create_model("convnextv2_zepto", num_classes=5).double()
    x_BLT = torch.randn(2, 12, 64, dtype=torch.float64)
    features = encoder.forward_head(encoder.forward_features(x_BLT), pre_logits=True)
    encoder.reset_classifier(3)
    assert encoder(x_BLT).shape == (2, 3)
    assert encoder.get_classifier().weight.dtype == torch.float64
    encoder.reset_classifier(0)
    assert encoder.num_classes == 0
    assert torch.equal(encoder(x_BLT), features)


def test_what_create_model_refuses() -> None:
    with pytest.raises(ValueError, match=r"no weights to download.*ESI\.from_pretrained"):
        ef.create_model("convnextv2_zepto", pretrained=True)
    with pytest.raises(ValueError, match="unknown model 'resnet18'; known: convnextv2_zepto"):
        ef.create_model("resnet18")


def test_list_models_takes_one_pattern_or_several() -> None:
    assert ef.list_models() == list(VARIANTS)
    assert ef.list_models("*o") == [name for name in VARIANTS if name.endswith("o")]
    assert ef.list_models(["*tiny", "*base"]) == ["convnextv2_tiny", "convnextv2_base"]
    assert ef.list_models(pretrained=True) == []


class TimmBlock(nn.Module):
    """timm's block of a ConvNeXt V2, restated: names, and 1 x 7 kernels on (B, C, 1, T)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, (1, 7), padding=(0, 3), groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.mlp.grn = nn.Module()
        self.mlp.grn.weight = nn.Parameter(torch.empty(4 * dim))
        self.mlp.grn.bias = nn.Parameter(torch.empty(4 * dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        y = nn.functional.gelu(self.mlp.fc1(y))
        norm = y.pow(2).sum((1, 2), keepdim=True).sqrt()
        unit = norm / (norm.mean(-1, keepdim=True) + 1e-6)
        y = y + self.mlp.grn.weight * (y * unit) + self.mlp.grn.bias
        return x + self.mlp.fc2(y).permute(0, 3, 1, 2)


class ChannelsNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TimmConvNeXt(nn.Module):
    """timm's ConvNeXt V2, restated."""

    def __init__(self, depths: tuple[int, ...], channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        first = nn.Conv2d(12, channels[0], (1, 4), stride=(1, 4))
        self.stem = nn.Sequential(first, ChannelsNorm(channels[0], eps=1e-6))
        self.stages = nn.ModuleList()
        for at, depth in enumerate(depths):
            stage = nn.Module()
            if at:
                before, after = [*pairwise(channels)][at - 1]
                halve = nn.Conv2d(before, after, (1, 2), stride=(1, 2))
                stage.downsample = nn.Sequential(ChannelsNorm(before, eps=1e-6), halve)
            stage.blocks = nn.Sequential(*[TimmBlock(channels[at]) for _ in range(depth)])
            self.stages.append(stage)
        self.head = nn.Module()
        self.head.norm = nn.LayerNorm(channels[-1], eps=1e-6)
        self.head.fc = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for at, stage in enumerate(self.stages):
            x = stage.blocks(stage.downsample(x) if at else x)
        return self.head.fc(self.head.norm(x.mean((2, 3))))


def test_timms_weights_give_timms_outputs() -> None:
    torch.manual_seed(1)
    depths, channels = VARIANTS["convnextv2_zepto"]
    theirs = TimmConvNeXt(depths, channels, 7).double().eval()
    for value in theirs.parameters():
        nn.init.normal_(value, std=0.2)
    ours = ef.create_model("convnextv2_zepto", num_classes=7).double().eval()
    x_BLT = torch.randn(3, 12, 203, dtype=torch.float64)
    assert not torch.allclose(ours(x_BLT), theirs(x_BLT.unsqueeze(2)))
    ours.load_state_dict(convnextv2_from_2d(theirs.state_dict()))
    torch.testing.assert_close(ours(x_BLT), theirs(x_BLT.unsqueeze(2)))


class FakeHub:
    """What ``push_to_hub`` and ``snapshot_download`` ask of the hub, in a folder."""

    def __init__(self, root: Path, token: str | None = None) -> None:
        self.root = root
        self.calls: list[dict[str, Any]] = []

    def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
        assert exist_ok
        self.calls.append({"create": repo_id, "private": private})
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **rest: Any) -> str:
        shutil.copytree(folder_path, self.root / repo_id)
        self.calls.append({"upload": repo_id} | rest)
        return f"https://hub.example/{repo_id}/commit/1"

    def hf_hub_download(self, repo_id: str, filename: str, **_: Any) -> str:
        return str(self.root / repo_id / filename)

    def snapshot_download(self, repo_id: str, **arguments: Any) -> str:
        self.calls.append({"download": repo_id} | arguments)
        return str(self.root / repo_id)


def test_pushed_and_loaded_by_its_name(
    model: ESI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(tmp_path)
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda token=None: hub)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", hub.hf_hub_download)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    url = model.push_to_hub("somebody/esi", private=True)
    assert url == "https://hub.example/somebody/esi/commit/1"
    assert hub.calls[0] == {"create": "somebody/esi", "private": True}
    assert hub.calls[1]["repo_type"] == "model"
    assert {path.name for path in (tmp_path / "somebody/esi").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "text_config.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    again = ESI.from_pretrained("somebody/esi", revision="v1")
    assert hub.calls[2]["download"] == "somebody/esi"
    assert hub.calls[2]["revision"] == "v1"
    ecg_BLT = torch.randn(2, 12, 256)
    assert torch.equal(again.encode_ecg(ecg_BLT), model.encode_ecg(ecg_BLT))


def test_a_model_keeps_the_card_that_it_came_with(model: ESI, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "first")
    card = (tmp_path / "first/README.md").read_text()
    assert "# ESI, convnextv2_zepto" in card
    assert "Not a medical device" in card
    assert card.startswith("---\nlibrary_name: esi_fast\n")
    (tmp_path / "first/README.md").write_text(card + "\nTrained on the moon.\n")
    ESI.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert (tmp_path / "second/README.md").read_text().endswith("Trained on the moon.\n")


def test_a_card_tells_nothing_of_the_machine_that_trained(model: ESI, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n')
    (tmp_path / "recipe.toml").write_text("""[model]
text_model = "/home/alice/a b/BioLinkBERT-base/"
encoder = "convnextv2_zepto"

[data]
shards = ["/home/alice/one", "/home/alice/two"]
captions = "/home/alice/captions.jsonl"

[deepspeed.csv_monitor]
output_path = "/home/alice/logs"
hosts = ["~alice/one", "lab/model", "/home/alice/two"]
""")
    write_card(tmp_path / "README.md", model, tmp_path, "step-00000003")
    card = (tmp_path / "README.md").read_text()
    assert "alice" not in card
    assert (
        """[model]
text_model = "BioLinkBERT-base"
encoder = "convnextv2_zepto"

[data]

[deepspeed.csv_monitor]
output_path = "logs"
hosts = ["one", "lab/model", "two"]
"""
        in card
    )


def test_preprocess_takes_arrays_and_files_alike(model: ESI, tmp_path: Path) -> None:
    ecg = np.random.default_rng(0).normal(size=(12, 500)).astype(np.float32)
    from_array = model.preprocess(ecg, fs=250.0)
    assert from_array.shape == (12, 256)
    np.savez(tmp_path / "ecg.npz", signal=ecg.T, fs=250.0)
    for source, fs in (
        (ecg.T, 250.0),
        (torch.from_numpy(ecg), 250.0),
        (tmp_path / "ecg.npz", None),
    ):
        found = model.preprocess(source, fs=fs)
        assert torch.equal(found.nan_to_num(), from_array.nan_to_num())
    assert from_array[:, 200:].isnan().all()
    two = model.preprocess(ecg[[1, 0]] * 1e3, fs=250.0, leads=["II", "I"], unit="uV")
    torch.testing.assert_close(two[:2, :200], from_array[:2, :200])
    torch.testing.assert_close(two[2, :200], from_array[1, :200] - from_array[0, :200])
    assert two[6:].isnan().all()
    embedding = model.encode_ecg(two[None])
    assert embedding.isfinite().all()
    # Absent leads are as zeros.
    assert torch.equal(embedding, model.encode_ecg(two[None].nan_to_num()))
    with pytest.raises(ValueError, match="does not say its rate: give fs="):
        model.preprocess(ecg)


def test_leads_are_found_by_name_in_a_real_record(model: ESI, shared_data: Path) -> None:
    stem = shared_data / "mimic-like/files/p1001/p10015709/s40000001/40000001"
    record = ef.read_record(stem)
    expected = ef.resample(record.signal, record.fs, 100.0)[:, :256]
    assert model.preprocess(stem).numpy() == pytest.approx(expected)
    assert model.preprocess(record).numpy() == pytest.approx(expected)


def test_export_writes_the_onnx_file_that_is_asked_for(
    model: ESI, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "model"
    model.save_architecture(run / "model")
    (run / "recipe.toml").write_text("[model]\n")
    (run / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n')
    weights = (model.state_dict(), "step-00000003")
    monkeypatch.setattr("esi_fast.training.checkpoint.load_weights", lambda *_: weights)
    monkeypatch.setattr("esi_fast.recipe_rules.lora_rank", lambda _: 0)
    monkeypatch.setattr("esi_fast.config.saved_recipe", lambda _: SimpleNamespace(
        model=SimpleNamespace(text_mode="full")
    ))  # fmt: skip
    exported: list[ESI] = []

    def export_onnx(given: ESI, path: Path) -> None:
        path.write_text("graph")
        exported.append(given)

    monkeypatch.setattr("esi_fast.models.onnx.export_onnx", export_onnx)
    main = runpy.run_path(str(root / "tools/export"))["main"]
    assert main([str(run), "--out", str(out), "--onnx"]) == 0
    assert (out / "encoder.onnx").read_text() == "graph"
    ecg_BLT = torch.randn(2, 12, 256)
    assert torch.equal(exported[0].encode_ecg(ecg_BLT), model.encode_ecg(ecg_BLT))
    card = (out / "README.md").read_text()
    assert "Checkpoint step-00000003; last logged step: step 3, loss 1.5." in card
    assert ESI.from_pretrained(out).card == card
    assert main([str(run), "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain/encoder.onnx").exists()
