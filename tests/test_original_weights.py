"""Files in the published layout: all kinds load alike, and what does not fit is named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from original_restatement import BASE, TEXT, TINY, Sizes, State, layout, random_inputs, random_state
from safetensors.torch import save_file
from torch import Tensor

from esi_fast.models.original import OriginalESI, load_original
from esi_fast.models.original_weights import check_fit, in_layout, measure, text_sizes


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(TINY, seed=1)


def outputs(model: OriginalESI) -> tuple[Tensor, ...]:
    ecg, ids, mask = random_inputs(TINY, 7, 64, seed=4)
    with torch.no_grad():
        logits = model.caption_logits(ecg, ids, mask)
    return model.encode_ecg(ecg), model.encode_text(ids, mask), logits


def with_twin(state: State) -> State:
    """As ``state_dict()`` has it: the text encoder under both names, with shared storage."""
    twin = {name.replace(TEXT, "unimodal_layers"): x for name, x in state.items() if TEXT in name}
    return state | twin


def only_twin(state: State) -> State:
    return {name.replace(TEXT, "unimodal_layers"): x for name, x in state.items()}


def old_and_wrapped(state: State) -> State:
    positions = {f"{TEXT}.embeddings.position_ids": torch.arange(TINY.positions)[None]}
    return {f"module.{name}": x for name, x in (state | positions).items()}


@pytest.mark.parametrize("names", [dict, with_twin, only_twin, old_and_wrapped])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "old torch", "folder", "parts"])
def test_files_of_all_kinds_load_alike(
    names: Callable[[State], State],
    kind: str,
    state: State,
    tmp_path: Path,
) -> None:
    given = names(state)
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file({name: x.clone() for name, x in given.items()}, path)
    elif kind == "torch":
        torch.save({"state_dict": given, "epoch": 3}, path)
    elif kind == "old torch":
        torch.save(given, path, _use_new_zipfile_serialization=False)
    elif kind == "folder":
        torch.save(given, tmp_path / "pytorch_model.bin")
        path = tmp_path
    else:
        parts: dict[str, str] = {}
        for n in range(2):
            part = {name: given[name].clone() for name in sorted(given)[n::2]}
            save_file(part, tmp_path / f"model-{n}.safetensors")
            parts |= dict.fromkeys(part, f"model-{n}.safetensors")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": parts}))
        path = tmp_path
    loaded = load_original(path)
    assert not loaded.training
    save_file(state, tmp_path / "plain")
    expected = outputs(load_original(tmp_path / "plain"))
    assert all(map(torch.equal, outputs(loaded), expected))
    families = ("img_encoder.head", "img_attn_pool.", "text_cls_norm", "pooler", "position_ids")
    assert loaded.unused
    assert all(any(family in name for family in families) for name in loaded.unused)


def test_a_file_may_change_after_it_was_loaded(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    loaded = load_original(path)
    with path.open("r+b") as file:
        file.seek(-4 * TINY.vocab * TINY.dim, 2)
        file.write(bytes(4 * TINY.vocab * TINY.dim))
    assert torch.equal(loaded.to_logits[1].weight, state["to_logits.1.weight"])
    assert all(x.dtype == torch.float32 for x in loaded.state_dict().values())


def test_a_checkpoint_of_training_loads_and_moves_no_seed(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    for name in ("optimizer.bin", "scheduler.bin", "optimizer_1.bin", "scaler.pt"):
        torch.save({"step": 1}, tmp_path / name)
    before = torch.get_rng_state()
    load_original(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_base_model_has_the_published_names_and_sizes() -> None:
    from transformers import BertConfig, BertModel

    shapes = layout(BASE)
    given = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert (len(given), len(with_twin(given))) == (676, 875)
    used, unused = in_layout(given)
    assert len(used) + len(unused) == 676
    config = measure(used)
    assert (config.encoder, config.embed_dim, config.decoder_layers) == ("convnextv2_base", 768, 6)
    assert (config.decoder_heads, config.head_dim, config.ff_dim) == (8, 64, 3072)
    with torch.device("meta"):
        bert_config = BertConfig(**text_sizes(used))
        model = OriginalESI(config, BertModel(bert_config, add_pooling_layer=False))
    assert bert_config.num_attention_heads == 12
    check_fit(used, model.state_dict())


def without(*endings: str) -> Callable[[State], State]:
    return lambda state: {name: x for name, x in state.items() if not name.endswith(endings)}


def plus(name: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("img_token_head.bias"), r"1 missing: img_token_head\.bias"),
        (without("grn.gamma"), r"5 missing: .*grn\.gamma, .* and 2 more"),
        (without("word_embeddings.weight"), r"missing: .*word_embeddings\.weight"),
        (lambda s: {n: x for n, x in s.items() if "layers.0." not in n}, "missing: multimodal"),
        (plus("teacher.weight", torch.ones(2)), r"1 unknown: teacher\.weight"),
        (plus("temperature", torch.ones(2)), r"temperature is \(2,\), not \(1,\)"),
        (plus("img_token_head.weight", torch.ones(64, 23)), r"token_head\.weight is \(64, 23\)"),
        (plus("img_encoder.stages.0.0.grn.beta", torch.ones(2, 16)), r"grn\.beta is \(2, 16\)"),
        (plus("temperature", torch.ones(1, dtype=torch.int64)), "temperature is torch.int64"),
        (plus("unimodal_layers.embeddings.LayerNorm.bias", torch.ones(64)), "two copies .* differ"),
        (lambda s: {n.replace("downsample_layers", "0"): x for n, x in s.items()}, "xresnet1d"),
        (lambda s: {n.replace("img_encoder", "ecg"): x for n, x in s.items()}, "no img_encoder"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    change: Callable[[State], State], message: str, state: State, tmp_path: Path
) -> None:
    torch.save(change(state), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message) as raised:
        load_original(tmp_path / "weights.pt")
    assert str(tmp_path / "weights.pt") in str(raised.value)
    assert len(str(raised.value)) < 600


def test_a_lost_block_of_a_known_encoder_is_noticed(tmp_path: Path) -> None:
    state = random_state(Sizes((2, 2, 6, 1), (40, 80, 160, 320)), seed=0)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"convnextv2_atto, which has \(2, 2, 6, 2\) blocks"):
        load_original(tmp_path / "model.safetensors")


class Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


def test_files_that_are_none_are_refused(state: State, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent does not exist"):
        load_original(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"has no weights: \*\.safetensors"):
        load_original(tmp_path)
    ran = tmp_path / "ran"
    torch.save({"a": Touches(ran)}, tmp_path / "code.bin")
    (tmp_path / "code2.bin").write_bytes(pickle.dumps(Touches(ran), protocol=2))
    (tmp_path / "empty.bin").touch()
    (tmp_path / "pops_nothing.bin").write_bytes(b"\x80\x02.")
    for name in ("code.bin", "code2.bin", "empty.bin", "pops_nothing.bin"):
        with pytest.raises(ValueError, match=rf"{name} is damaged, or pickles more than tensors"):
            load_original(tmp_path / name)
    assert not ran.exists()
    with pytest.raises(ValueError, match=r"has several weights, give one: code\.bin"):
        load_original(tmp_path)
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load_original(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "number.pt")
    with pytest.raises(ValueError, match="not a tensor: epoch"):
        load_original(tmp_path / "number.pt")
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged safetensors file"):
        load_original(path)
    index = tmp_path / "model.index.json"
    for text, message in (
        ("{}", "lacks a weight_map"),
        ('{"weight_map": {"a": "../a.bin"}}', "outside its folder"),
    ):
        index.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_original(index)
    index.write_text('{"weight_map": {"a": "gone.bin"}}')  # an index goes before other files
    with pytest.raises(FileNotFoundError, match=r"lacks gone\.bin"):
        load_original(tmp_path)
