"""The architecture: against Hugging Face's ConvNeXt V2, and what a caption decoder may see."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import esi_fast as ef
from esi_fast.models.convnext1d import VARIANTS, ConvNeXtV2Encoder1d, PatchConv1d
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.models.text import load_text_model, train_wordpiece

CAPTIONS = [
    "sinus rhythm. heart rate 70 bpm.",
    "atrial fibrillation. left axis deviation.",
    "left bundle branch block; (QRS 150 ms), 3:1?",
]


@pytest.fixture(scope="module")
def model() -> ESI:
    torch.manual_seed(0)
    config = ESIConfig(
        encoder="convnextv2_zepto",
        fs=100.0,
        num_samples=256,
        embed_dim=32,
        max_tokens=32,
        decoder_dim=32,
        decoder_layers=2,
        decoder_heads=4,
    )
    return ESI.from_captions(
        config, CAPTIONS * 5, vocab_size=300, hidden=32, layers=1, heads=2
    ).eval()


def test_the_encoder_equals_hugging_faces_on_an_image_of_height_one() -> None:
    from transformers import ConvNextV2Config, ConvNextV2Model

    torch.manual_seed(1)
    depths, channels = (1, 2, 1, 1), (16, 24, 32, 40)
    ours = ConvNeXtV2Encoder1d(depths, channels, in_chans=12).double().eval()
    theirs = ConvNextV2Model(
        ConvNextV2Config(num_channels=12, depths=depths, hidden_sizes=channels, layer_norm_eps=1e-6)
    )
    # Patches of one row: the image is T wide and 1 high.
    theirs.embeddings.patch_embeddings = nn.Conv2d(12, channels[0], (1, 4), stride=(1, 4))
    for stage, (before, after) in enumerate(pairwise(channels), start=1):
        layer = theirs.encoder.stages[stage].downsampling_layer
        layer[1] = nn.Conv2d(before, after, (1, 2), stride=(1, 2))
    theirs = theirs.double().eval()

    mapped: dict[str, torch.Tensor] = {}
    for name, value in ours.state_dict().items():
        if value.ndim == 1:  # zeros and ones at the start would hide a mistake
            value.normal_()
        if "dwconv.weight" in name:  # the middle row of a square kernel
            square = value.new_zeros(len(value), 1, 7, 7)
            square[:, :, 3] = value
            mapped[_hugging_face_name(name)] = square
        elif ".grn." in name:
            mapped[_hugging_face_name(name)] = value.view(1, 1, 1, -1)
        else:
            mapped[_hugging_face_name(name)] = value.unsqueeze(2) if value.ndim == 3 else value
    theirs.load_state_dict(mapped)
    x_BLT = torch.randn(2, 12, 163, dtype=torch.float64)
    with torch.no_grad():
        tokens = ours.forward_features(x_BLT)
        expected = theirs(x_BLT.unsqueeze(2))
        pooled = ours(x_BLT)
    torch.testing.assert_close(tokens, expected.last_hidden_state[:, :, 0].transpose(1, 2))
    torch.testing.assert_close(pooled, expected.pooler_output)


def _hugging_face_name(name: str) -> str:
    name = name.replace("grn.gamma", "grn.weight").replace("grn.beta", "grn.bias")
    parts = name.split(".")
    if parts[0] == "downsample_layers" and parts[1] == "0":
        return "embeddings." + ("patch_embeddings." if parts[2] == "0" else "layernorm.") + parts[3]
    if parts[0] == "downsample_layers":
        return f"encoder.stages.{parts[1]}.downsampling_layer.{'.'.join(parts[2:])}"
    if parts[0] == "stages":
        inner = ".".join("layernorm" if part == "norm" else part for part in parts[3:])
        return f"encoder.stages.{parts[1]}.layers.{parts[2]}.{inner}"
    return name.replace("norm.", "layernorm.")


def test_patches_are_a_strided_convolution() -> None:
    patch = PatchConv1d(12, 5, 4).double()
    conv = nn.Conv1d(12, 5, 4, stride=4).double()
    patch.load_state_dict(conv.state_dict())
    x_BLT = torch.randn(2, 12, 31, dtype=torch.float64)
    expected = conv(x_BLT).transpose(1, 2)
    torch.testing.assert_close(patch(x_BLT.transpose(1, 2)), expected)
    assert patch(x_BLT[:0].transpose(1, 2)).shape == (0, 7, 5)


@pytest.mark.parametrize("name", ["convnextv2_zepto", "convnextv2_atto", "convnextv2_nano"])
def test_encoder_shapes(name: str) -> None:
    encoder = ef.create_model(name, num_classes=3)
    x_BLT = torch.randn(2, 12, 1003)
    width = VARIANTS[name][1][-1]
    assert encoder.forward_features(x_BLT).shape == (2, 31, width)
    assert encoder(x_BLT).shape == (2, 3)
    assert ef.create_model(name)(x_BLT).shape == (2, width)


def test_base_has_the_published_size() -> None:
    """ConvNeXt V2-B has 88 M parameters at 1,000 classes on images; one dimension needs fewer."""
    with torch.device("meta"):
        encoder = ef.create_model("convnextv2_base")
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(85.7, abs=1.0)


def test_an_unknown_encoder_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean convnextv2_base"):
        ef.create_model("convnextv2_bas")
    assert ef.list_models("*tiny") == ["convnextv2_tiny"]


def test_logits_never_see_the_token_that_they_predict(model: ESI) -> None:
    batch = model.tokenize(CAPTIONS[:1])
    ecg = torch.randn(1, 12, 256)
    with torch.no_grad():
        ids = batch["input_ids"]
        before = model.caption_logits(ecg, ids)
        for changed in range(1, ids.shape[1] - 1):
            other = ids.clone()
            other[0, changed] = (ids[0, changed] + 7) % 60 + 5
            after = model.caption_logits(ecg, other)
            assert torch.equal(before[:, :changed], after[:, :changed])
            assert not torch.equal(before[:, changed:], after[:, changed:])


def test_a_caption_is_the_likeliest_next_token_again_and_again(model: ESI) -> None:
    ecg = torch.randn(3, 12, 256)
    shapes: list[tuple[int, ...]] = []
    hook = model.decoder.to_logits.register_forward_hook(
        lambda module, arguments, logits: shapes.append(tuple(logits.shape))
    )
    captions = model.caption(ecg)
    hook.remove()
    assert set(shapes) == {(3, model.text_config.vocab_size)}  # of the last position alone
    ids = torch.full((3, 1), model.tokenizer.cls_token_id)
    for _ in shapes:
        logits = model.caption_logits(ecg, torch.nn.functional.pad(ids, (0, 1)))
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    for row, caption in zip(ids.tolist(), captions, strict=True):
        if (end := model.tokenizer.sep_token_id) in row:
            row = row[: row.index(end)]
        assert model.tokenizer.decode(row, skip_special_tokens=True) == caption


def test_captions_depend_on_the_order_of_the_ecg(model: ESI) -> None:
    """Cross-attention reads the sequence: a constant context would not tell two ECGs apart."""
    batch = model.tokenize(CAPTIONS[:1])
    ids = batch["input_ids"]
    with torch.no_grad():
        first, second = (model.caption_logits(torch.randn(1, 12, 256), ids) for _ in range(2))
    difference = (first - second).std(dim=1)
    assert difference.max() > 1e-4


def test_voltage_is_kept_and_missing_samples_count_as_zero(model: ESI) -> None:
    ecg = torch.randn(2, 12, 256)
    assert not torch.allclose(model.encode_ecg(ecg), model.encode_ecg(ecg * 0.3), atol=1e-3)
    holed, zeroed = ecg.clone(), ecg.clone()
    holed[:, 3, 50:90] = torch.nan
    zeroed[:, 3, 50:90] = 0
    torch.testing.assert_close(model.encode_ecg(holed), model.encode_ecg(zeroed))


def test_padding_does_not_change_a_text(model: ESI) -> None:
    alone = model.encode_text(["atrial fibrillation"])
    padded = model.encode_text(["atrial fibrillation", CAPTIONS[2] * 2])
    torch.testing.assert_close(alone[0], padded[0])
    assert alone.norm().item() == pytest.approx(1)


def test_nothing_in_a_caption_is_unknown(model: ESI) -> None:
    ids = model.tokenize(["Strange %$# words: 3-4 (~x)?"])["input_ids"]
    assert model.tokenizer.unk_token_id not in ids.flatten().tolist()


def test_equal_captions_give_equal_tokenizers() -> None:
    first, again = (train_wordpiece(CAPTIONS * 3, 150) for _ in range(2))
    assert first.get_vocab() == again.get_vocab()
    assert len(first) <= 150
    assert first.tokenize("Sinus rhythmic.") == ["sinus", "rhythm", "##i", "##c", "."]
    assert first.decode(first("sinus rhythm. (qrs)")["input_ids"], skip_special_tokens=True) == (
        "sinus rhythm. ( qrs )"
    )
    with pytest.raises(ValueError, match="the characters alone need"):
        train_wordpiece(CAPTIONS, 50)


def test_saved_and_loaded_it_is_the_same(model: ESI, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    seed = torch.get_rng_state()
    again = ESI.from_pretrained(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), seed)
    ecg = torch.randn(3, 12, 256)
    assert again.config == model.config
    assert torch.equal(again.encode_ecg(ecg), model.encode_ecg(ecg))
    assert torch.equal(again.encode_text(CAPTIONS), model.encode_text(CAPTIONS))
    assert again.caption(ecg) == model.caption(ecg)
    assert not list((tmp_path / "model").glob("*.bin"))


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json"):
        ESI.from_architecture(tmp_path)


def test_the_untrained_copy_differs_and_repeats(model: ESI) -> None:
    ecg = torch.randn(2, 12, 256)
    first, again = model.untrained_copy(1), model.untrained_copy(1)
    assert torch.equal(first.encode_ecg(ecg), again.encode_ecg(ecg))
    assert not torch.equal(first.encode_ecg(ecg), model.encode_ecg(ecg))


def test_records_of_any_rate_and_length_fit(model: ESI) -> None:
    for fs, seconds in ((500.0, 1.0), (250.0, 10.0)):
        signal = np.ones((12, round(fs * seconds)), np.float32)
        out = model.preprocess(SimpleNamespace(signal=signal, fs=fs))  # type: ignore[arg-type]
        assert out.shape == (12, 256)
        assert out.dtype == torch.float32
        kept = min(256, round(100 * seconds))
        torch.testing.assert_close(out[:, :kept], torch.ones(12, kept))
        assert out[:, kept:].isnan().all()


def test_a_local_bert_by_path(tmp_path: Path, model: ESI) -> None:
    from transformers import BertModel

    BertModel(model.text_config, add_pooling_layer=False).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    _, tokenizer = load_text_model(str(tmp_path))
    assert len(tokenizer) == len(model.tokenizer)
    again = ESI.from_text_model(model.config, str(tmp_path))
    saved = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).state_dict()
    assert all(
        torch.equal(value, saved[name]) for name, value in again.text.bert.state_dict().items()
    )
    assert again.encode_text(CAPTIONS).shape == (3, 32)


def test_loading_says_nothing(model: ESI, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model.save_pretrained(tmp_path)
    library = logging.getLogger("transformers")  # does not hand its messages on
    library.addHandler(caplog.handler)
    try:
        ESI.from_pretrained(tmp_path)
    finally:
        library.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_a_model_around_a_vocabulary_of_bert_reads_the_same_when_loaded(
    model: ESI, tmp_path: Path
) -> None:
    from transformers import BertModel, BertTokenizer

    bert = tmp_path / "bert"
    BertModel(model.text_config, add_pooling_layer=False).save_pretrained(bert)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789."]
    words += [f"##{word}" for word in words[5:]]
    (bert / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(bert / "vocab.txt")).save_pretrained(bert)
    made = ESI.from_text_model(model.config, str(bert)).eval()
    made.save_pretrained(tmp_path / "model")
    again = ESI.from_pretrained(tmp_path / "model")
    texts = ["Sinus rhythm.", "", "AF 3:1 with a long, long report. " * 20]
    expected = made.tokenize(texts)
    for name, ids in again.tokenize(texts).items():
        assert torch.equal(ids, expected[name])
    assert torch.equal(again.encode_text(texts), made.encode_text(texts))


def test_a_text_model_that_cannot_be_had_says_how() -> None:
    with pytest.raises(ValueError, match="hf download nobody/no-such-bert"):
        load_text_model("nobody/no-such-bert")


def test_wrong_inputs_are_named(model: ESI) -> None:
    with pytest.raises(ValueError, match="list of at least one string, not 'atrial'"):
        model.encode_text("atrial")
    with pytest.raises(ValueError, match="list of at least one string"):
        model.encode_text([])
    for shape in ((12, 256), (1, 6, 256), (0, 12, 256), (1, 12, 31)):
        with pytest.raises(ValueError, match="ECGs must be a tensor"):
            model.encode_ecg(torch.zeros(shape))


def test_damaged_weights_are_one_line(model: ESI, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    assert weights.stat().st_mode == (tmp_path / "config.json").stat().st_mode
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit"):
        ESI.from_pretrained(tmp_path)
