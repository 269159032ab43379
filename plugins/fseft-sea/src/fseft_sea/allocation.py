"""Allocation of the budget: gains smoothed over the audits, and a greedy knapsack."""

from functools import reduce

import torch


def smoothed(audits, weight):
    """Returns the exponential moving average of each unit's gains.

    Gains outside the interquartile range of a unit are clipped to it first.

    Args:
        audits: Gains (audits, units), in the order of the audits.
        weight: Weight of each audit relative to the earlier ones, from 0 to 1.

    Returns:
        Smoothed gains (units,); zeros without an audit.
    """
    if not len(audits):
        return torch.zeros(audits.shape[1])
    low, high = torch.quantile(audits, torch.tensor([0.25, 0.75]), dim=0)
    first, *later = audits.clamp(low, high)
    return reduce(lambda mean, gains: mean.lerp(gains, weight), later, first)


def fill(gains, sizes, budget):
    """Fills a budget greedily by gain per size; units without a gain are never selected.

    Args:
        gains: Gain of each unit.
        sizes: Size of each unit, in the unit of the budget.
        budget: Maximum total size.

    Returns:
        Indices of the selected units, the highest gain per size first.

    Examples:
        >>> fill([0.1, 0.4, -0.2], [10, 20, 5], budget=25)
        [1]
    """
    selected, remaining = [], budget
    for index in sorted(range(len(gains)), key=lambda index: -gains[index] / sizes[index]):
        if gains[index] > 0 and sizes[index] <= remaining:
            selected.append(index)
            remaining -= sizes[index]
    return selected
