"""The ECG encoder outside this project: as a graph of plain PyTorch operators, and as ONNX.

Both hold the arithmetic of ``kernels.reference``, which is what every kernel computes, and so need
nothing of esi_fast to run: the blocks' own operators are custom ones, which no other runtime has.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from esi_fast.kernels import decompositions
from esi_fast.leads import NUM_LEADS, STANDARD_LEADS
from esi_fast.models.esi import ESI

INPUT, OUTPUTS = "ecg", ("embedding", "tokens")
# Of the operators that are used, LayerNormalization is the youngest (17), but for GELU (20).
_OPSET = 20


def encoder_program(model: ESI, *, tokens: bool = False) -> torch.export.ExportedProgram:
    """The ECG encoder as ``torch.export`` has it, for any batch of records of the trained length.

    Equivalent to: ``model.encode_ecg(ecg_BLT)``. Save it by ``torch.export.save``.

    Args:
        model: on any device and of any dtype; the program is float32, on the CPU.
        tokens: also give the tokens of the last stage.

    Returns:
        A program of ``ecg (B, 12, num_samples)`` float32 mV, NaN where missing -> ``embedding
        (B, D)`` of unit length, and with ``tokens`` a pair of it and ``tokens (B, T // 32, C)``.
    """
    encoder = _Encoder(model, tokens).eval()
    # Two records: a batch of one would be taken for a constant.
    ecg_BLT = torch.zeros(2, NUM_LEADS, model.config.num_samples)
    program = torch.export.export(encoder, (ecg_BLT,), dynamic_shapes=_any_batch())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        return program.run_decompositions(decompositions())


def export_onnx(model: ESI, path: Path | str, *, tokens: bool = False) -> Path:
    """Write the ECG encoder as one ONNX file (opset 20; beyond 2 GB the weights lie beside it).

    Its input ``ecg`` and outputs ``embedding`` and, if asked for, ``tokens`` are those of
    :func:`encoder_program`. Its metadata hold ``fs`` (Hz), ``unit``, ``leads`` (their order) and
    ``config`` (the whole ``config.json``).

    Args:
        model: as there.
        path: the file, replaced where it exists.
        tokens: as there.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: ``onnx`` or ``onnxscript`` is not installed.
    """
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"ONNX needs {package}, which is not installed: pip install 'esi-fast[onnx]'",
                name=package,
            ) from None
    path = Path(path)
    program = encoder_program(model, tokens=tokens)
    # It reports every package that it could use and does not find.
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch and onnxscript about themselves
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                dynamic_shapes=_any_batch(),
                input_names=[INPUT],
                output_names=[*OUTPUTS[: 1 + tokens]],
                opset_version=_OPSET,
                verbose=False,
            )
    finally:
        registry.setLevel(level)
    exported.model.metadata_props.update(_metadata(model))
    partial = path.with_name(f".{path.name}.partial")
    exported.save(partial)
    partial.rename(path)
    return path


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _metadata(model: ESI) -> dict[str, str]:
    config = model.config
    return {
        "fs": f"{config.fs:g}",
        "unit": "mV",
        "leads": " ".join(STANDARD_LEADS),
        "config": json.dumps(asdict(config)),
    }


class _Encoder(nn.Module):
    """The ECG side of a model, in float32."""

    def __init__(self, model: ESI, tokens: bool) -> None:
        super().__init__()
        # A copy of the ECG side: the rest is neither needed nor moved.
        rest = (model.text, model.decoder, model.tokenizer, model.text_config)
        self.model = copy.deepcopy(model, {id(part): None for part in rest})
        self.model.float().cpu().requires_grad_(False)
        self.tokens = tokens

    def forward(self, ecg: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        tokens_BTC = self.model.ecg_tokens(ecg)
        embedding_BD = F.normalize(self.model.project_ecg(tokens_BTC), dim=-1)
        return (embedding_BD, tokens_BTC) if self.tokens else embedding_BD
