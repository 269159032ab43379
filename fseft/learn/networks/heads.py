"""Heads: the last layer of a network, with one row per structure."""

from __future__ import annotations

import math
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

UNKNOWN_BIAS = -2.0
"""Initial bias of a structure that is new to the model: most voxels do not belong to it."""
SUPPRESSED_BIAS = -1e4
"""Bias of a structure that must never be predicted."""
PRIOR = 0.02
"""Probability of each structure in each voxel that a sigmoid head predicts before pre-training."""


def new_head(
    old: nn.Conv3d,
    structures: Sequence[str],
    classes: Sequence[str],
    activation: str,
    matched: Mapping[str, str],
    generator: torch.Generator,
    *,
    suppress_unmatched: bool = False,
) -> nn.Conv3d:
    """Builds a softmax head with one row for the background and one per structure, in order.

    Rows of the model's classes are copied. A sigmoid model has no background row; its
    logit is set to zero, so that a structure wins exactly where the model's own probability is
    above one half. The background row of a softmax model is copied.

    Args:
        old: The model's head, rows in the order of `classes` (after a background row for softmax).
        structures: The new structures.
        classes: The model's classes, without the background.
        activation: The model's output activation, `softmax` or `sigmoid`.
        matched: Class of the model for each structure that has one.
        generator: Draws the rows of the other structures.
        suppress_unmatched: Never predict the other structures, for a head that is not trained.

    Returns:
        A pointwise convolution from the features to (1 + structures) logits.
    """
    features = old.in_channels
    offset = 1 if activation == "softmax" else 0
    head = nn.Conv3d(features, 1 + len(structures), kernel_size=1)
    weight = 0.01 * torch.randn(head.weight.shape, generator=generator)
    initial_bias = SUPPRESSED_BIAS if suppress_unmatched else UNKNOWN_BIAS
    bias = torch.full((1 + len(structures),), initial_bias)
    weight[0], bias[0] = (
        _row(old, 0) if offset else (torch.zeros_like(weight[0]), torch.tensor(0.0))
    )
    for row, name in enumerate(structures, start=1):
        if name in matched:
            weight[row], bias[row] = _row(old, offset + list(classes).index(matched[name]))
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


@torch.no_grad()
def initialise_to_prior(head: nn.Conv3d) -> None:
    """Sets the bias of a sigmoid head so that each structure starts at `PRIOR`, in place.

    Lin et al. 2017, arXiv:1708.02002, section 4.1. With a probability of one half, the first steps
    lower all features, until rare structures get no gradient and are never predicted.
    """
    if head.bias is not None:
        head.bias.fill_(math.log(PRIOR / (1 - PRIOR)))


@torch.no_grad()
def initialise_to_frequencies(
    head: nn.Module, rows: Sequence[int], frequencies: Sequence[float]
) -> None:
    """Sets the bias of some rows of a softmax head to the log odds of the classes, in place.

    Without it, the first steps lower all structures until the background is predicted, and small
    structures do not recover within a short training. The frequencies count as the weights of
    `Predictions.weighted_cross_entropy` make them, by their square roots.

    Args:
        head: The head, which remains as it is unless it has a classifier with a trained bias.
        rows: Rows of structures to initialise.
        frequencies: Fraction of the voxels of each class, the background first.
    """
    bias = _classifier(head).bias if isinstance(head, nn.Conv3d | ResidualHead) else None
    if bias is None or not bias.requires_grad:
        return
    logarithms = torch.tensor(frequencies).clamp_min(1e-6).log() / 2
    log_odds = (logarithms - logarithms[0]).to(bias)
    selected = list(rows)
    bias[selected] = bias[0] + log_odds[selected]


class ResidualHead(nn.Module):
    """A pointwise head on features with a residual branch: head(f + conv(relu(conv(f)))).

    The head and the second convolution are linear: where classes are few, one convolution computes
    both.

    Args:
        head: The pointwise classifier.
        kernel_size: Kernel size of both convolutions, which keep the width and have no bias.
        generator: Draws the weights of the first convolution; the second starts at zero.
    """

    def __init__(self, head: nn.Conv3d, kernel_size: int, generator: torch.Generator) -> None:
        super().__init__()
        width = self.in_channels = head.in_channels
        self.first = nn.Conv3d(width, width, kernel_size, padding=kernel_size // 2, bias=False)
        self.second = nn.Conv3d(width, width, kernel_size, padding=kernel_size // 2, bias=False)
        self.classifier = head
        with torch.no_grad():
            scale = (2 / self.first.weight[0].numel()) ** 0.5
            self.first.weight.copy_(
                scale * torch.randn(self.first.weight.shape, generator=generator)
            )
            self.second.weight.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (B, width, i, j, k) to logits (B, classes, i, j, k)."""
        logits: Tensor
        if self.classifier.out_channels > self.in_channels:
            logits = self.classifier(features + self.second(self._hidden(features)))
        else:
            logits = self.classifier(features) + self.residual_logits(features)
        return logits

    def residual_logits(self, features: Tensor) -> Tensor:
        """Computes the contribution of the convolutions to the logits (B, classes, i, j, k)."""
        weight = torch.einsum(
            "cw,wvijk->cvijk", self.classifier.weight.flatten(1), self.second.weight
        )
        return F.conv3d(self._hidden(features), weight, padding="same")

    def _hidden(self, features: Tensor) -> Tensor:
        return self.first(features).relu_()  # type: ignore[no-any-return]


class FusedHeads(nn.Module):
    """Several pointwise classifiers as one matrix product, plus the branches of residual heads.

    Args:
        heads: Pointwise convolutions and `ResidualHead`s, with biases.

    Attributes:
        rows: Weights of all classifiers, (all classes, width).
        bias: Biases of all classifiers, (all classes, 1, 1, 1).
    """

    rows: Tensor
    bias: Tensor

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        plain = [_classifier(head) for head in heads]
        self.register_buffer("rows", torch.cat([head.weight.detach().flatten(1) for head in plain]))
        self.register_buffer(
            "bias", torch.cat([head.state_dict()["bias"] for head in plain])[:, None, None, None]
        )
        ends = list(accumulate(head.out_channels for head in plain))
        self.residual = nn.ModuleList(head for head in heads if isinstance(head, ResidualHead))
        self.ends = [
            end for head, end in zip(heads, ends, strict=True) if isinstance(head, ResidualHead)
        ]

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (B, width, i, j, k) to logits (B, all classes, i, j, k)."""
        # A pointwise convolution would copy features whose channels are last, on one CPU core.
        logits = torch.einsum("cw,bwijk->bcijk", self.rows, features).add_(self.bias)
        for head, end in zip(self.residual, self.ends, strict=True):
            residual = head.residual_logits(features)  # type: ignore[operator]
            logits[:, end - residual.shape[1] : end] += residual
        return logits


class ParallelHeads(nn.Module):
    """Several heads on the same features, with their logits concatenated along the channels.

    Args:
        heads: Each (B, width, i, j, k) -> (B, classes, i, j, k).
    """

    def __init__(self, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_fuse_adjacent(heads))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (B, width, i, j, k) to logits (B, all classes, i, j, k)."""
        logits = [head(features) for head in self.heads]
        # torch.cat copies, also a single tensor.
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)


class SplitNetwork(nn.Module):
    """A network divided into body and head, so that the head can run on slabs of a whole volume.

    The receptive field of the head is small (`receptive_field_radius`).

    Args:
        body: Maps images (B, C, i, j, k) to features (B, width, i, j, k).
        head: Maps features to logits (B, classes, i, j, k).
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, i, j, k) to logits (B, classes, i, j, k)."""
        logits: Tensor = self.head(self.body(x))
        return logits


def receptive_field_radius(head: nn.Module) -> int:
    """Returns the receptive-field radius of a convolutional head, in voxels, as an upper bound."""
    branches: nn.ModuleList | None = None
    if isinstance(head, ParallelHeads):
        branches = head.heads
    elif isinstance(head, FusedHeads):
        branches = head.residual
    if branches is not None:
        return max(map(receptive_field_radius, branches), default=0)
    convolutions = [module for module in head.modules() if isinstance(module, nn.Conv3d)]
    return sum(max(conv.dilation) * (max(conv.kernel_size) // 2) for conv in convolutions)


def _fuse_adjacent(heads: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Replaces each run of fusible heads by one `FusedHeads`; other heads stay as they are."""
    for fusible, run in groupby(heads, _is_fusible):
        if fusible:
            yield FusedHeads(list(run))
        else:
            yield from run


def _is_fusible(head: nn.Module) -> bool:
    if isinstance(head, ResidualHead) and head.classifier.out_channels > head.in_channels:
        return False
    return is_pointwise(_classifier(head))


def _classifier(head: nn.Module) -> nn.Conv3d:
    return head.classifier if isinstance(head, ResidualHead) else head  # type: ignore[return-value]


def _row(head: nn.Conv3d, index: int) -> tuple[Tensor, Tensor]:
    """Returns the weight (width, 1, 1, 1) and the bias of a class."""
    bias = torch.tensor(0.0) if head.bias is None else head.bias[index]
    weight = head.weight[index]
    return weight.detach(), bias.detach()


def is_pointwise(head: nn.Module) -> bool:
    """Returns whether a head is a plain pointwise convolution with a bias.

    It is not if a method has added hooks, submodules or parametrizations to it.
    """
    if type(head) is not nn.Conv3d or head.state_dict().keys() != {"weight", "bias"}:
        return False
    has_hooks = bool(head._forward_hooks or head._forward_pre_hooks)
    return not has_hooks and head.weight[0].numel() == head.in_channels
