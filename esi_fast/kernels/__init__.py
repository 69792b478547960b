"""Depthwise 1D convolution and global response normalisation, fast, for any PyTorch project.

Needs torch, and triton for speed on CUDA; nothing else of esi_fast. The doors: functions here,
operators in `torch.ops.esi_fast`, modules in `kernels.nn`. CUDA tensors go to
Triton kernels, others to the PyTorch reference in `kernels.reference`, which is also the
specification; `print(kernels.describe())` says what runs.

Example:
    ```python
    import torch
    from esi_fast import kernels

    x = torch.randn(4, 1250, 128, requires_grad=True)  # (batch, time, channels)
    conv = torch.nn.Conv1d(128, 128, 7, padding=3, groups=128)
    y = kernels.depthwise_conv1d(x, conv.weight, conv.bias, padding=3)  # no transposes
    gamma, beta = torch.zeros(128), torch.zeros(128)
    lengths = torch.tensor([1250, 1000, 800, 1250])  # what lies beyond counts as absent
    z = kernels.gelu_grn(y, gamma, beta, lengths=lengths)  # GELU and GRN, the GELU never stored
    block = kernels.nn.ConvNeXtV2Block1d(128)  # its parts load nn.Conv1d's, timm's, FAIR's weights
    block(z).sum().backward()
    print(x.grad.shape, kernels.describe(), sep="\\n")
    ```

Limits: stride 1, no dilation, one filter a channel, zeros as padding. Triton serves up to 31 taps,
and the convolution with LayerNorm up to 1,024 channels; what it cannot serve on CUDA goes to the
reference, announced once, which there follows torch's flags (TF32, deterministic algorithms).
`torch.func.vmap` goes record by record; nested tensors, DTensor and `torch.jit.script` are not
served. Launch configurations ship with the package for each architecture, dtype and bucket of
channels; `ESI_FAST_AUTOTUNE=1` in the environment times others on the GPU at hand, once for each,
and keeps the fastest.

Elsewhere: `torch.export` keeps the operators, and `decompositions()` turns them into torch's own,
for ONNX and other runtimes. Torch's `FlopCounterMode` counts them.

Everywhere: float32 accumulation and statistics (float64 for float64 input), no atomics, so that
results repeat bit for bit as far as torch's matrix products do, `torch.compile(fullgraph=True)`,
autocast, and positions past `lengths[b]` absent from values, sums and gradients.
"""

from __future__ import annotations

from esi_fast.kernels import nn, reference
from esi_fast.kernels.decompositions import decompositions
from esi_fast.kernels.depthwise_conv1d import depthwise_conv1d
from esi_fast.kernels.depthwise_conv1d_layer_norm import depthwise_conv1d_layer_norm
from esi_fast.kernels.describe import describe
from esi_fast.kernels.flops import register_flop_formulas
from esi_fast.kernels.gelu_grn_mlp import gelu_grn_mlp
from esi_fast.kernels.grn import gelu_grn, grn

__all__ = [
    "decompositions",
    "depthwise_conv1d",
    "depthwise_conv1d_layer_norm",
    "describe",
    "gelu_grn",
    "gelu_grn_mlp",
    "grn",
    "nn",
    "reference",
]

register_flop_formulas()
