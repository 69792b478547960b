"""The published arithmetic: against its recorded outputs, and an independent restatement."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import original_restatement as restatement
import pytest
import torch
from original_restatement import TINY, Sizes, State, random_inputs, random_state
from safetensors.torch import load_file, save_file
from torch import Tensor

import esi_fast as ef
from esi_fast.leads import STANDARD_LEADS
from esi_fast.models.original import ORIGINAL_LEADS, OriginalESI, load_original
from esi_fast.models.original_weights import in_layout, text_sizes
from esi_fast.models.text import train_wordpiece


def write(folder: Path, state: State) -> Path:
    path = folder / "model.safetensors"
    save_file(state, path, metadata={"format": "pt"})
    return path


def outputs(model: OriginalESI, ecg: Tensor, ids: Tensor, mask: Tensor) -> State:
    with torch.no_grad():
        return {
            "ecg_embeds": model.embed_ecg(ecg),
            "text_embeds": model.embed_text(ids, mask),
            "ecg_latents": model.encode_ecg(ecg),
            "text_latents": model.encode_text(ids, mask),
            "logits": model.caption_logits(ecg, ids, mask),
            "losses": torch.stack(model.losses(ecg, ids, mask)),
        }


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(TINY, seed=1)


@pytest.fixture(scope="module")
def model(state: State, tmp_path_factory: pytest.TempPathFactory) -> OriginalESI:
    return load_original(write(tmp_path_factory.mktemp("original"), state))


def test_recorded_outputs_of_the_published_code(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "original-golden"
    if not folder.is_dir():
        pytest.skip(f"recorded outputs are absent: {folder}")
    spec = importlib.util.spec_from_file_location("make_weights", folder / "make_weights.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    maker.write(tmp_path / "model.safetensors")
    recorded = load_file(folder / "io.safetensors")
    model = ef.load_original(tmp_path / "model.safetensors")
    inputs = [recorded[name] for name in ("ecg", "input_ids", "attention_mask")]
    found = outputs(model, *inputs)
    with torch.no_grad():
        found["encoder"] = model.img_encoder(inputs[0])
    assert found.keys() == recorded.keys() - {"ecg", "input_ids", "attention_mask"}
    errors = {name: (x - recorded[name]).abs().max().item() for name, x in found.items()}
    print("largest error:", errors)
    assert max(errors.values()) <= 1e-4
    assert model.config.encoder == "convnextv2_atto"


@pytest.mark.parametrize(
    ("sizes", "num_tokens", "num_samples"),
    [
        (Sizes((2, 2, 6, 2), (40, 80, 160, 320), 128, 2, 211, 64, 6), 21, 5000),
        (Sizes((2, 2, 8, 2), (80, 160, 320, 640), 192, 3, 97, 40, 3), 13, 1003),
        (Sizes(heads=3, head_dim=32, ff_mult=2), 6, 70),
    ],
    ids=["atto", "nano", "other heads"],
)
def test_it_equals_an_independent_restatement(
    sizes: Sizes, num_tokens: int, num_samples: int, tmp_path: Path
) -> None:
    state = random_state(sizes, seed=num_tokens)
    inputs = random_inputs(sizes, num_tokens, num_samples, seed=5)
    expected = restatement.forward(state, *inputs)
    model = load_original(write(tmp_path, state))
    ecg, ids, mask = inputs
    for name, found in outputs(model, *inputs).items():
        assert found.dtype == torch.float32
        assert (found - expected[name]).norm() / expected[name].norm() < 1e-5, name
    for name, found in outputs(model.double(), ecg.double(), ids, mask).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9)


def test_logits_see_the_token_that_they_predict(model: OriginalESI) -> None:
    """The leak, which :class:`esi_fast.ESI` does not have: see tests/test_models.py."""
    ecg, ids, _ = random_inputs(TINY, 9, 64, seed=2)
    with torch.no_grad():
        before = model.caption_logits(ecg[:1], ids[:1])
        for changed in range(1, 9):
            other = ids[:1].clone()
            other[0, changed] = ids[0, changed] % (TINY.vocab - 1) + 1
            difference = (model.caption_logits(ecg[:1], other) - before).abs().amax(dim=-1)[0]
            assert (difference > 1e-4).all(), changed
    with pytest.raises(NotImplementedError, match="reads the caption that it should write"):
        model.caption(ecg)


def test_cross_attention_does_not_ask_the_query(model: OriginalESI) -> None:
    layer = model.multimodal_layers[0].get_submodule("1.fn")
    ecg = torch.randn(2, TINY.dim)
    with torch.no_grad():
        first, second = (layer.attend(torch.randn(2, 5, TINY.dim), ecg) for _ in range(2))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, first[:, :1].expand_as(first))
    assert not torch.allclose(first[0], first[1])


def test_voltage_is_lost_and_padding_does_not_count(model: OriginalESI) -> None:
    ecg, ids, mask = random_inputs(TINY, 9, 128, seed=3)
    gain = torch.linspace(0.5, 2, 3)[:, None, None]
    torch.testing.assert_close(
        model.encode_ecg(ecg), model.encode_ecg(ecg * gain), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(model.encode_text(ids, mask), model.encode_text(ids))
    alone = model.encode_text(ids[2:, :4])
    torch.testing.assert_close(model.encode_text(ids, mask)[2:], alone)
    assert alone.norm().item() == pytest.approx(1, abs=1e-6)
    assert model.encode_text(ids, normalize=False).norm(dim=1).sub(1).abs().min() > 1e-3


def test_records_are_normalised_and_their_leads_moved_once(model: OriginalESI) -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(0.1, 0.4, (12, 6000)).astype(np.float32)
    signal[3, 100:200] = np.nan
    signal[7] = np.nan
    x = signal[:, :5000].astype(np.float64)
    x[3, 100:200] = np.nanmean(x[3])
    x[7] = 0
    x = (x - x.mean()) / (x.std(ddof=1) + 1e-6)
    x[[4, 5]] = x[[5, 4]]  # aVL and aVF
    assert [STANDARD_LEADS[i] for i in (4, 5)] == ["aVL", "aVF"]
    assert [ORIGINAL_LEADS[i] for i in (4, 5)] == ["aVF", "aVL"]
    found = model.preprocess(record(signal, STANDARD_LEADS))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, x, atol=2e-6)
    order = [5, 3, 0, 1, 2, 4, *range(11, 5, -1)]
    shuffled = record(signal[order], tuple(STANDARD_LEADS[i] for i in order))
    assert torch.equal(model.preprocess(shuffled), found)
    for array in (np.stack([signal] * 2), torch.from_numpy(signal).expand(2, -1, -1)):
        assert torch.equal(model.preprocess(array, fs=500), found.expand(2, -1, -1))
    assert model.encode_ecg(found[None]).shape == (1, TINY.dim)


def test_short_records_at_another_rate_end_in_the_mean_of_their_lead(model: OriginalESI) -> None:
    signal = np.linspace(-1, 1, 12)[:, None] + np.sin(np.arange(500) / 20)
    found = model.preprocess(signal, fs=100)
    assert found.shape == (12, 5000)
    torch.testing.assert_close(found[:, 2500], found[:, :2500].mean(dim=1))
    assert (found[:, 2500:] == found[:, 2500:2501]).all()
    assert found.mean().abs() < 1e-6
    assert found.std() == pytest.approx(1, abs=1e-5)


def record(signal: np.ndarray, leads: tuple[str, ...]) -> ef.ECGRecord:
    digital = np.zeros(signal.shape, np.int16)
    return ef.ECGRecord(signal, digital, 500.0, leads, leads, "ok", (), "record")


def test_texts_need_a_tokenizer(state: State, tmp_path: Path) -> None:
    texts = ["sinus rhythm", "left bundle branch block, af"]
    tokenizer = train_wordpiece(texts, 200)
    sizes = TINY._replace(vocab=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = write(tmp_path, random_state(sizes, seed=6))
    model = load_original(path, tokenizer=str(tmp_path / "tokenizer"))
    ids = tokenizer(texts, padding=True, return_tensors="pt")
    expected = model.encode_text(ids["input_ids"], ids["attention_mask"])
    assert torch.equal(model.encode_text(texts), expected)
    assert model.tokenize(["sinus " * 50])["input_ids"].shape == (1, sizes.positions)
    with pytest.raises(ValueError, match="list of at least one string, not 'af'"):
        model.encode_text("af")
    with pytest.raises(ValueError, match="no tokenizer: give load_original one"):
        load_original(path).encode_text(texts)
    with pytest.raises(ValueError, match=r"the tokenizer has \d+ tokens, the text encoder 50"):
        load_original(write(tmp_path, state), tokenizer=tokenizer)


def test_a_text_config_overrides_the_number_of_heads(state: State, tmp_path: Path) -> None:
    from transformers import BertConfig

    config = BertConfig(**text_sizes(in_layout(state)[0]))
    config.num_attention_heads = 4
    path = write(tmp_path, state)
    _, ids, mask = random_inputs(TINY, 9, 64, seed=2)
    found = load_original(path, text_config=config).encode_text(ids, mask)
    assert not torch.allclose(found, load_original(path).encode_text(ids, mask), atol=1e-3)
    config.num_hidden_layers = 2
    with pytest.raises(ValueError, match=r"16 missing: .*encoder\.layer\.1"):
        load_original(path, text_config=config)


def test_wrong_inputs_are_named(model: OriginalESI) -> None:
    ecg, ids, mask = random_inputs(TINY, 9, 64, seed=2)
    for call, message in (
        (lambda: model.encode_ecg(ecg[0]), r"\(B, 12, T\), T >= 32, not \(12, 64\)"),
        (lambda: model.encode_ecg(ecg[..., :31]), "T >= 32"),
        (lambda: model.encode_ecg(ecg * torch.nan), "give them through preprocess"),
        (lambda: model.encode_text(mask.float()), r"must be \(B, N\) integers"),
        (lambda: model.encode_text(ids, mask[:, 1:]), r"attention_mask is \(3, 8\)"),
        (lambda: model.encode_text(torch.ones(1, 33).long()), "33 tokens; there are 32 positions"),
        (lambda: model.encode_text(["af"], mask), "attention_mask belongs to token ids"),
        (lambda: model.caption_logits(ecg[:2], ids), "2 ECGs, 3 captions of 9 tokens"),
        (lambda: model.caption_logits(ecg, ids[:, :1]), "at least one token behind"),
        (lambda: model.preprocess(ecg), "give fs, in Hz"),
        (lambda: model.preprocess(ecg[:, :8], fs=500), r"not \(3, 8, 64\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
