"""The head of the CLIP-driven universal model: the text of a class, and the image, write its convolutions."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.networks.heads import NEVER_BIAS

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = 8
SIZES = (HIDDEN * HIDDEN, HIDDEN * HIDDEN, HIDDEN, HIDDEN, HIDDEN, 1)
"""Of three pointwise convolutions: their weights, then their biases."""


class TextHead(nn.Module):
    """A logit for a class whose name was embedded (Liu et al. 2023, arXiv:2301.00785, section 3.2).

    Attributes are named as in public checkpoints.

    Args:
        width: Of the features at full resolution.
        deepest: Width of the deepest features.
        classes: How many names there are.
    """

    def __init__(self, width: int, deepest: int, classes: int) -> None:
        super().__init__()
        self.organ_embedding: Tensor
        self.register_buffer("organ_embedding", torch.zeros(classes, 512))
        self.precls_conv = nn.Sequential(
            nn.GroupNorm(gcd(16, width), width), nn.ReLU(), nn.Conv3d(width, HIDDEN, 1)
        )
        pooled = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool3d(1))
        self.GAP = nn.Sequential(
            nn.GroupNorm(gcd(16, deepest), deepest), *pooled, nn.Conv3d(deepest, 256, 1)
        )
        self.controller = nn.Conv3d(512, sum(SIZES), 1)
        self.text_to_vision = nn.Linear(512, 256)

    def forward(self, features: Tensor, deepest: Tensor, index: int) -> Tensor:
        """Features (B, width, i, j, k) and deepest features -> logits of one class (B, i, j, k)."""
        image = self.GAP(deepest)
        text = F.relu(self.text_to_vision(self.organ_embedding[index])).view(1, -1, 1, 1, 1)
        written = self.controller(torch.cat([image, text.expand_as(image)], 1)).flatten(1)
        hidden = self.precls_conv(features)
        return torch.stack(
            [_segment(x, parameters) for x, parameters in zip(hidden, written, strict=True)]
        )


class TextDriven(AdapterModule):
    """A softmax head on features, of a text head and chosen classes; a structure without one never wins.

    The background has a logit of zero, so that a class wins where its own probability is above one half.

    Args:
        texts: The text head.
        deepest: Gives the deepest features whenever the network runs.
        indices: Of the classes, one per structure.
    """

    def __init__(self, texts: TextHead, deepest: nn.Module, indices: Sequence[int | None]) -> None:
        super().__init__()
        self.texts = texts
        self.chosen: Tensor
        self.register_buffer(
            "chosen", torch.tensor([-1 if index is None else index for index in indices])
        )
        self.seen: Tensor | None = None
        deepest.register_forward_hook(self._see)

    def _see(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.seen = output

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, i, j, k) -> logits (B, 1 + structures, i, j, k)."""
        assert self.seen is not None  # noqa: S101 - the network has run up to here
        background = features.new_zeros(len(features), *features.shape[2:])
        rows = [
            self.texts(features, self.seen, index) if index >= 0 else background + NEVER_BIAS
            for index in self.chosen.tolist()
        ]
        return torch.stack([background, *rows], 1)


def _segment(x: Tensor, parameters: Tensor) -> Tensor:
    """Three pointwise convolutions with written weights: (8, i, j, k) -> (i, j, k)."""
    first, second, third, *biases = torch.split(parameters, list(SIZES))
    for weight, bias in ((first, biases[0]), (second, biases[1])):
        x = F.relu(F.conv3d(x, weight.view(HIDDEN, HIDDEN, 1, 1, 1), bias))
    return F.conv3d(x, third.view(1, HIDDEN, 1, 1, 1), biases[2])[0]
