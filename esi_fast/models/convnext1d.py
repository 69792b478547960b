"""ConvNeXt V2 in one dimension, channels-last from the stem to the head.

Architecture and sizes: Woo et al., "ConvNeXt V2" (CVPR 2023), section 3 and table 8, with time in
the place of the image. T samples become floor(T/4) steps, then a half, a quarter and an eighth.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from esi_fast.kernels.nn import ConvNeXtV2Block1d, DepthwiseConv1d

# name -> blocks a stage, channels a stage
VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    # Not the paper's: small enough for tests and the demo on a CPU.
    "convnextv2_zepto": ((1, 1, 3, 1), (24, 48, 96, 192)),
    "convnextv2_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnextv2_femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnextv2_pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnextv2_nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnextv2_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnextv2_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnextv2_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnextv2_huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
STEM_STRIDE = 4
TOKEN_STRIDE = 32  # samples of the record behind one token of the last stage


class PatchConv1d(nn.Module):
    """A convolution whose stride is its width, on ``(B, T, C)``: one matrix product, no permute.

    Equivalent to: ``nn.Conv1d(in_channels, out_channels, width, stride=width)`` on the transposed
    input, whose weights it loads unchanged. A remainder of T is dropped, as there.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, width))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x_BTC: Tensor) -> Tensor:
        """``(B, T, in)`` -> ``(B, T // width, out)``."""
        batch, length, channels = x_BTC.shape
        num_patches = length // self.width
        patches_BTC = x_BTC[:, : num_patches * self.width].reshape(
            batch, num_patches, self.width * channels
        )
        return F.linear(patches_BTC, self.weight.transpose(1, 2).flatten(1), self.bias)


class ConvNeXtV2Encoder1d(nn.Module):
    """The encoder.

    Args:
        depths, channels: blocks and channels of the four stages.
        in_chans: leads.
        num_classes: width of a linear head on the pooled features; 0 gives the features themselves.
        drop_path: probability at the last block of dropping its branch, rising linearly from 0.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        channels: tuple[int, ...],
        *,
        in_chans: int = 12,
        num_classes: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_features = channels[-1]
        self.num_classes = num_classes
        self.recompute = False  # activations in the backward pass, instead of keeping them
        stem = PatchConv1d(in_chans, channels[0], STEM_STRIDE)
        self.downsample_layers = nn.ModuleList([nn.Sequential(stem, _layer_norm(channels[0]))])
        for before, after in pairwise(channels):
            layers = nn.Sequential(_layer_norm(before), PatchConv1d(before, after, 2))
            self.downsample_layers.append(layers)
        last = max(1, sum(depths) - 1)
        rates = [drop_path * block / last for block in range(sum(depths))]
        self.stages = nn.ModuleList()
        for depth, width in zip(depths, channels, strict=True):
            blocks = [ConvNeXtV2Block1d(width, drop_path=rates.pop(0)) for _ in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
        self.norm = _layer_norm(channels[-1])
        self.head = _head(channels[-1], num_classes)
        self.apply(_init_weights)
        # A stem without bias would lose the voltage: the LayerNorm behind it takes out any common
        # factor of the record. Against a bias of about the size of the signal the factor shows.
        nn.init.normal_(stem.bias, std=0.5)

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or the identity without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh head of this width in the place of the old one; 0 takes it away.

        Args:
            num_classes: width of the head.
            global_pool: ``"avg"``, which there always is; None leaves it.

        Raises:
            ValueError: another pooling, or a negative width.
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool is {global_pool!r}; this encoder has 'avg'")
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}; give 0 for none, or more")
        like = self.norm.weight
        head = _head(self.num_features, num_classes)
        self.num_classes = num_classes
        self.head = head.apply(_init_weights).to(like.device, like.dtype)

    def forward_features(self, x_BLT: Tensor) -> Tensor:
        """``(B, L, T)`` -> the tokens of the last stage, ``(B, T // 32, C)``; T of at least 32."""
        if x_BLT.shape[-1] < TOKEN_STRIDE:
            raise ValueError(f"T is {x_BLT.shape[-1]}; one token takes {TOKEN_STRIDE} samples")
        x_BTC = x_BLT.transpose(1, 2)
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x_BTC = downsample(x_BTC)
            for block in stage.children():
                if self.recompute and torch.is_grad_enabled():
                    x_BTC = checkpoint(block, x_BTC, use_reentrant=False)
                else:
                    x_BTC = block(x_BTC)
        return x_BTC

    def forward_head(self, tokens_BTC: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean over time, LayerNorm, head: ``(B, T, C)`` -> ``(B, C)`` or ``(B, num_classes)``."""
        pooled_BC = self.norm(tokens_BTC.mean(dim=1))
        return pooled_BC if pre_logits else self.head(pooled_BC)

    def forward(self, x_BLT: Tensor) -> Tensor:
        """``(B, L, T)`` -> ``(B, C)``, or ``(B, num_classes)`` with a head."""
        return self.forward_head(self.forward_features(x_BLT))


def _head(channels: int, num_classes: int) -> nn.Module:
    return nn.Linear(channels, num_classes) if num_classes else nn.Identity()


def _layer_norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


def _init_weights(module: nn.Module) -> None:
    # The paper draws all weights with std 0.02, which suits its widths of 500 and more. Here the
    # variance follows the fan-in (LeCun et al., 1998), so that narrow encoders start as alive.
    if isinstance(module, nn.Linear | PatchConv1d | DepthwiseConv1d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
