"""SIGTERM as a question at each step."""

from __future__ import annotations

import signal

import torch

from esi_fast.training.stopping import StopRequest


def test_a_rank_alone_is_asked_without_the_device() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop = StopRequest(torch.device("meta"))  # of which nothing can be read
        assert not stop.agreed()
        signal.raise_signal(signal.SIGTERM)
        assert stop.agreed()
    finally:
        signal.signal(signal.SIGTERM, before)
