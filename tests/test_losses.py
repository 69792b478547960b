"""The losses against plain restatements, and two ranks against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from esi_fast.models.caption_head import CaptionHead
from esi_fast.training.losses import (
    captioning_loss,
    contrastive_loss,
    count_tokens,
    sigmoid_contrastive_loss,
)
from esi_fast.training.optim import adamw, warmup_then_steps


def embeddings(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, batch, 6, dtype=torch.float64, generator=generator)
    ecg, text = F.normalize(both, dim=-1)
    return ecg, text


def test_with_all_keys_different_it_is_clips_loss() -> None:
    ecg, text = embeddings(7)
    logits = 5.0 * ecg @ text.T
    labels = torch.arange(7)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(ecg, text, torch.tensor([5.0]), labels), expected)


def test_records_that_say_the_same_are_not_negatives() -> None:
    ecg, text = embeddings(4)
    text[1] = text[0]
    ecg[1] = ecg[0]
    keys = torch.tensor([5, 5, 6, 7])
    sharp = torch.tensor([50.0])
    # Two equal pairs cost as much as they must (their entropy), and no more.
    same = contrastive_loss(ecg[:2], ecg[:2], sharp, keys[:2])
    assert same.item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert same < contrastive_loss(ecg[:2], ecg[:2], sharp, torch.tensor([1, 2])) + 1e-9
    ecg.requires_grad_()
    contrastive_loss(ecg, text, sharp, keys).backward()
    pull = contrastive_gradient_by_hand(ecg.detach(), text, 50.0, keys)
    torch.testing.assert_close(ecg.grad, pull)


def contrastive_gradient_by_hand(
    ecg: torch.Tensor, text: torch.Tensor, scale: float, keys: torch.Tensor
) -> torch.Tensor:
    """d loss / d ecg from the softmax's derivative, written out."""
    logits = scale * ecg @ text.T
    target = (keys[:, None] == keys[None, :]).double()
    target /= target.sum(dim=1, keepdim=True)
    rows = logits.softmax(dim=1) - target
    columns = (logits.T.softmax(dim=1) - target).T
    return scale * (rows + columns) @ text / (2 * len(ecg))


def test_captioning_counts_real_tokens_only() -> None:
    generator = torch.Generator().manual_seed(1)
    head = CaptionHead(4, 5)
    states = torch.randn(2, 3, 4, generator=generator)
    labels = torch.tensor([[1, 2, 3], [4, -1, -1]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    per_token = -head(states).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = per_token[labels >= 0].sum() / 4
    assert count_tokens(mask) == 4
    torch.testing.assert_close(captioning_loss(head(states, labels), count_tokens(mask)), expected)
    assert count_tokens(mask[:, :1]) == 1


def test_the_sigmoid_loss_judges_every_pair_by_itself() -> None:
    ecg, text = embeddings(5)
    scale, bias = torch.tensor([3.0]).double(), torch.tensor([-1.0]).double()
    keys = torch.tensor([1, 2, 1, 3, 4])
    expected = 0.0
    for i in range(5):
        for j in range(5):
            match = 1.0 if keys[i] == keys[j] else -1.0
            logit = 3.0 * (ecg[i] @ text[j]) - 1.0
            expected += torch.log1p(torch.exp(-match * logit)).item() / 5
    found = sigmoid_contrastive_loss(ecg, text, scale, bias, keys)
    assert found.item() == pytest.approx(expected, rel=1e-12)


TWO_RANKS = """
import os, sys, torch
import torch.distributed as dist
from torch.nn import functional as F
from esi_fast.training.distributed import all_gather, mean_over_ranks, shut_down
from esi_fast.models.caption_head import linear_cross_entropy
from esi_fast.training.losses import (
    captioning_loss, contrastive_loss, count_tokens, sigmoid_contrastive_loss,
)

rank = int(os.environ["RANK"])
dist.init_process_group("gloo")
data = torch.load(sys.argv[1])
own = slice(8 * rank, 8 * rank + 8)
names = ("w_ecg", "w_text", "w_logits", "scale", "bias")
weights = {k: data[k].clone().requires_grad_() for k in names}
ecg = F.normalize(data["ecg"][own] @ weights["w_ecg"], dim=-1)
text = F.normalize(data["text"][own] @ weights["w_text"], dim=-1)
contrastive = contrastive_loss(ecg, text, weights["scale"].exp(), data["keys"][own])
sigmoid = sigmoid_contrastive_loss(
    ecg, text, weights["scale"].exp(), weights["bias"], data["keys"][own]
)
real = data["mask"][own][:, 1:].bool()
summed = linear_cross_entropy(
    data["tokens"][own][real], weights["w_logits"], data["labels"][own][real]
)
captioning = captioning_loss(summed, count_tokens(data["mask"][own]))
(contrastive + sigmoid + captioning).backward()
for value in weights.values():
    dist.all_reduce(value.grad)
    value.grad /= 2
losses = mean_over_ranks({"contrastive": contrastive, "captioning": captioning})
# A gradient that the gathered rows share with another tensor stays that tensor's own.
other = torch.zeros(2, 1, requires_grad=True)
scaled, mine = other * 1, torch.zeros(1, 1, requires_grad=True)
((all_gather(mine) + scaled) * (rank + 1)).sum().backward()
losses |= {f"shared {rank}": other.grad, f"gathered {rank}": mine.grad}
parts = [None, None]
dist.all_gather_object(parts, losses)
if rank == 0:
    torch.save({k: v.grad for k, v in weights.items()} | parts[0] | parts[1], sys.argv[2])
shut_down()
"""


@pytest.mark.dist
def test_two_ranks_of_eight_are_one_of_sixteen(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    lengths = torch.randint(1, 9, (16,), generator=generator)
    data = {
        "ecg": draw(16, 5),
        "text": draw(16, 5),
        "tokens": draw(16, 8, 5),
        "w_ecg": draw(5, 4),
        "w_text": draw(5, 4),
        "w_logits": draw(11, 5),
        "scale": torch.full((1,), 1.5, dtype=torch.float64),
        "keys": torch.randint(0, 9, (16,), generator=generator),
        "labels": torch.randint(0, 11, (16, 8), generator=generator),
        "bias": torch.full((1,), -0.5, dtype=torch.float64),
        "mask": (torch.arange(9) < 1 + lengths[:, None]).long(),
    }
    torch.save(data, tmp_path / "data.pt")
    (tmp_path / "ranks.py").write_text(TWO_RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(tmp_path / "ranks.py")]
    command += [str(tmp_path / "data.pt"), str(tmp_path / "out.pt")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / "out.pt")

    names = ("w_ecg", "w_text", "w_logits", "scale", "bias")
    weights = {name: data[name].clone().requires_grad_() for name in names}
    ecg = F.normalize(data["ecg"] @ weights["w_ecg"], dim=-1)
    text = F.normalize(data["text"] @ weights["w_text"], dim=-1)
    contrastive = contrastive_loss(ecg, text, weights["scale"].exp(), data["keys"])
    sigmoid = sigmoid_contrastive_loss(
        ecg, text, weights["scale"].exp(), weights["bias"], data["keys"]
    )
    # The captioning loss in plain PyTorch, of all tokens at once.
    logits = data["tokens"] @ weights["w_logits"].T
    real = data["mask"][:, 1:].bool()
    captioning = F.cross_entropy(logits[real], data["labels"][real])
    (contrastive + sigmoid + captioning).backward()
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-12, atol=1e-14, msg=name)
    assert found["contrastive"] == pytest.approx(contrastive.item(), rel=1e-6)
    assert found["captioning"] == pytest.approx(captioning.item(), rel=1e-6)
    for rank in (0, 1):
        assert found[f"shared {rank}"].tolist() == [[rank + 1]] * 2
        assert found[f"gathered {rank}"].tolist() == [[3]]


def test_the_learning_rate_warms_up_and_steps_down() -> None:
    factor = warmup_then_steps(4, 10, 0.1)
    assert [factor(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factor(9) == 1.0
    assert factor(10) == pytest.approx(0.1)
    assert factor(25) == pytest.approx(0.01)
    assert warmup_then_steps(0, 0, 0.1)(1000) == 1.0


def test_only_matrices_are_decayed() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    decayed, rest = adamw(module.named_parameters(), lr=1e-3, weight_decay=0.1).param_groups
    assert [p.shape for p in decayed["params"]] == [(2, 3)]
    assert decayed["weight_decay"] == 0.1
    assert len(rest["params"]) == 3
    assert rest["weight_decay"] == 0
    given = adamw(module.named_parameters(), lr=1e-3, weight_decay=0.1, betas=(0.5, 0.6), eps=1e-3)
    assert given.defaults["betas"] == (0.5, 0.6)
    assert given.defaults["eps"] == 1e-3
