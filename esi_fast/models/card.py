"""The model card: what a model is, how it was made, and what it must not be used for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI

_CARD = """---
library_name: esi_fast
tags: [ecg, electrocardiogram, contrastive-learning]
---

# ESI, {encoder}

An ECG encoder, a text encoder and a caption decoder in one embedding space, trained with esi_fast.
{parameters:.1f} M parameters. Input: 12 standard leads in millivolts, {fs:g} Hz, {seconds:g} s.

**Not a medical device.** For research; no diagnosis or treatment may rest on what it says. Its
training data, and so its uses, are bound by the licence of the recordings named in the recipe.

```python
import esi_fast as ef

model = ef.ESI.from_pretrained("DIR")
embedding = model.encode_ecg(model.preprocess("RECORD")[None])
```
"""
_TRAINING = """
## Training

Checkpoint {tag}; last logged step: {metrics}.

```toml
{recipe}
```
"""


def write_card(path: Path, model: ESI, run: Path, tag: str) -> None:
    """Write the card of an exported model.

    Args:
        path: the file, ``README.md``.
        model: the model.
        run: its run folder, for the recipe and the last metrics.
        tag: the checkpoint.
    """
    step = int(tag.removeprefix("step-"))
    # The last line may be half written while the run goes on; the checkpoint's own is whole.
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    logged = [json.loads(line) for line in lines if line.endswith("\n")]
    last: dict[str, float] = next((line for line in reversed(logged) if line["step"] <= step), {})
    # Paths of the machine that trained it are nobody's business.
    recipe = re.sub(r"(?m)^(shards|captions) = .*\n", "", (run / "recipe.toml").read_text())
    recipe = re.sub(r'"[/~][^"]*?([^"/]*)/*"', r'"\1"', recipe)
    shown = ("step", "loss", "contrastive", "captioning")
    training = _TRAINING.format(
        tag=tag,
        metrics=", ".join(f"{name} {last[name]:.4g}" for name in shown if name in last) or "none",
        recipe=recipe.strip(),
    )
    model.card = model_card(model) + training
    path.write_text(model.card)


def model_card(model: ESI) -> str:
    """The text of a card that says what a model is, and nothing of how it was trained."""
    config = model.config
    return _CARD.format(
        encoder=config.encoder,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        fs=config.fs,
        seconds=config.num_samples / config.fs,
    )
