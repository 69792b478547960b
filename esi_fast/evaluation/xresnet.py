"""The xresnet1d101 of the PTB-XL benchmark, as a supervised baseline.

A ResNet with the tweaks of He et al. 2019 ("Bag of Tricks for Image Classification with
Convolutional Neural Networks", section 4: three small convolutions for a stem, the stride in the
wide convolution of a bottleneck, average pooling before the shortcut's, norms of branches that
start at zero), in one dimension with five taps and 64 channels in every stage, and a head on the
mean and the maximum over time (Strodthoff et al. 2020, "Deep Learning for ECG Analysis",
arXiv 2004.13701).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_KERNEL = 5
_STEM = (32, 32, 64)
_WIDTH, _EXPANSION = 64, 4
_HIDDEN = 128
_DROPOUT = (0.25, 0.5)  # before the hidden layer and before the last
_DEPTHS_101 = (3, 4, 23, 3)


def xresnet1d101(num_classes: int, *, in_chans: int = 12) -> XResNet1d:
    """The network of 101 layers with fresh weights: 33 bottlenecks, the stem and the head."""
    return XResNet1d(_DEPTHS_101, num_classes, in_chans=in_chans)


class XResNet1d(nn.Module):
    """The network.

    Args:
        depths: bottlenecks of each stage; every stage but the first halves time.
        num_classes: K.
        in_chans: leads.
    """

    def __init__(self, depths: Sequence[int], num_classes: int, *, in_chans: int = 12) -> None:
        super().__init__()
        channels = (in_chans, *_STEM)
        self.stem = nn.Sequential(
            *(
                _conv(before, after, _KERNEL, stride=1 + (place == 0))
                for place, (before, after) in enumerate(zip(channels, _STEM, strict=False))
            ),
            nn.MaxPool1d(3, stride=2, padding=1),
        )
        stages = []
        before = _STEM[-1]
        for place, depth in enumerate(depths):
            blocks = []
            for block in range(depth):
                stride = 2 if place > 0 and block == 0 else 1
                blocks.append(Bottleneck1d(before, _WIDTH, stride))
                before = _WIDTH * _EXPANSION
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.hidden = nn.Sequential(
            nn.BatchNorm1d(2 * before),
            nn.Dropout(_DROPOUT[0]),
            nn.Linear(2 * before, _HIDDEN),
            nn.ReLU(),
            nn.BatchNorm1d(_HIDDEN),
            nn.Dropout(_DROPOUT[1]),
        )
        self.head = nn.Linear(_HIDDEN, num_classes)

    def forward(self, x_BLT: Tensor) -> Tensor:
        """``(B, L, T)`` -> logits ``(B, K)``."""
        x_BCT = self.stages(self.stem(x_BLT))
        pooled_BC = torch.cat([x_BCT.amax(dim=2), x_BCT.mean(dim=2)], dim=1)
        logits: Tensor = self.head(self.hidden(pooled_BC))
        return logits


class Bottleneck1d(nn.Module):
    """A narrow convolution between two of one tap, beside a shortcut: ``(B, C, T)``.

    Args:
        in_channels: C.
        width: of the narrow one; the output has four times as many channels.
        stride: of time; a remainder is rounded up.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * _EXPANSION
        last = _conv(width, out_channels, 1, activate=False)
        nn.init.zeros_(last.get_parameter("1.weight"))  # the block starts as its shortcut
        self.branch = nn.Sequential(
            _conv(in_channels, width, 1), _conv(width, width, _KERNEL, stride=stride), last
        )
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(nn.AvgPool1d(stride, ceil_mode=True))
        if in_channels != out_channels:
            shortcut.append(_conv(in_channels, out_channels, 1, activate=False))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """``(B, C, T)`` -> ``(B, 4 * width, ceil(T / stride))``."""
        return F.relu(self.branch(x_BCT) + self.shortcut(x_BCT))


def _conv(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, activate: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, unless a sum follows, ReLU."""
    conv = nn.Conv1d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    layers: list[nn.Module] = [conv, nn.BatchNorm1d(out_channels)]
    return nn.Sequential(*layers, nn.ReLU()) if activate else nn.Sequential(*layers)
