#!/usr/bin/env python
"""Pretrain ESI on shards: read top to bottom, this is the whole run.

deepspeed --num_accelerators 2 tools/pretrain.py --recipe demo --data.shards SHARDS --out RUN
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from esi_fast.cli import UsageError, run
from esi_fast.config import (
    Invocation,
    deepspeed_config,
    parse_pretrain,
    small_bert_sizes,
    to_toml,
)
from esi_fast.data.tar_stream import is_remote
from esi_fast.leads import STANDARD_LEADS

if TYPE_CHECKING:
    from torch import Tensor

    from esi_fast.config import TrainConfig
    from esi_fast.data.loader import Loader
    from esi_fast.data.remote import RemoteLoader
    from esi_fast.data.shard_set import ShardSet
    from esi_fast.models.esi import ESI, ESIOutput
    from esi_fast.training.runlog import RunLog

T = TypeVar("T")
# In the run folder: configurations and tokenizer; the resolved recipe, written when all is ready.
ARCHITECTURE, RECIPE = "model", "recipe.toml"


def main(argv: list[str]) -> int:
    invocation = parse_pretrain(argv)
    is_first = os.environ.get("RANK", "0") == "0"
    if is_first:
        check_folders(invocation)

    import torch

    on_gpu = torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed still calls torch by a name that torch 2.13 deprecates: nothing a user can act on.
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor", category=FutureWarning)
    import deepspeed

    from esi_fast.data.augment_signal import SignalAugmentation
    from esi_fast.data.remote import describe_stream
    from esi_fast.models.esi import ESI
    from esi_fast.training import (
        checkpoint,
        distributed,
        environment,
        optim,
        runlog,
    )

    distributed.start(deepspeed, on_gpu=on_gpu)
    rank, world_size = distributed.rank(), distributed.world_size()
    device = torch.device("cuda", distributed.local_rank()) if on_gpu else torch.device("cpu")
    out, train = invocation.out, invocation.train
    augmentation = checked(lambda: SignalAugmentation(**asdict(invocation.augment)))
    shards = open_shards(invocation)
    if shards is None:
        fs, num_samples = describe_stream(
            invocation.data.shards, skip=invocation.data.on_error == "skip"
        )
    else:
        fs, num_samples = shards.fs, shards.num_samples
    crop = round(invocation.data.crop * fs)
    if invocation.data.crop and not crop:
        raise UsageError(f"--data.crop {invocation.data.crop} s is no whole sample at {fs:g} Hz")

    # Rank 0 decides on the architecture (a tokenizer may be learned); the others read it, and
    # DeepSpeed gives them rank 0's weights.
    torch.manual_seed(train.seed)
    if is_first and invocation.resume is None:
        model = build_model(invocation, shards, fs, crop or num_samples)
        model.save_architecture(out / ARCHITECTURE)
    distributed.wait_for_all()
    if not is_first or invocation.resume is not None:
        model = ESI.from_architecture(out / ARCHITECTURE)

    loader = open_loader(
        invocation, shards, model, rank, world_size, crop, (fs, num_samples), pin_memory=on_gpu
    )
    steps_per_epoch = len(loader)
    total_steps = max(1, round(train.epochs * steps_per_epoch))
    recipe = invocation.model
    if recipe.text_mode == "frozen":
        model.text.freeze()
    if train.checkpoint_activations:
        model.checkpoint_activations()
    optimizer = optim.adamw(
        model.named_parameters(),
        lr=invocation.optim.lr,
        weight_decay=invocation.optim.weight_decay,
    )
    factor = optim.warmup_then_steps(
        round(invocation.optim.warmup_epochs * steps_per_epoch),
        round(invocation.optim.decay_epochs * steps_per_epoch),
        invocation.optim.decay_factor,
    )
    if invocation.resume is not None:
        tag = checkpoint.resolve(out, invocation.resume)
        environment.require_world_size(out / "env.json", world_size)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        config=deepspeed_config(invocation, on_gpu=on_gpu),
        dist_init_required=False,
    )
    step = 0
    if invocation.resume is not None:
        client_state = checkpoint.load(engine, out, tag)
        step = client_state["step"]
        loader.load_state_dict(client_state["loader"])
        distributed.wait_for_all()
        if is_first:
            checkpoint.discard_after(out, tag)
    if is_first:
        # On resume too: it may go on for longer than it was first told.
        partial = out / f".{RECIPE}"
        partial.write_text(to_toml(invocation))
        partial.rename(out / RECIPE)
        environment.write(out / "env.json", world_size)

    log = runlog.RunLog(out, total_steps, first_step=step, active=is_first)
    log.say(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{len(loader)} steps an epoch, {world_size} x {invocation.data.batch_size} a step, "
        f"{total_steps} steps ({train.epochs:g} epochs)"
        + (f", continuing after step {step}" if step else "")
    )
    skipped: dict[str, str] = {}
    engine.train()
    while step < total_steps:
        for batch in loader:
            batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            ecg = augmentation(
                batch["ecg"], batch["row"], seed=train.seed, epoch=loader.batch_epoch, fs=fs
            )
            learning_rate = optimizer.param_groups[0]["lr"]
            # Dropout depends on (seed, step, rank) alone: a resumed run draws what it would have.
            seed = (train.seed * 1_000_003 + step) * world_size + rank
            contrastive, captioning, logit_scale = take_step(engine, ecg, batch, train, seed)
            loss = contrastive + train.captioning_weight * captioning
            step += 1
            is_saved = step % train.save_every == 0 or step == total_steps
            if is_saved or step % train.log_every == 0:
                means = distributed.mean_over_ranks(
                    {"loss": loss, "contrastive": contrastive, "captioning": captioning}
                )
                if invocation.data.on_error == "skip":
                    skipped = report_skipped(loader, skipped, log)
                if not math.isfinite(means["loss"]):
                    raise ValueError(
                        f"the loss is {means['loss']} at step {step}: lower --optim.lr"
                    )
                log.step(
                    step,
                    {**means, "lr": learning_rate, "logit_scale": logit_scale.item()},
                    num_samples=world_size * invocation.data.batch_size,
                    wait_s=loader.wait_s,
                )
            if is_saved:
                state = {"step": step, "loader": loader.state_dict()}
                checkpoint.save(engine, out, step, state, keep=train.keep_checkpoints)
            if step == total_steps:
                break
    log.say(f"done: {out} (export it with tools/export {out} --out DIR)")
    log.close()
    distributed.shut_down()
    return 0


def take_step(
    engine: Any, ecg_BLT: Tensor, batch: dict[str, Tensor], train: TrainConfig, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the optimiser, the batch at once or in parts.

    Returns:
        This rank's contrastive and captioning loss, and the logit scale, all detached.
    """
    import torch

    from esi_fast.training import losses
    from esi_fast.training.grad_cache import cached_contrast

    num_tokens = losses.count_tokens(batch["attention_mask"])
    key_B = batch["row" if train.contrast == "clip" else "concept_key"]
    size = len(ecg_BLT) // train.micro_batches

    def run_part(number: int, *, with_captions: bool = True) -> ESIOutput:
        # Both runs of a part must draw the same dropout.
        torch.manual_seed(seed * train.micro_batches + number)
        rows = slice(number * size, (number + 1) * size)
        captions = ("input_ids", "attention_mask") if with_captions else ()
        texts = [batch[name][rows] for name in ("text_ids", "text_mask", *captions)]
        output: ESIOutput = engine(ecg_BLT[rows], *texts)
        return output

    def contrast(ecg: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if train.contrast == "sigmoid":
            return losses.sigmoid_contrastive_loss(ecg, text, scale, bias, key_B)
        return losses.contrastive_loss(ecg, text, scale, key_B)

    if train.micro_batches == 1:
        output = run_part(0)
        contrastive = contrast(output.ecg_BD, output.text_BD, output.logit_scale, output.logit_bias)
        captioning = losses.captioning_loss(output.caption_loss, num_tokens)
        engine.backward(contrastive + train.captioning_weight * captioning)
        engine.step()
        return contrastive.detach(), captioning.detach(), output.logit_scale.detach()

    contrastive, surrogate = cached_contrast(
        lambda number: run_part(number, with_captions=False), train.micro_batches, contrast
    )
    summed = torch.zeros_like(contrastive)
    for number in range(train.micro_batches):
        output = run_part(number)
        captioning = losses.captioning_loss(output.caption_loss, num_tokens)
        summed += captioning.detach()
        # Not divided by their number: the parts are of one loss.
        part = surrogate(number, output) + train.captioning_weight * captioning
        engine.backward(part, scale_wrt_gas=False)
        engine.step()
    return contrastive, summed, output.logit_scale.detach()


def report_skipped(
    loader: Loader | RemoteLoader, before: dict[str, str], log: RunLog
) -> dict[str, str]:
    """Tell what any rank has skipped since ``before``; gives what all have skipped so far."""
    from esi_fast.training import distributed

    here = {name: what for name, what in loader.skipped.items() if name not in before}
    new = distributed.union_over_ranks(here)
    now = before | new
    if new:
        log.say(f"{len(now)} damaged samples or shards were skipped so far, {len(new)} are new:")
    for what in [*new.values()][:5]:
        log.say(f"  {what}")
    return now


def checked(make: Callable[[], T]) -> T:
    """What ``make`` gives; what it refuses was asked for on the command line."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(str(error)) from None


def check_folders(invocation: Invocation) -> None:
    """Refuse what cannot work before anything heavy starts; make the run folder."""
    if not invocation.data.shards:
        raise UsageError("--data.shards is missing: name one or more folders of tools/shard")
    streamed = [is_remote(one) for one in invocation.data.shards]
    if any(streamed):
        if not all(streamed):
            raise UsageError("--data.shards mixes folders and URLs: give one kind")
        if not invocation.data.samples_per_epoch:
            raise UsageError("--data.samples-per-epoch is missing: a stream has no length")
        if invocation.model.text_model.startswith("bert:"):
            raise UsageError("--model.text-model is fresh: streamed captions teach no tokenizer")
        if invocation.data.shuffle != "full":
            raise UsageError("--data.shuffle needs shards in folders, not streamed ones")
        for name in ("crop", "pool_batches", "captions"):
            if getattr(invocation.data, name):
                flag = name.replace("_", "-")
                raise UsageError(f"--data.{flag} needs shards in folders, not streamed ones")
    elif invocation.data.samples_per_epoch:
        raise UsageError("--data.samples-per-epoch is for streams: a folder knows its records")
    for folder in () if any(streamed) else invocation.data.shards:
        if not (Path(folder) / "index.json").is_file():
            raise UsageError(
                f"--data.shards {folder} is not a finished shard folder (no index.json)"
            )
    out = invocation.out
    if out.is_file():
        raise UsageError(f"--out {out} is a file: name a folder")
    if invocation.resume is None:
        # What a start that failed has left, the architecture alone, is no run.
        if out.exists() and {path.name for path in out.iterdir()} - {ARCHITECTURE}:
            raise UsageError(f"run folder {out} exists: choose another --out, or --resume latest")
        out.mkdir(parents=True, exist_ok=True)


def open_shards(invocation: Invocation) -> ShardSet | None:
    """The training records; None if they are streamed."""
    from esi_fast.data.shard_set import ShardSet

    if is_remote(invocation.data.shards[0]):
        return None
    folders = [Path(one) for one in invocation.data.shards]
    shards = ShardSet(
        folders,
        "train",
        captions=invocation.data.captions,
        allow_damage=invocation.data.on_error == "skip",
    )
    if shards.leads != STANDARD_LEADS:
        raise UsageError(
            f"--data.shards {folders[0]} has the leads {','.join(shards.leads)}: the encoder reads "
            "the twelve standard ones"
        )
    return shards


def open_loader(
    invocation: Invocation,
    shards: ShardSet | None,
    model: ESI,
    rank: int,
    world_size: int,
    crop: int,
    expected: tuple[float, int],
    *,
    pin_memory: bool,
) -> Loader | RemoteLoader:
    """Batches of this rank; the first one tokenizes the captions, and the others read its file."""
    from esi_fast.data.loader import Loader, LoaderOptions
    from esi_fast.data.remote import RemoteLoader
    from esi_fast.data.tokens import CaptionTokens
    from esi_fast.training import distributed

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
    if rank != 0:
        distributed.wait_for_all()
    tokens = CaptionTokens(
        shards,
        model.tokenizer,
        model.config.max_tokens,
        # Beside the shards, for the next run; where that cannot be, in the run's folder.
        folders=(Path(data.shards[0]) / ".tokens", invocation.out / "tokens"),
        allow_damage=data.on_error == "skip",
    )
    if rank == 0:
        distributed.wait_for_all()
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
    from esi_fast.models.esi import ESI, ESIConfig

    recipe = invocation.model
    config = ESIConfig(
        encoder=recipe.encoder,
        fs=fs,
        num_samples=num_samples,
        drop_path=recipe.drop_path,
        embed_dim=recipe.embed_dim,
        max_tokens=recipe.max_tokens,
        decoder_dim=recipe.decoder_dim,
        decoder_layers=recipe.decoder_layers,
        decoder_heads=num_heads(recipe.decoder_dim),
        pooling=recipe.pooling,
        contrast="sigmoid" if invocation.train.contrast == "sigmoid" else "softmax",
    )
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


def num_heads(width: int) -> int:
    """Heads of 64, or of 16 where there is not the width for several of them."""
    return width // 64 if width % 64 == 0 and width > 64 else width // 16


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


if __name__ == "__main__":
    run(main)
