"""Ranks, and gathering over them with true gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def start(deepspeed: Any, *, on_gpu: bool) -> None:
    """Join the other processes of the launcher, or stand alone under plain ``python``.

    Args:
        deepspeed: the imported package (this file does not import it).
        on_gpu: whether to talk over NCCL; else over gloo.
    """
    if "RANK" not in os.environ:
        # DeepSpeed would look for MPI: look like a launcher's start of one process instead.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        alone = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {name: str(value) for name, value in (alone | {"MASTER_PORT": port}).items()}
    if on_gpu:
        torch.cuda.set_device(local_rank())
    else:
        # Only inference uses this op; DeepSpeed would compile it at every first start, and a build
        # that is killed leaves a lock on which all later runs hang.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        if "OMP_NUM_THREADS" not in os.environ:
            processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes_here))
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo", verbose=False)


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's number; 0 without distributed training."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if dist.is_initialized():
        dist.barrier()


def shut_down() -> None:
    """Leave together: with gloo a rank that destroys its group early can abort the others."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


@contextmanager
def lost_ranks_are_named() -> Iterator[None]:
    """Say in one line that another rank is gone, in place of what the transport makes of it.

    Raises:
        ConnectionError: a collective has failed.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo has no type of its own for it.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).rpartition("] ")[2].partition(". ")[0]
        raise ConnectionError(
            f"rank {rank()} has lost another rank, which tells why or was killed ({reason}): "
            "--resume latest goes on from the last checkpoint"
        ) from error


def mean_over_ranks(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Each scalar's mean over ranks, in one collective."""
    stacked = all_sum(torch.stack([value.detach().float() for value in values.values()]))
    return dict(zip(values, (stacked / world_size()).tolist(), strict=True))


def union_over_ranks(values: Mapping[str, str]) -> dict[str, str]:
    """What any rank has, the same dictionary on each."""
    if world_size() == 1:
        return dict(values)
    parts: list[Mapping[str, str]] = [{} for _ in range(world_size())]
    dist.all_gather_object(parts, dict(values))
    return {name: value for part in parts for name, value in part.items()}


class _AllGather(torch.autograd.Function):
    """Concatenate over ranks; backward sums every rank's gradient of this rank's part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # A copy: the gradient may be another tensor's too. gloo has no reduce-scatter for every
        # dtype; the embeddings are small, so sum and cut.
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


def all_gather(local: Tensor) -> Tensor:
    """``(b, ...)`` on each rank -> ``(world * b, ...)`` in rank order, differentiable.

    The gradient is the exact one of the concatenation: what every rank's loss says of this rank's
    part, summed. All ranks must hold equally many rows.
    """
    if world_size() == 1:
        return local
    gathered: Tensor = _AllGather.apply(local)  # type: ignore[no-untyped-call]
    return gathered


def all_sum(value: Tensor) -> Tensor:
    """Sum over ranks, not differentiable."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value
