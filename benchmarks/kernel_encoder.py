"""A training step of the encoder on a GPU: in our blocks, in plain PyTorch, compiled."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from benchmarks.eager_encoder import EagerBlock
from benchmarks.kernel_works import NUM_SAMPLES, compiled
from esi_fast.models.convnext1d import VARIANTS, ConvNeXtV2Encoder1d


class Encoder(NamedTuple):
    """A training step of an encoder in bf16: as a CUDA graph, by the wall, peak memory."""

    model: str
    batch: int
    who: str
    graph_ms: float
    wall_ms: float
    peak_gib: float


def encoder(model: str, who: str) -> ConvNeXtV2Encoder1d:
    """ "ours", "eager" or "compile": the same model in our blocks or in plain PyTorch."""
    encoder = ConvNeXtV2Encoder1d(*VARIANTS[f"convnextv2_{model}"])
    if who != "ours":
        for stage in encoder.stages:
            for index, block in enumerate(stage):
                stage[index] = EagerBlock(block.norm.normalized_shape[0])
    if who == "compile":
        encoder.forward = compiled(encoder.forward, "default")
    return encoder.bfloat16()


def encoder_step(model: str, batch: int, who: str, num_rounds: int = 6) -> Encoder:
    """Measures a whole step, by the wall and as a CUDA graph."""
    network = encoder(model, who).cuda()
    x = torch.randn(batch, 12, NUM_SAMPLES, device="cuda", dtype=torch.bfloat16)

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(x).float().square().mean().backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # gradients remember the stream that first made them
        for _ in range(3):
            run()
        side.synchronize()
        network.zero_grad(set_to_none=True)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        side.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        started = time.perf_counter()
        for _ in range(num_rounds):
            run()
        side.synchronize()
        wall = (time.perf_counter() - started) / num_rounds
        network.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            network(x).float().square().mean().backward()
        graph.replay()
        side.synchronize()
        started = time.perf_counter()
        for _ in range(num_rounds):
            graph.replay()
        side.synchronize()
        replay = (time.perf_counter() - started) / num_rounds
    return Encoder(model, batch, who, replay * 1e3, wall * 1e3, peak / 2**30)
