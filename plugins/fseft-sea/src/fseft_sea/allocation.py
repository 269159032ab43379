"""From audits to a choice: gains smoothed over the audits, and a knapsack filled greedily."""

from functools import reduce

import torch


def smoothed(audits, weight):
    """The exponential moving average of each unit's gains, those outside its interquartile range moved to the edge.

    Args:
        audits: Gains (audits, units), in the order of the audits.
        weight: Of each audit against those before it.
    """
    if not len(audits):
        return torch.zeros(audits.shape[1])
    low, high = torch.quantile(audits, torch.tensor([0.25, 0.75]), dim=0)
    first, *later = audits.clamp(low, high)
    return reduce(lambda mean, gains: mean.lerp(gains, weight), later, first)


def fill(gains, sizes, budget):
    """Indices of what fits the budget and gains anything, the most gain for its size first."""
    kept, left = [], budget
    for index in sorted(range(len(gains)), key=lambda index: -gains[index] / sizes[index]):
        if gains[index] > 0 and sizes[index] <= left:
            kept.append(index)
            left -= sizes[index]
    return kept
