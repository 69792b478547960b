"""Fine-tuning: a pretrained ECG encoder, or one from scratch, learns a dataset's labels.

One short loop serves both: binary cross-entropy on logits, AdamW, warm-up and a cosine, and an end
when the validation log-loss no longer falls. Log-loss rather than AUROC: a validation split has few
positives of a rare label, whose AUROC jumps; it is what the probe is chosen by, too, and it keeps
the scores probabilities.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esi_fast.evaluation.contenders import (
    label_result,
    require_held_out,
    unfit_labels,
    val_thresholds,
)
from esi_fast.evaluation.label_summary import THRESHOLDS
from esi_fast.evaluation.results import FloatArray, LabelResult
from esi_fast.training.optim import adamw

if TYPE_CHECKING:
    from esi_fast.evaluation.splits import EvaluationDataset, EvaluationSplit
    from esi_fast.models.esi import ESI

Mode = Literal["full", "last"]
Layer = list[tuple[str, nn.Parameter]]

_WARMUP = 0.1  # of all steps
_SCORED_AT_ONCE = 64
_BLOCKS_A_LAYER = 3  # Liu et al. 2022 ("A ConvNet for the 2020s"), appendix A.2


@dataclass(frozen=True)
class Training:
    """How a network learns.

    Attributes:
        epochs: at most.
        batch_size: records a step.
        lr: of the head, after the warm-up; it falls to zero over all epochs as a cosine.
        layer_decay: each layer learns by this factor slower than the one after it; 1 for none.
        weight_decay: of weights, not of biases and norms.
        patience: epochs without a lower validation log-loss before the end.
        seed: of the head, the order of records and what is dropped.

    Raises:
        ValueError: a number is out of its range.
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 1e-3
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be positive, not {self.lr}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], not {self.layer_decay}")


@dataclass(frozen=True)
class Network:
    """What is to learn.

    Attributes:
        module: ECGs (B, 12, T) in mV, NaN where missing, to logits (B, number of labels).
        layers: the parameters that learn, from the input to the head.
    """

    module: nn.Module
    layers: Sequence[Layer]


def finetune(
    model: ESI,
    dataset: EvaluationDataset,
    *,
    split: str = "test",
    mode: Mode = "full",
    training: Training | None = None,
) -> LabelResult:
    """Fine-tune a copy of a model on ``train``, stop by ``val``, score ``split``.

    A linear head reads the pooled ECG embedding (D), as the probe does; it starts at zero, with the
    labels' frequencies for biases. The copy is deterministic given the seed on a CPU; the model
    itself stays as it is.

    Args:
        model: pretrained; the copy learns where it is.
        dataset: opened for the model's rate and length.
        split: which records to score.
        mode: "full", or "last": head, projection and last stage only.
        training: how; as `Training` by default.

    Returns:
        Task "finetune" with contender "finetuned", whose scores are probabilities.

    Raises:
        ValueError: an unknown mode, ``split`` is learned from, no label can be learned, a split is
            empty or unreadable, or the loss is no number.
    """
    if mode not in ("full", "last"):
        raise ValueError(f"mode is {mode!r}; give full or last")

    def build(log_odds_K: Tensor) -> Network:
        return with_head(model, log_odds_K, mode)

    training = training or Training()
    return learn("finetune", "finetuned", build, dataset, split, training, mode=mode)


def with_head(model: ESI, log_odds_K: Tensor, mode: Mode = "full") -> Network:
    """A copy of a model's ECG side under a linear head, and what of it learns."""
    module = _Classifier(model, log_odds_K)
    layers = [*encoder_layers(module.ecg_side), list(module.head.named_parameters())]
    if mode == "last":
        encoder = module.ecg_side.ecg
        early = [*encoder.stages[:-1].parameters(), *encoder.downsample_layers[:-1].parameters()]
        frozen = {id(parameter) for parameter in early}
        layers = [layer for layer in layers if not any(id(p) in frozen for _, p in layer)]
    return Network(module, layers)


class _Classifier(nn.Module):
    """The ECG side of a copy of a model, and a linear head on its embedding."""

    def __init__(self, model: ESI, log_odds_K: Tensor) -> None:
        super().__init__()
        # What texts need is not copied: PyTorch keeps an absent module as None.
        absent = (model.text, model.text_projection, model.decoder)
        memo = {id(module): None for module in absent} | {id(model.tokenizer): model.tokenizer}
        self.ecg_side: ESI = copy.deepcopy(model, memo)
        self.ecg_side.requires_grad_(False)
        self.head = nn.Linear(model.config.embed_dim, len(log_odds_K), device=model.device)
        nn.init.zeros_(self.head.weight)
        start_at(self.head, log_odds_K)

    def forward(self, x_BLT: Tensor) -> Tensor:
        embedding_BD = self.ecg_side.project_ecg(self.ecg_side.ecg_tokens(x_BLT))
        return self.head(embedding_BD)


def start_at(head: nn.Linear, log_odds_K: Tensor) -> None:
    """Let a head begin at the labels' frequencies, so that no step is spent on finding them."""
    with torch.no_grad():
        head.bias.copy_(log_odds_K)


def encoder_layers(model: ESI) -> list[Layer]:
    """The parameters behind an ECG embedding, from the stem to the projection.

    Three blocks of a stage are a layer, as in ConvNeXt's fine-tuning, with what makes the steps
    coarser before the first of them; the last layer is pooling, norm and projection.
    """
    encoder = model.ecg
    layers: list[Layer] = [list(encoder.downsample_layers[0].named_parameters())]
    for place, stage in enumerate(encoder.stages):
        blocks = list(stage.children())
        for start in range(0, len(blocks), _BLOCKS_A_LAYER):
            modules = blocks[start : start + _BLOCKS_A_LAYER]
            if start == 0 and place > 0:
                modules = [encoder.downsample_layers[place], *modules]
            layers.append([pair for module in modules for pair in module.named_parameters()])
    top = [encoder.norm, model.ecg_projection, *([] if model.pool is None else [model.pool])]
    return [*layers, [pair for module in top for pair in module.named_parameters()]]


def learn(
    task: str,
    contender: str,
    build: Callable[[Tensor], Network],
    dataset: EvaluationDataset,
    split: str,
    training: Training,
    **details: object,
) -> LabelResult:
    """Train a network on ``train``, keep its best state on ``val``, score ``split``.

    Args:
        task: of the result.
        contender: its only one.
        build: log-odds of the labels' frequencies (K,) to the network; drawn with the seed.
        dataset: opened for the network's rate and length.
        split: which records to score.
        training: how.
        details: of the result, besides those of the training.

    Raises:
        ValueError: see :func:`finetune`.
    """
    require_held_out(split)
    train, val = dataset.split("train"), dataset.split("val")
    not_scored = unfit_labels(dataset.label_names, train.labels)
    fitted = np.flatnonzero([name not in not_scored for name in dataset.label_names])
    if not len(fitted):
        raise ValueError("no label has both positive and negative training records")
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        network = build(torch.from_numpy(train.labels[:, fitted].mean(axis=0)).logit().float())
        run = _Run(network.module, fitted)
        history, best_epoch = run.train(network.layers, train, val, training, contender)
    scores = {part: run.probabilities(dataset.split(part)) for part in ("val", split)}
    (val_rows, val_scores), (rows, target_scores) = scores["val"], scores[split]
    thresholds = val_thresholds(dataset.label_names, val_scores, val.labels[val_rows])
    return label_result(
        task,
        dataset,
        split,
        rows,
        {contender: target_scores},
        probabilities=frozenset({contender}),
        not_scored=not_scored,
        details={
            **details,
            "training": asdict(training),
            "parameters": sum(p.numel() for layer in network.layers for _, p in layer),
            "train_records": len(train.keys),
            "val_records": len(val_rows),
            "val_log_loss": history,
            "best_epoch": best_epoch,
            THRESHOLDS: {contender: thresholds},
        },
        errors=run.errors,
    )


@dataclass
class _Run:
    """A network at work; ``errors`` collects the records that could not be read."""

    module: nn.Module
    fitted: npt.NDArray[np.int64]
    errors: dict[str, str] = field(default_factory=dict)

    def train(
        self,
        layers: Sequence[Layer],
        train: EvaluationSplit,
        val: EvaluationSplit,
        training: Training,
        contender: str,
    ) -> tuple[list[float], int]:
        """Validation log-loss of each epoch, and the epoch (from 1) whose state was kept."""
        from tqdm import tqdm

        optimizer = _optimizer(layers, training)
        batches_a_epoch = math.ceil(len(train.keys) / training.batch_size)
        total = training.epochs * batches_a_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, total))
        history: list[float] = []
        best: dict[str, Tensor] = {}
        with tqdm(total=total, desc=contender, unit="step", disable=None, leave=False) as bar:
            for epoch in range(1, training.epochs + 1):
                self.module.train()
                # Of nearly equal sizes: batch norm has no use for a last batch of one.
                order = torch.randperm(len(train.keys)).tensor_split(batches_a_epoch)
                for rows, x_BLT in self._read(train, [batch.numpy() for batch in order]):
                    y_BK = self._labels(train, rows)
                    loss = F.binary_cross_entropy_with_logits(self.module(x_BLT), y_BK)
                    if not math.isfinite(loss.item()):
                        keys = ", ".join(train.keys[row] for row in rows[:3])
                        raise ValueError(
                            f"{contender}: the loss is {loss.item()} in epoch {epoch} (first "
                            f"records of the batch: {keys}); lower lr, which is {training.lr:g}"
                        )
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    bar.update()
                history.append(self._log_loss(val))
                if history[-1] == min(history):
                    best = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
                best_epoch = int(np.argmin(history)) + 1
                bar.set_postfix_str(f"val log-loss {history[-1]:.4f}, best {min(history):.4f}")
                if epoch - best_epoch >= training.patience:
                    break
        self.module.load_state_dict(best)
        return history, best_epoch

    def probabilities(self, split: EvaluationSplit) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Readable rows (m,) of a split, and their scores (m, K), NaN for labels not learned."""
        rows, logits = self._logits(split)
        scores = np.full((len(rows), split.labels.shape[1]), np.nan)
        scores[:, self.fitted] = torch.sigmoid(logits).numpy()
        return rows, scores

    def _log_loss(self, split: EvaluationSplit) -> float:
        rows, logits = self._logits(split)
        labels = torch.from_numpy(split.labels[rows][:, self.fitted]).double()
        loss = F.binary_cross_entropy_with_logits(logits, labels).item()
        if not math.isfinite(loss):
            raise ValueError(f"the log-loss on {split.name} is {loss}: lower lr")
        return loss

    @torch.no_grad()
    def _logits(self, split: EvaluationSplit) -> tuple[npt.NDArray[np.int64], Tensor]:
        self.module.eval()
        num_batches = math.ceil(len(split.keys) / _SCORED_AT_ONCE)
        found = [
            (rows, self.module(x_BLT).double().cpu())
            for rows, x_BLT in self._read(
                split, np.array_split(np.arange(len(split.keys)), num_batches)
            )
        ]
        if not found:
            raise ValueError(f"no record of split {split.name} could be read")
        return np.concatenate([rows for rows, _ in found]), torch.cat([z for _, z in found])

    def _labels(self, split: EvaluationSplit, rows: npt.NDArray[np.int64]) -> Tensor:
        labels = torch.from_numpy(split.labels[rows][:, self.fitted])
        return labels.to(next(self.module.parameters()))

    def _read(
        self, split: EvaluationSplit, batches: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
        """Readable rows and signals of each batch; the next one is read in the meantime."""
        device = next(self.module.parameters()).device
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(split.read, batches[0].tolist())
            for place, rows in enumerate(batches):
                signals, reasons = ahead.result()
                if place + 1 < len(batches):
                    ahead = pool.submit(split.read, batches[place + 1].tolist())
                good = np.array([not reason for reason in reasons])
                bad = zip(rows[~good], (r for r in reasons if r), strict=True)
                self.errors |= {split.keys[row]: reason for row, reason in bad}
                if good.any():
                    x_BLT = torch.from_numpy(np.ascontiguousarray(signals[good], np.float32))
                    yield rows[good], x_BLT.to(device)


def _optimizer(layers: Sequence[Layer], training: Training) -> torch.optim.AdamW:
    parts = []
    for distance, layer in enumerate(reversed(layers)):
        for _, parameter in layer:
            parameter.requires_grad_(True)
        lr = training.lr * training.layer_decay**distance
        parts.append(adamw(layer, lr=lr, weight_decay=training.weight_decay))
    optimizer = parts[0]
    for part in parts[1:]:
        for group in part.param_groups:
            optimizer.add_param_group(group)
    return optimizer


def _factor(step: int, total: int) -> float:
    """On the learning rate: linear up, then half a cosine down to zero."""
    warmup = max(1, round(_WARMUP * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
