"""The captioning loss in chunks against PyTorch's own, and how little of it is held at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from esi_fast.models import caption_head
from esi_fast.models.caption_head import CaptionHead, linear_cross_entropy


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 50])
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_head, "_CHUNK_LOGITS", 7 * 16)  # 16 rows of 7 words at a time
    torch.manual_seed(rows)
    states = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 7, (rows,))
    expected = F.cross_entropy(states @ weight.T, labels, reduction="sum")
    wanted = torch.autograd.grad(2.5 * expected, (states, weight))
    found = linear_cross_entropy(states, weight, labels)
    got = torch.autograd.grad(2.5 * found, (states, weight))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(states, weight, labels), expected)


def test_half_precision_sums_in_float32() -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(300, 16).bfloat16(), torch.randn(40, 16).bfloat16()
    labels = torch.randint(0, 40, (300,))
    found = linear_cross_entropy(states.requires_grad_(), weight, labels)
    exact = F.cross_entropy((states @ weight.T).float(), labels, reduction="sum")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.detach(), rtol=1e-4, atol=0)


def test_huge_logits_do_not_overflow() -> None:
    states = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(states, weight, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(2e4)
    (slope,) = torch.autograd.grad(loss, states)
    torch.testing.assert_close(slope, torch.tensor([[0.0], [-2.0]]))


def test_no_more_logits_than_a_chunk_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor of the whole pass is a chunk of logits, not tokens x vocabulary."""
    largest = 0
    monkeypatch.setattr(caption_head, "_CHUNK_LOGITS", 64 * 1000)

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    states = torch.randn(4096, 8, requires_grad=True)
    weight = torch.randn(1000, 8, requires_grad=True)
    with Watch():
        linear_cross_entropy(states, weight, torch.zeros(4096, dtype=torch.int64)).backward()
    assert 64 * 1000 <= largest < 70 * 1000


def test_padding_costs_nothing_and_says_nothing() -> None:
    torch.manual_seed(1)
    head = CaptionHead(6, 11)
    states = torch.randn(3, 4, 6)
    labels = torch.tensor([[1, 2, -1, -1], [3, -1, -1, -1], [-1, -1, -1, -1]])
    expected = F.cross_entropy(
        head(states).flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum"
    )
    torch.testing.assert_close(head(states, labels), expected)
    assert head(states[2:], labels[2:]) == 0
