"""State dicts in the layout of the published ESI: read from a file, put in order, measured.

Nothing here runs code from a file: safetensors holds none, and torch files are unpickled as tensors
alone. The layout: names and shapes as observed on the published model with random weights.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esi_fast.models.convnext1d import VARIANTS

_INDEX_ENDING = ".index.json"
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
# What Accelerate and Trainer write beside the weights.
_TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|sampler|training_args)(_\d+)?\.")
_TEXT = "pretrained_text_encoder."
_TEXT_TWIN = "unimodal_layers."  # the published model registers its text encoder twice
_WORDS = f"{_TEXT}embeddings.word_embeddings.weight"
# In the file, but without influence on any output of the published code.
_UNUSED = (
    "img_encoder.head.",
    "img_attn_pool.",
    "text_cls_norm.",
    f"{_TEXT}pooler.",
    f"{_TEXT}embeddings.position_ids",
)
_NUM_SHOWN = 3


@dataclass(frozen=True)
class OriginalConfig:
    """The sizes of a published ESI.

    Attributes:
        encoder: the name in ``list_models`` of an encoder of this size; None if it has none.
        depths, channels: blocks and channels of the encoder's stages.
        embed_dim: D: of the text encoder, the decoder and both embeddings.
        decoder_layers, decoder_heads, head_dim, ff_dim: of the caption decoder.
        fs, num_samples: Hz and T that the published loader hands over.
        max_tokens: where the published code cuts a caption.
    """

    encoder: str | None
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    embed_dim: int
    decoder_layers: int
    decoder_heads: int
    head_dim: int
    ff_dim: int
    fs: float = 500.0
    num_samples: int = 5000
    max_tokens: int = 500


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, or of a folder with one of them.

    A folder holds one such file, or the parts of one and their ``*.index.json``; the state of an
    optimiser may lie beside it.

    Raises:
        FileNotFoundError: there is no such path, the folder has no weights or a part is absent.
        ValueError: a file is damaged or holds more than tensors, or the folder has several.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        path = _weights_in(path)
    if path.name.endswith(_INDEX_ENDING):
        return _read_parts(path)
    return _read_file(path)


def _weights_in(folder: Path) -> Path:
    files = sorted(folder.iterdir())
    found = [file for file in files if file.name.endswith(_INDEX_ENDING)]
    found = found or [
        file for file in files if file.suffix in _ENDINGS and not _TRAINING_STATE.match(file.name)
    ]
    if not found:
        endings = ", ".join(f"*{ending}" for ending in (*_ENDINGS, _INDEX_ENDING))
        raise FileNotFoundError(f"{folder} has no weights: {endings}")
    if len(found) > 1:
        raise ValueError(f"{folder} has several weights, give one: {_few(f.name for f in found)}")
    return found[0]


def _read_parts(index: Path) -> dict[str, Tensor]:
    try:
        parts = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights: it lacks a weight_map") from error
    state: dict[str, Tensor] = {}
    for part in sorted(map(str, parts)):
        if Path(part).name != part:
            raise ValueError(f"{index} names {part!r}, which is outside its folder")
        if not (index.parent / part).is_file():
            raise FileNotFoundError(f"{index.parent} lacks {part}, which {index.name} names")
        state |= _read_file(index.parent / part)
    return state


def _read_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file is a length of eight bytes and then JSON; a torch file is never.
    state: Any = _read_safetensors(path) if start[8:] == b"{" else _read_torch(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} is no state dict: not a tensor: {_few(others)}")
    return {str(name): value for name, value in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is a damaged safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle ends in any of a dozen kinds
        raise ValueError(
            f"{path} is damaged, or pickles more than tensors, which could run code and is "
            "refused: save the model's state_dict() with torch.save or safetensors"
        ) from error


def in_layout(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state dict as read -> what is used of it, float32, under one name each, and the rest.

    ``module.`` is stripped, and ``unimodal_layers.*`` becomes ``pretrained_text_encoder.*``.

    Returns:
        The tensors, and the names of those that no output depends on.

    Raises:
        ValueError: it is no published ESI with a ConvNeXt encoder, the two copies of the text
            encoder differ, or a weight is not of a floating dtype.
    """
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    ecg = [name for name in state if name.startswith("img_encoder.")]
    if not ecg:
        raise ValueError(f"no published ESI: no img_encoder.*, but {_few(state)}")
    if not any(name.startswith("img_encoder.downsample_layers.") for name in ecg):
        raise ValueError(
            f"the ECG encoder is not a ConvNeXt ({_few(ecg)}): weights of the xresnet1d variant "
            "cannot be loaded, those of the paper are convnextv2_*"
        )
    used: dict[str, Tensor] = {}
    unused = []
    for name, value in state.items():
        ours = _TEXT + name.removeprefix(_TEXT_TWIN) if name.startswith(_TEXT_TWIN) else name
        if ours.startswith(_UNUSED):
            unused.append(name)
            continue
        if not value.is_floating_point():
            raise ValueError(f"{name} is {value.dtype}, not floating point")
        if ours in used and not torch.equal(used[ours], value.float()):
            raise ValueError(f"the two copies of the text encoder differ at {name} and {ours}")
        used[ours] = value.float()
    return used, tuple(sorted(unused))


def measure(state: Mapping[str, Tensor]) -> OriginalConfig:
    """The sizes of a state dict from :func:`in_layout`.

    Raises:
        ValueError: a tensor that tells a size is missing or has the wrong number of dimensions, or
            the blocks do not fit the encoder's channels.
    """
    stages = range(len(next(iter(VARIANTS.values()))[0]))
    channels = tuple(_size(state, f"img_encoder.stages.{s}.0.dwconv.weight", 3) for s in stages)
    depths = tuple(_count(state, f"img_encoder.stages.{s}.") for s in stages)
    names = [name for name, (_, widths) in VARIANTS.items() if widths == channels]
    if names and VARIANTS[names[0]][0] != depths:
        raise ValueError(
            f"the channels are those of {names[0]}, which has {VARIANTS[names[0]][0]} blocks in "
            f"its stages, not {depths}: the state dict is incomplete"
        )
    attention = "multimodal_layers.0.0.fn"
    head_dim = 2 * _size(state, f"{attention}.rotary_emb.inv_freq", 1)
    return OriginalConfig(
        encoder=names[0] if names else None,
        depths=depths,
        channels=channels,
        embed_dim=_size(state, _WORDS, 2, -1),
        decoder_layers=_count(state, "multimodal_layers."),
        decoder_heads=_size(state, f"{attention}.attn_out.weight", 2, -1) // head_dim,
        head_dim=head_dim,
        ff_dim=_size(state, f"{attention}.ff_out.1.weight", 2, -1),
    )


def text_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The arguments of a ``transformers.BertConfig``; heads are 64 wide, as in BERTs of this kind.

    Raises:
        ValueError: a tensor that tells a size is missing, or D is no multiple of 64.
    """
    hidden = _size(state, _WORDS, 2, -1)
    if hidden % 64:
        raise ValueError(f"the text encoder is {hidden} wide, no multiple of 64: give text_config")
    return {
        "vocab_size": _size(state, _WORDS, 2),
        "hidden_size": hidden,
        "num_hidden_layers": _count(state, f"{_TEXT}encoder.layer."),
        "num_attention_heads": hidden // 64,
        "intermediate_size": _size(state, f"{_TEXT}encoder.layer.0.intermediate.dense.weight", 2),
        "max_position_embeddings": _size(state, f"{_TEXT}embeddings.position_embeddings.weight", 2),
        "type_vocab_size": _size(state, f"{_TEXT}embeddings.token_type_embeddings.weight", 2),
    }


def check_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse a state dict that does not fit a model's, name by name.

    Raises:
        ValueError: names are missing or unknown, or shapes differ; the message has a few of them.
    """
    faults = []
    if missing := expected.keys() - state.keys():
        faults.append(f"{len(missing)} missing: {_few(sorted(missing))}")
    if unknown := state.keys() - expected.keys():
        faults.append(f"{len(unknown)} unknown: {_few(sorted(unknown))}")
    shapes = [
        f"{name} is {given}, not {wanted}"
        for name, tensor in expected.items()
        if name in state
        and (given := _shape(name, state[name])) != (wanted := _shape(name, tensor))
    ]
    if shapes:
        faults.append(f"{len(shapes)} of another shape: {_few(shapes)}")
    if faults:
        raise ValueError("the state dict does not fit; " + "; ".join(faults))


def _shape(name: str, tensor: Tensor) -> tuple[int, ...]:
    """GRN's (1, 1, 4C) counts as (4C,): the block loads both."""
    flat = ".grn." in name and tensor.shape[:-1].numel() == 1
    return (tensor.numel(),) if flat else tuple(tensor.shape)


def _size(state: Mapping[str, Tensor], name: str, num_dims: int, dim: int = 0) -> int:
    if name not in state:
        raise ValueError(f"the state dict does not fit; missing: {name}")
    shape = tuple(state[name].shape)
    if len(shape) != num_dims or shape[dim] == 0:
        raise ValueError(f"{name} is {shape}, where {num_dims} dimensions above 0 belong")
    return shape[dim]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers stand behind the prefix, from 0 on and without a gap."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = {int(match[1]) for match in map(pattern.match, state) if match}
    first_absent = next(number for number in itertools.count() if number not in found)
    if first_absent == 0 or first_absent < len(found):
        raise ValueError(f"the state dict does not fit; missing: {prefix}{first_absent}.*")
    return first_absent


def _few(names: Iterable[str]) -> str:
    names = names if isinstance(names, Collection) else list(names)
    shown = ", ".join([*names][:_NUM_SHOWN])
    more = len(names) - _NUM_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
