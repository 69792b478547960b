"""The whole story in seconds: records, captions, shards, batches, a few steps, scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from shard_tree import build

from esi_fast.cqa.caption import prompts_for
from esi_fast.cqa.generate import describe_reports
from esi_fast.data.loader import Loader
from esi_fast.data.shard_set import ShardSet
from esi_fast.data.tokens import CaptionTokens
from esi_fast.models.esi import ESI, ESIConfig
from esi_fast.signal.catalogues import open_catalogue
from esi_fast.signal.records import read_record
from esi_fast.signal.simulate_tree import write_tree
from esi_fast.training.losses import captioning_loss, contrastive_loss, count_tokens
from esi_fast.training.optim import adamw


def test_from_records_to_a_model_that_has_begun_to_learn(tmp_path: Path) -> None:
    write_tree(tmp_path / "records", 40, seed=3, fs=250, duration=5)
    catalogue = open_catalogue(tmp_path / "records")
    entries = list(catalogue)
    assert len(entries) == len(catalogue) == 40
    record = read_record(entries[0].path)
    assert record.signal.shape == (12, 1250)

    lines = [line for entry in entries for line in entry.statements]
    dictionary = describe_reports([line] for line in lines)
    out = tmp_path / "shards"
    summary = build(catalogue, out, fs=100, duration=5.0, captions=dictionary)
    assert sum(summary.records.values()) == 40

    shards = ShardSet([out], "train")
    captions = [shards.read_caption(row) or "" for row in range(len(shards))]
    torch.manual_seed(0)
    model = ESI.from_captions(
        ESIConfig(
            encoder="convnextv2_zepto",
            fs=100.0,
            num_samples=shards.num_samples,
            embed_dim=32,
            max_tokens=32,
            decoder_dim=32,
            decoder_layers=1,
            decoder_heads=2,
        ),
        captions,
        vocab_size=400,
        hidden=32,
        layers=1,
        heads=2,
    ).train()
    optimizer = adamw(model.named_parameters(), lr=2e-3, weight_decay=0.01)
    tokens = CaptionTokens(shards, model.tokenizer, model.config.max_tokens)
    loader = Loader(shards, tokens, batch_size=12)
    seen: list[float] = []
    for _ in range(4):
        for batch in loader:
            output = model(
                batch["ecg"],
                batch["text_ids"],
                batch["text_mask"],
                batch["input_ids"],
                batch["attention_mask"],
            )
            contrastive = contrastive_loss(
                output.ecg_BD, output.text_BD, output.logit_scale, batch["concept_key"]
            )
            num_tokens = count_tokens(batch["attention_mask"])
            captioning = captioning_loss(output.caption_loss, num_tokens)
            (contrastive + captioning).backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.append(captioning.item())
    assert np.mean(seen[-2:]) < 0.9 * seen[0]

    model.eval()
    scores = model.encode_ecg(torch.from_numpy(shards.read_ecg(range(8)))) @ (
        model.encode_text(prompts_for("atrial_fibrillation")).T
    )
    assert scores.shape[0] == 8
    assert scores.abs().max() <= 1 + 1e-5
