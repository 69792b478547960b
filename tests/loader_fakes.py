"""What the tests of shard sets, tokens and loaders share."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from shard_tree import SETTINGS, Tree, build, contents, make_tree

from esi_fast.cqa.caption import CaptionDictionary
from esi_fast.data.loader import Loader, LoaderOptions, LoaderState
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens

ONE_SPLIT = SETTINGS | {"val_fraction": 0.0, "test_fraction": 0.0}
NUM_RECORDS = 24
T = TypeVar("T")


def loader_of(
    shard_set: ShardSet,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    tokens: CaptionTokens | None = None,
    **options: Any,
) -> Loader:
    """A loader with its options by name."""
    return Loader(shard_set, tokens, batch_size, rank, world_size, LoaderOptions(**options))


class ByteTokenizer:
    """One token a byte; [PAD], [CLS] and [SEP] are 0, 1 and 2."""

    pad_token_id, cls_token_id, sep_token_id = 0, 1, 2
    backend_tokenizer = SimpleNamespace(to_str=lambda: '{"model": "bytes"}')

    def __init__(self) -> None:
        self.num_texts = 0

    def __call__(self, text: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        self.num_texts += len(text)
        # Blanks are no tokens, as for BERT: sentences join without any.
        return {"input_ids": [[3 + byte for byte in one.encode() if byte != 32] for one in text]}


def text_of(ids: torch.Tensor, mask: torch.Tensor) -> str:
    kept = ids[mask.bool()].tolist()
    assert (kept[0], kept[-1]) == (1, 2)
    return bytes(token - 3 for token in kept[1:-1]).decode()


def bare_text(text: str) -> str:
    return text.replace(" ", "")


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name, content in contents(folder).items():
        (to / name).write_bytes(content)
    return to


def rows_of(loader: Loader, num_batches: int | None = None) -> list[list[int]]:
    return [batch["row"].tolist() for batch in itertools.islice(loader, num_batches)]


def flat(lists: Iterable[list[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(tmp_path_factory.mktemp("tree"), NUM_RECORDS)


@pytest.fixture(scope="module")
def built(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    build(tree, out, captions=CaptionDictionary([]), **ONE_SPLIT)
    return out


@pytest.fixture(scope="module")
def bare(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records without captions."""
    out = tmp_path_factory.mktemp("bare") / "out"
    build(tree, out, **ONE_SPLIT)
    return out


@pytest.fixture(scope="module")
def shard_set(built: Path) -> ShardSet:
    return ShardSet([built])


@pytest.fixture(scope="module")
def tokens(shard_set: ShardSet) -> CaptionTokens:
    return CaptionTokens(shard_set, ByteTokenizer(), 2000)


def state_at(loader: Loader, samples: int) -> LoaderState:
    state = loader.state_dict()
    state["epoch"], state["samples"] = 0, samples
    return state


def global_batches(
    shard_set: ShardSet, world_size: int, num_batches: int | None = None, **options: object
) -> list[list[int]]:
    """What all ranks together see, each batch in the order of the ranks."""
    ranks = [
        rows_of(loader_of(shard_set, 6 // world_size, rank, world_size, **options), num_batches)
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    return [flat(batches) for batches in zip(*ranks, strict=True)]


def refusal(loader: Loader, state: LoaderState) -> str:
    before = loader.state_dict()
    with pytest.raises(ValueError, match=r"the loader state|the last") as raised:
        loader.load_state_dict(state)
    assert "\n" not in str(raised.value)
    assert loader.state_dict() == before
    return str(raised.value)


def loader_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("esi_fast loader")]
