"""The marker of modules that a method adds to a network."""

from __future__ import annotations

from torch import nn


class AdapterModule(nn.Module):
    """A module that a method adds to a network.

    With `enabled = False` it has no effect, and the network computes as its base does.

    An architecture lists no targets inside such modules.
    """

    enabled: bool = True
    kept_factors: tuple[str, ...] = ()
    """Names of tensors in a product with others that start at zero: a fraction of the trained
    change scales those others only. Changes of all other tensors are scaled one by one."""
