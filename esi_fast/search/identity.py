"""Which model made the embeddings: another one's would be compared with them without any sense."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esi_fast.models.esi import ESI


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model as an index remembers it.

    Attributes:
        sha256: of the configuration, the vocabulary and every weight.
        name: encoder and width, for people.
        path: the model's folder or hub id; None for a model that was made in memory.
    """

    sha256: str
    name: str
    path: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.sha256[:12]} ({self.path or 'in memory'})"

    def as_json(self) -> dict[str, Any]:
        """As an index stores it."""
        return asdict(self)


def identity_of(model: ESI, path: str | Path | None = None) -> ModelIdentity:
    """The identity of a model; equal weights in another type of number are another model.

    Args:
        model: the model.
        path: where it was loaded from.
    """
    import torch

    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    digest.update(json.dumps(sorted(model.tokenizer.get_vocab().items())).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    name = f"{model.config.encoder} D={model.config.embed_dim}"
    if path is not None and Path(path).is_dir():
        path = Path(path).resolve()
    return ModelIdentity(digest.hexdigest(), name, None if path is None else str(path))


def load_model(path: str | Path, device: str | None = None) -> ESI:
    """A model by its folder or hub id, in evaluation mode.

    Args:
        path: folder of ``tools/export``, or hub id.
        device: torch device; None: cuda if there is one, else cpu.

    Raises:
        FileNotFoundError: the folder is no exported model.
        ValueError: its weights do not fit, or the device is unknown or not here.
    """
    import torch

    from esi_fast.models.esi import ESI

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # CPU builds of torch assert
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from None
    model = ESI.from_pretrained(path)
    return model.to(where).eval()
