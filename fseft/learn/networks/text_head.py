"""Text-driven head of the CLIP-driven universal model.

The text of a class and the image produce the weights of its convolutions.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.networks.heads import SUPPRESSED_BIAS

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = 8
SIZES = (HIDDEN * HIDDEN, HIDDEN * HIDDEN, HIDDEN, HIDDEN, HIDDEN, 1)
"""Numbers of weights, then of biases, of the three generated pointwise convolutions."""


class TextHead(nn.Module):
    """Logits of a class from the embedding of its name.

    Liu et al. 2023, arXiv:2301.00785, section 3.2. Attributes are named as in public checkpoints.

    Args:
        width: Channels of the features at full resolution.
        deepest: Channels of the deepest features.
        classes: Number of embedded class names.
    """

    def __init__(self, width: int, deepest: int, classes: int) -> None:
        super().__init__()
        self.organ_embedding: Tensor
        self.register_buffer("organ_embedding", torch.zeros(classes, 512))
        self.precls_conv = nn.Sequential(
            nn.GroupNorm(gcd(16, width), width), nn.ReLU(), nn.Conv3d(width, HIDDEN, 1)
        )
        self.GAP = nn.Sequential(
            nn.GroupNorm(gcd(16, deepest), deepest),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Conv3d(deepest, 256, 1),
        )
        self.controller = nn.Conv3d(512, sum(SIZES), 1)
        self.text_to_vision = nn.Linear(512, 256)

    def forward(self, features: Tensor, deepest: Tensor, index: int) -> Tensor:
        """Computes the logits of one class.

        Args:
            features: Features at full resolution (B, width, i, j, k).
            deepest: Deepest features (B, deepest, ...).
            index: The class.

        Returns:
            Logits (B, i, j, k).
        """
        image = self.GAP(deepest)
        text = F.relu(self.text_to_vision(self.organ_embedding[index])).view(1, -1, 1, 1, 1)
        generated = self.controller(torch.cat([image, text.expand_as(image)], 1)).flatten(1)
        hidden = self.precls_conv(features)
        return torch.stack(
            [_segment(x, parameters) for x, parameters in zip(hidden, generated, strict=True)]
        )


class TextDrivenHead(AdapterModule):
    """A softmax head on features that evaluates a text head for chosen classes.

    The background has a logit of zero, so a class wins where its own probability is above one half.
    A structure without a class is never predicted. Attributes name tensors in adapter files.

    Args:
        text_head: Computes the logits of a class.
        deepest: Module of the network whose output are the deepest features; a hook captures them
            in each forward pass.
        indices: Class of each structure; None for a structure without a class in the text head.
    """

    def __init__(
        self, text_head: TextHead, deepest: nn.Module, indices: Sequence[int | None]
    ) -> None:
        super().__init__()
        self.texts = text_head
        self.chosen: Tensor
        classes = [-1 if index is None else index for index in indices]
        self.register_buffer("chosen", torch.tensor(classes))
        self.deepest_features: Tensor | None = None
        deepest.register_forward_hook(self._capture)

    def _capture(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.deepest_features = output

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (B, width, i, j, k) to logits (B, 1 + structures, i, j, k)."""
        deepest = self.deepest_features
        assert deepest is not None  # noqa: S101 - the head runs last
        background = features.new_zeros(len(features), *features.shape[2:])
        rows = [background]
        for index in self.chosen.tolist():
            unknown = index < 0
            rows.append(
                background + SUPPRESSED_BIAS if unknown else self.texts(features, deepest, index)
            )
        return torch.stack(rows, 1)


def _segment(x: Tensor, parameters: Tensor) -> Tensor:
    """Applies three pointwise convolutions with generated weights: (8, i, j, k) -> (i, j, k)."""
    weights_and_biases = torch.split(parameters, list(SIZES))
    weights, biases = weights_and_biases[:3], weights_and_biases[3:]
    for layer in (0, 1):
        kernel = weights[layer].view(HIDDEN, HIDDEN, 1, 1, 1)
        x = F.relu(F.conv3d(x, kernel, biases[layer]))
    kernel = weights[2].view(1, HIDDEN, 1, 1, 1)
    return F.conv3d(x, kernel, biases[2])[0]
