"""The parts of a run by its recipe: shards, loader, model; what cannot work is refused early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from esi_fast.cli import UsageError
from esi_fast.config import Invocation
from esi_fast.data.loader import Loader, LoaderOptions
from esi_fast.data.remote import RemoteLoader
from esi_fast.data.shard_index import read_shard_folder
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tar_stream import is_remote
from esi_fast.data.tokens import CaptionTokens
from esi_fast.leads import STANDARD_LEADS
from esi_fast.models.esi import ESI
from esi_fast.pretrain.sizes import architecture, num_heads
from esi_fast.pretrain.validation import Validation
from esi_fast.recipe_rules import lora_rank, small_bert_sizes
from esi_fast.training import distributed

T = TypeVar("T")


def checked(make: Callable[[], T]) -> T:
    """What ``make`` gives; what it refuses was asked for on the command line."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(str(error)) from None


def open_shards(invocation: Invocation, split: str = "train") -> ShardSet | None:
    """The records of a split; None if they are streamed."""
    if is_remote(invocation.data.shards[0]):
        return None
    folders = [Path(one) for one in invocation.data.shards]
    shards = ShardSet(
        folders,
        split,
        captions=invocation.data.captions,
        allow_damage=invocation.data.on_error == "skip",
    )
    if shards.leads != STANDARD_LEADS:
        raise UsageError(
            f"--data.shards {folders[0]} has the leads {','.join(shards.leads)}: the encoder reads "
            "the twelve standard ones"
        )
    return shards


def caption_tokens(invocation: Invocation, shards: ShardSet, model: ESI) -> CaptionTokens:
    """The captions as tokens: rank 0 tokenizes them, and the others read its file."""
    rank = distributed.rank()
    if rank != 0:
        distributed.wait_for_all()
    tokens = CaptionTokens(
        shards,
        model.tokenizer,
        model.config.max_tokens,
        # Beside the shards, for the next run; where that cannot be, in the run's folder.
        folders=(Path(invocation.data.shards[0]) / ".tokens", invocation.out / "tokens"),
        allow_damage=invocation.data.on_error == "skip",
    )
    if rank == 0:
        distributed.wait_for_all()
    return tokens


def open_loader(
    invocation: Invocation,
    shards: ShardSet | None,
    model: ESI,
    crop: int,
    expected: tuple[float, int],
    *,
    pin_memory: bool,
) -> Loader | RemoteLoader:
    """Batches of this rank."""
    rank, world_size = distributed.rank(), distributed.world_size()
    data = invocation.data
    if shards is None:
        return RemoteLoader(
            data.shards,
            model.tokenize,
            data.batch_size,
            samples_per_epoch=data.samples_per_epoch,
            rank=rank,
            world_size=world_size,
            seed=invocation.train.seed,
            sentence_sampling=data.sentence_sampling,
            on_error=data.on_error,
            expected=expected,
        )
    tokens = caption_tokens(invocation, shards, model)
    options = checked(
        lambda: LoaderOptions(
            seed=invocation.train.seed,
            shuffle=data.shuffle,
            pool_batches=data.pool_batches,
            sentence_sampling=data.sentence_sampling,
            crop=crop,
            on_error=data.on_error,
            pin_memory=pin_memory,
        )
    )
    return Loader(shards, tokens, data.batch_size, rank, world_size, options)


def build_model(
    invocation: Invocation, shards: ShardSet | None, fs: float, num_samples: int
) -> ESI:
    """The model of a recipe, with fresh or pretrained text weights."""
    recipe = invocation.model
    config = architecture(invocation, fs, num_samples)
    if not recipe.text_model.startswith("bert:"):
        return ESI.from_text_model(config, recipe.text_model)
    assert shards is not None, "check_folders wants a text model for streams"
    hidden, layers, vocabulary = small_bert_sizes(recipe.text_model)
    return ESI.from_captions(
        config,
        captions_to_learn(shards, skip=invocation.data.on_error == "skip"),
        vocab_size=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=num_heads(hidden),
    )


def captions_to_learn(shards: ShardSet, *, skip: bool) -> list[str]:
    """The captions from which a tokenizer is learned."""
    captions = []
    for row in range(min(len(shards), 20_000)):
        try:
            captions.append(shards.read_caption(row) or "")
        except ValueError:
            if not skip:
                raise
    return captions


def choose_trained(invocation: Invocation, model: ESI) -> None:
    """Freeze, adapt and recompute as the recipe says; before the optimiser is made."""
    if invocation.model.text_mode == "frozen":
        model.text.freeze()
    if rank := lora_rank(invocation.model.text_mode):
        model.text.add_adapters(rank)
    if invocation.train.checkpoint_activations:
        model.checkpoint_activations()


def cannot_validate(invocation: Invocation) -> str:
    """Why a run has nothing to be validated on; "" if it has."""
    shards = invocation.data.shards
    if is_remote(shards[0]):
        return "streams have no val split"
    if not any(read_shard_folder(Path(one))["counts"].get("val") for one in shards):
        return "the shards have no records in their val split"
    return ""


def open_validation(invocation: Invocation, model: ESI) -> Validation | None:
    """The validation of a run; None if it asks for none, or has nothing to be validated on."""
    data, train = invocation.data, invocation.train
    if not train.validate_every or cannot_validate(invocation):
        return None
    try:
        shards = open_shards(invocation, "val")
        assert shards is not None
        return Validation(
            shards,
            caption_tokens(invocation, shards, model),
            model,
            data.batch_size,
            train,
            allow_damage=data.on_error == "skip",
        )
    except ValueError as error:
        raise UsageError(f"validation: {error} (--train.validate-every 0 does without)") from None
