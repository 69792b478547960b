"""What runs where in this process, as a table."""

from __future__ import annotations

import torch

from esi_fast.kernels import dispatch, tuning


def describe() -> str:
    """A table of what runs where in this process, and the fallbacks that have happened so far."""
    has_triton = dispatch.why_not_triton() == ""
    if not has_triton:
        on_cuda = f"PyTorch reference ({dispatch.why_not_triton()})"
    elif torch.cuda.is_available():
        on_cuda = f"Triton {dispatch.triton.__version__} on {torch.cuda.get_device_name()}"
    else:
        on_cuda = f"Triton {dispatch.triton.__version__} (no CUDA device here)"
    rows = [
        ("operator", "CUDA tensors", "other tensors"),
        ("depthwise_conv1d", on_cuda, "PyTorch reference"),
        ("grn", on_cuda, "PyTorch reference"),
        ("gelu_grn", on_cuda, "PyTorch reference"),
        ("gelu_grn_mlp", f"{on_cuda}, matrix products by torch", "PyTorch reference"),
        ("depthwise_conv1d_layer_norm", on_cuda, "PyTorch reference"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"esi_fast.kernels, torch {torch.__version__}"]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    tuned = f"tuned, kept in {tuning.tuned_folder()} (ESI_FAST_AUTOTUNE=1)"
    lines.append(f"tiles: {tuned if tuning.autotune() else 'shipped'}")
    lines += [f"fallback: {operator}: {reason}" for operator, reason in dispatch.fallbacks]
    return "\n".join(lines)
