"""Validation of a run: losses, retrieval and zero-shot detection on records it does not train on.

All ranks take part, each with its share of the records: under ZeRO-3 no rank has all weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esi_fast.cqa.phrases import prompts_for
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens
from esi_fast.evaluation.embed import embed_prompts
from esi_fast.evaluation.metrics import auroc
from esi_fast.evaluation.retrieval import recall_at
from esi_fast.leads import NUM_LEADS
from esi_fast.models.esi import ESI
from esi_fast.pretrain.step import contrastive_of
from esi_fast.training.distributed import all_gather, all_sum, rank, world_size

if TYPE_CHECKING:
    from esi_fast.config import TrainConfig

# More records would say little more, and comparing each with each takes their square.
MOST_RECORDS = 8192
# A label with fewer records on either side says nothing of the model.
MIN_RECORDS = 5
_INPUTS = ("ecg", "text_ids", "text_mask", "input_ids", "attention_mask")


class Validation:
    """Scores a model on the validation records of a shard set, after any step.

    Args:
        shards: the validation split.
        tokens: of its captions.
        model: for its tokenizer; the engine is what runs.
        batch_size: records of this rank at once; fewer where there are not so many.
        train: the recipe's losses.
        allow_damage: a damaged record counts as one without a signal; else it is an error.

    Attributes:
        num_records: how many are used: whole batches on every rank, spread over the split.

    Raises:
        ValueError: there are fewer records than ranks.
    """

    def __init__(
        self,
        shards: ShardSet,
        tokens: CaptionTokens,
        model: ESI,
        batch_size: int,
        train: TrainConfig,
        *,
        allow_damage: bool = False,
    ) -> None:
        self._shards, self._tokens, self._model = shards, tokens, model
        self._train, self._allow_damage = train, allow_damage
        ranks = world_size()
        if len(shards) < ranks:
            raise ValueError(
                f"{len(shards)} validation records are too few for {ranks} processes: build shards "
                "with more of them, or set train.validate_every = 0"
            )
        self._batch_size = min(batch_size, len(shards) // ranks)
        batches = min(len(shards), MOST_RECORDS) // (self._batch_size * ranks)
        self.num_records = max(batches, 1) * self._batch_size * ranks
        spread = np.linspace(0, len(shards) - 1, self.num_records)
        self._rows = np.floor(spread).astype(np.int64)
        self._labels, self._label_names = _labels_of(shards, self._rows)

    def run(self, engine: Any) -> dict[str, float]:
        """The scores, the same on every rank; the engine is left in training mode.

        Returns:
            loss, contrastive and captioning as in training (contrastive among the records of a
            step); recall@k from ECG to text and back, an equal ``concept_key`` being a hit; and
            the macro AUROC of zero-shot detection, where a label has enough records.
        """
        engine.eval()
        try:
            with torch.no_grad():
                return self._scores(engine)
        finally:
            engine.train()

    def _scores(self, engine: Any) -> dict[str, float]:
        device = next(self._model.parameters()).device
        mine = self._rows.reshape(-1, world_size(), self._batch_size)[:, rank()]
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        contrastive, summed, num_tokens = [], [], []
        for rows in mine:
            batch = {name: value.to(device) for name, value in self._batch(rows).items()}
            output = engine(*(batch[name] for name in _INPUTS))
            embedded = (output.ecg_BD, output.text_BD)
            contrastive.append(
                contrastive_of(self._train, batch, *embedded, output.logit_scale, output.logit_bias)
            )
            summed.append(output.caption_loss.float())
            num_tokens.append(batch["attention_mask"][:, 1:].sum())
            gathered = [all_gather(part) for part in (*embedded, batch["concept_key"])]
            parts.append((gathered[0], gathered[1], gathered[2]))
        columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
        ecg_ND, text_ND, key_N = columns
        all_tokens = all_sum(torch.stack(num_tokens).sum())
        mean_contrastive = float(all_sum(torch.stack(contrastive).mean()) / world_size())
        mean_captioning = float(all_sum(torch.stack(summed).sum()) / all_tokens)
        scores = {
            "loss": mean_contrastive + self._train.captioning_weight * mean_captioning,
            "contrastive": mean_contrastive,
            "captioning": mean_captioning,
        }
        for name, queries, gallery in (
            ("ecg_to_text", ecg_ND, text_ND),
            ("text_to_ecg", text_ND, ecg_ND),
        ):
            for k, recall in recall_at(queries, gallery, key_N, key_N).items():
                scores[f"{name}_recall@{k}"] = recall
        if self._label_names:
            prompts_K = [prompts_for(name) for name in self._label_names]
            prompt_KD = embed_prompts(_Texts(self._model, device), prompts_K)
            areas = auroc(ecg_ND @ prompt_KD.T, self._labels)
            scores["zeroshot_auroc"] = float(np.mean(areas))
        return scores

    def _batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        config = self._model.config
        ecg = np.empty((len(rows), NUM_LEADS, config.num_samples), np.float32)
        for place, what in self._shards.read_batch(rows, ecg).items():
            if not self._allow_damage:
                raise ValueError(what)
            ecg[place] = np.nan
        return {
            "ecg": torch.from_numpy(ecg),
            "concept_key": torch.from_numpy(self._shards.concept_keys[rows]),
            "row": torch.from_numpy(rows),
            **self._tokens.batch(rows, seed=0, epoch=0, share=0.0),
        }


class _Texts:
    """The text side of a model in training, as evaluation asks for it."""

    def __init__(self, model: ESI, device: torch.device) -> None:
        self._model, self._device = model, device

    def encode_text(self, texts: list[str]) -> Tensor:
        """Texts to embeddings."""
        batch = self._model.tokenize(texts)
        return self._model.text_embeddings(
            batch["input_ids"].to(self._device), batch["attention_mask"].to(self._device)
        )


def _labels_of(
    shards: ShardSet, rows: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which record has which finding, for those that enough records have and enough have not."""
    findings = [frozenset(shards.read_meta(int(row)).get("findings", ())) for row in rows]
    names = sorted(set().union(*findings))
    labels = np.array([[name in found for name in names] for found in findings], dtype=bool)
    labels = labels.reshape(len(findings), len(names))
    count = labels.sum(axis=0)
    enough = (count >= MIN_RECORDS) & (len(findings) - count >= MIN_RECORDS)
    return labels[:, enough], tuple(np.array(names, dtype=object)[enough])
