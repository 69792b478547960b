#!/usr/bin/env python
"""Pretrain ESI on shards: read top to bottom, this is the whole run.

deepspeed --num_accelerators 2 tools/pretrain.py --recipe demo --data.shards SHARDS --out RUN
"""

from __future__ import annotations

import os
import warnings
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from esi_fast.cli import UsageError, run
from esi_fast.config import Invocation, parse_pretrain, to_toml
from esi_fast.pretrain.start import (
    ARCHITECTURE,
    ENVIRONMENT,
    RECIPE,
    check_folders,
    is_converted,
    profiled_steps,
)
from esi_fast.recipe_rules import deepspeed_config, monitor_config

if TYPE_CHECKING:
    from esi_fast.data.loader import Loader
    from esi_fast.data.remote import RemoteLoader
    from esi_fast.training.runlog import RunLog


def main(argv: list[str]) -> int:
    invocation = parse_pretrain(argv)
    is_first = os.environ.get("RANK", "0") == "0"
    if invocation.dry_run:
        if is_first:
            from esi_fast.pretrain.dry_run import describe_run

            print(describe_run(invocation))
        return 0
    profiled = profiled_steps(invocation.profile)
    if is_first:
        check_folders(invocation)

    from esi_fast.training.distributed import lost_ranks_are_named

    with lost_ranks_are_named():
        pretrain(invocation, profiled, is_first=is_first)
    return 0


def pretrain(invocation: Invocation, profiled: tuple[int, int], *, is_first: bool) -> None:
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
    from esi_fast.pretrain import parts
    from esi_fast.pretrain.profiling import Profile
    from esi_fast.pretrain.sizes import sizes_of
    from esi_fast.pretrain.step import take_step
    from esi_fast.pretrain.watch import Totals, monitor, peak_flops
    from esi_fast.training import checkpoint, distributed, environment, optim, runlog, stopping

    distributed.start(deepspeed, on_gpu=on_gpu)
    rank, world_size = distributed.rank(), distributed.world_size()
    device = torch.device("cuda", distributed.local_rank()) if on_gpu else torch.device("cpu")
    out, train = invocation.out, invocation.train
    augmentation = parts.checked(lambda: SignalAugmentation(**asdict(invocation.augment)))
    shards = parts.open_shards(invocation)
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
        model = parts.build_model(invocation, shards, fs, crop or num_samples)
        model.save_architecture(out / ARCHITECTURE)
    distributed.wait_for_all()
    if not is_first or invocation.resume is not None:
        model = ESI.from_architecture(out / ARCHITECTURE)

    loader = parts.open_loader(
        invocation, shards, model, crop, (fs, num_samples), pin_memory=on_gpu
    )
    validation = parts.open_validation(invocation, model)
    steps_per_epoch = len(loader)
    total_steps = max(1, round(train.epochs * steps_per_epoch))
    parts.choose_trained(invocation, model)
    optimizer = optim.adamw(
        model.named_parameters(),
        lr=invocation.optim.lr,
        weight_decay=invocation.optim.weight_decay,
        betas=(invocation.optim.beta1, invocation.optim.beta2),
        eps=invocation.optim.eps,
    )
    factor = optim.warmup_then_steps(
        round(invocation.optim.warmup_epochs * steps_per_epoch),
        round(invocation.optim.decay_epochs * steps_per_epoch),
        invocation.optim.decay_factor,
    )
    config = deepspeed_config(invocation, on_gpu=on_gpu)
    if invocation.resume is not None:
        tag = name = checkpoint.resolve(out, invocation.resume)
        made_by = checkpoint.made_by(out, tag)
        if is_converted(made_by, world_size, invocation.data.batch_size):
            name = checkpoint.convert(out, tag)
            config["checkpoint"] = {"load_universal": True}
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        config=config,
        dist_init_required=False,
    )
    step, best_loss = 0, float("inf")
    if invocation.resume is not None:
        client_state = checkpoint.load(engine, out, name)
        step, best_loss = client_state["step"], client_state["best_loss"]
        loader.load_state_dict(client_state["loader"])
    profile = Profile(out, *profiled, done=step, total_steps=total_steps, active=is_first)
    distributed.wait_for_all()
    if is_first:
        if invocation.resume is not None:
            checkpoint.discard_after(out, tag)
        # On resume too: it may go on for longer than it was first told.
        partial_recipe = out / f".{RECIPE}"
        partial_recipe.write_text(to_toml(invocation))
        partial_recipe.rename(out / RECIPE)
        environment.write(out / ENVIRONMENT, world_size)

    records = world_size * invocation.data.batch_size
    log = runlog.RunLog(
        out,
        total_steps,
        first_step=step,
        active=is_first,
        records=records,
        peak_flops=peak_flops(device, world_size),
        monitor=monitor(monitor_config(invocation, out)),
    )
    log.say(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, "
        f"{steps_per_epoch} steps an epoch, {world_size} x {invocation.data.batch_size} a step, "
        f"{total_steps} steps ({train.epochs:g} epochs)"
        + (f", validated on {validation.num_records} records" if validation else "")
        + (f", continuing after step {step}" if step else "")
    )
    if train.validate_every and (why := parts.cannot_validate(invocation)):
        log.say(f"warning: not validated, and no checkpoint will be the best: {why}")
    skipped: dict[str, str] = {}
    stop, watch = stopping.StopRequest(device), stopping.FiniteWatch()
    sizes = sizes_of(invocation, model.config, model.text_config)
    totals = Totals(device, sizes, records)
    name_of = str if shards is None else shards.key
    save = partial(checkpoint.save, engine, out, records=records, keep=train.keep_checkpoints)
    is_stopped = False
    engine.train()
    while step < total_steps and not is_stopped:
        for batch in loader:
            batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
            ecg = augmentation(
                batch["ecg"], batch["row"], seed=train.seed, epoch=loader.batch_epoch, fs=fs
            )
            learning_rate = optimizer.param_groups[0]["lr"]
            # Dropout depends on (seed, step, rank) alone: a resumed run draws what it would have.
            seed = (train.seed * 1_000_003 + step) * world_size + rank
            profile.before(step + 1)
            contrastive, captioning, logit_scale = take_step(engine, ecg, batch, train, seed)
            loss = contrastive + train.captioning_weight * captioning
            step += 1
            profile.after(step)
            watch.note(step, loss, batch["row"])
            totals.add(batch["attention_mask"], batch["text_mask"])
            is_stopped = stop.agreed()
            is_last = is_stopped or step == total_steps
            is_validated = validation is not None and (
                step == total_steps or step % train.validate_every == 0
            )
            is_saved = is_last or step % train.save_every == 0
            if is_saved or is_validated or step % train.log_every == 0:
                watch.look(out, name_of)
                means = distributed.mean_over_ranks(
                    {"loss": loss, "contrastive": contrastive, "captioning": captioning}
                )
                if invocation.data.on_error == "skip":
                    skipped = report_skipped(loader, skipped, log)
                log.step(
                    step,
                    {**means, "lr": learning_rate, "logit_scale": logit_scale.item()},
                    **asdict(totals.take()),
                    wait_s=loader.wait_s,
                    memory_bytes=totals.memory_bytes(),
                )
            is_best = False
            if is_validated:
                scores = validation.run(engine)
                is_best = scores["loss"] < best_loss
                best_loss = min(best_loss, scores["loss"])
                log.validation(step, scores, is_best=is_best)
            if is_saved or is_best:
                state = {"step": step, "loader": loader.state_dict(), "best_loss": best_loss}
                save(step, state, is_best=is_best)
            if is_saved or is_validated:
                log.restart_clock()
            if is_last:
                break
    profile.close()
    if is_stopped and step < total_steps:
        log.say(f"stopped by SIGTERM after step {step}: go on with --resume latest")
    else:
        log.say(f"done: {out} (export it with tools/export {out} --out DIR)")
    log.close()
    distributed.shut_down()


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


if __name__ == "__main__":
    run(main)
