"""The last layer: rows for the new structures, copied from the model's own where the names match."""

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
"""A structure that the model does not know starts as unlikely: most voxels are none of it."""
SUPPRESSED_BIAS = -1e4
PRIOR = 0.02
"""The probability that a sigmoid head gives to each structure in each voxel before pre-training."""


def new_head(
    old: nn.Conv3d,
    structures: Sequence[str],
    classes: Sequence[str],
    activation: str,
    matched: Mapping[str, str],
    generator: torch.Generator,
    *,
    never: bool = False,
) -> nn.Conv3d:
    """A softmax head with one row for the background and one per structure, in order.

    Matched rows are copied. A sigmoid model has no background row; zero takes its place, so that the largest
    logit wins exactly where the model's own probability is above one half. A softmax model's background is copied.

    Args:
        old: The model's head, rows in the order of `classes` (after a background row for softmax).
        structures: The new structures.
        classes: The model's classes, background left out.
        activation: The model's output activation.
        matched: Structure -> class.
        generator: Draws the rows that have no match.
        never: Rows without a match never win, for a head that is not trained.
    """
    features = old.in_channels
    offset = 1 if activation == "softmax" else 0
    head = nn.Conv3d(features, 1 + len(structures), kernel_size=1)
    weight = 0.01 * torch.randn(head.weight.shape, generator=generator)
    bias = torch.full((1 + len(structures),), SUPPRESSED_BIAS if never else UNKNOWN_BIAS)
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
    """Let a sigmoid head start from the prior, not from one half (Lin et al. 2017, arXiv:1708.02002, sec. 4.1).

    Else the first steps push all features down, until rare structures get no gradient and are never found.
    """
    if head.bias is not None:
        head.bias.fill_(math.log(PRIOR / (1 - PRIOR)))


class ResidualHead(nn.Module):
    """A head on features that two convolutions may change: head(f + conv(relu(conv(f)))).

    The head and the second convolution are linear: one convolution does the work of both where classes are few.

    Args:
        head: The pointwise classifier.
        kernel_size: Of both convolutions, which keep the width and have no bias.
        generator: Draws the first one; the second is zero.
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
        """(B, width, i, j, k) -> logits (B, classes, i, j, k)."""
        if self.classifier.out_channels > self.in_channels:
            return self.classifier(features + self.second(self._hidden(features)))  # type: ignore[no-any-return]
        return self.classifier(features) + self.change(features)  # type: ignore[no-any-return]

    def change(self, features: Tensor) -> Tensor:
        """What the convolutions change of the logits."""
        weight = torch.einsum(
            "cw,wvijk->cvijk", self.classifier.weight.flatten(1), self.second.weight
        )
        return F.conv3d(self._hidden(features), weight, padding="same")

    def _hidden(self, features: Tensor) -> Tensor:
        return self.first(features).relu_()  # type: ignore[no-any-return]


class FusedHeads(nn.Module):
    """Several pointwise classifiers as one, which reads the features once, and what residual heads add to theirs.

    Args:
        heads: Pointwise ones and residual ones, with biases.
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
        """(B, width, i, j, k) -> (B, all classes, i, j, k)."""
        # No convolution: on one core of a CPU, a pointwise one copies features whose channels are last.
        logits = torch.einsum("cw,bwijk->bcijk", self.rows, features).add_(self.bias)
        for head, end in zip(self.residual, self.ends, strict=True):
            change = head.change(features)  # type: ignore[operator]
            logits[:, end - change.shape[1] : end] += change
        return logits


class ParallelHeads(nn.Module):
    """Several heads on the same features; their logits follow each other along the channels.

    Args:
        heads: Each (B, width, i, j, k) -> (B, classes, i, j, k).
    """

    def __init__(self, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_joined(heads))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, i, j, k) -> (B, all classes, i, j, k)."""
        logits = [head(features) for head in self.heads]
        return (
            logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)
        )  # which would copy even one


class SplitNetwork(nn.Module):
    """A network and its head, which sees so little around a voxel that it may run on features of a whole volume.

    Args:
        body: (B, C, i, j, k) -> features (B, width, i, j, k).
        head: (B, width, i, j, k) -> logits (B, classes, i, j, k).
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, i, j, k) -> logits (B, classes, i, j, k)."""
        logits: Tensor = self.head(self.body(x))
        return logits


def receptive_field_radius(head: nn.Module) -> int:
    """How many voxels away a head of convolutions looks, at most."""
    if isinstance(head, ParallelHeads | FusedHeads):
        return max(
            map(
                receptive_field_radius,
                head.heads if isinstance(head, ParallelHeads) else head.residual,
            ),
            default=0,
        )
    convolutions = (module for module in head.modules() if isinstance(module, nn.Conv3d))
    sides = (
        d * (k // 2) for one in convolutions for d, k in [(max(one.dilation), max(one.kernel_size))]
    )
    return sum(sides)


def _joined(heads: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The same heads, but those that follow each other and can be one as one."""
    for joint, several in groupby(heads, _can_be_joined):
        if joint:
            yield FusedHeads(list(several))
        else:
            yield from several


def _can_be_joined(head: nn.Module) -> bool:
    residual = isinstance(head, ResidualHead) and head.classifier.out_channels <= head.in_channels
    return is_pointwise(_classifier(head)) if residual else is_pointwise(head)


def _classifier(head: nn.Module) -> nn.Conv3d:
    return head.classifier if isinstance(head, ResidualHead) else head  # type: ignore[return-value]


def _row(head: nn.Conv3d, index: int) -> tuple[Tensor, Tensor]:
    bias = head.bias[index] if head.bias is not None else torch.tensor(0.0)
    return head.weight[index].detach(), bias.detach()


def is_pointwise(head: nn.Module) -> bool:
    """Whether it does nothing but weigh the features of each voxel, and add a bias: no method has put more into it."""
    plain = type(head) is nn.Conv3d and head.weight[0].numel() == head.in_channels
    hooks = head._forward_hooks or head._forward_pre_hooks
    return plain and head.state_dict().keys() == {"weight", "bias"} and not hooks
