"""Few crops of several cases that together show every structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.learn.sampling.patch_sampler import CropSource
    from fseft.volume.cache import Array, CachedCase

SHOWN = 0.25
"""Fraction of a structure's voxels from which a crop shows it; else only crops drawn near it do."""
_CANDIDATES = 8
_POINTS = 200  # voxels per structure and case: enough to estimate fractions


def covering_crops(
    source: CropSource, cases: Sequence[CachedCase], rng: np.random.Generator
) -> list[tuple[CachedCase, tuple[int, ...]]]:
    """Chooses crops that together show every structure of the cases, by greedy set cover.

    Each crop is drawn near the structure that the fewest cases show, of those still missing: the
    best of a few candidates, which shows most of the missing ones. Only stored voxel locations are
    read.

    Args:
        source: Size of the crops, and the structures.
        cases: The cases.
        rng: Generator for all choices.

    Returns:
        Case and first voxel of each crop; at most one crop per structure.
    """
    points = [_points(source, case) for case in cases]
    showing = {
        value: [number for number, found in enumerate(points) if value in found]
        for value in source.classes
    }
    missing = {value for value, numbers in showing.items() if numbers}
    crops = []
    while missing:
        rarest = min(missing, key=lambda value: (len(showing[value]), value))
        candidates = []
        for number in np.resize(rng.permutation(showing[rarest]), _CANDIDATES).tolist():
            start = source.start_near(cases[number], source.classes[rarest], rng)
            shown = missing & _shown(points[number], start, source.size)
            candidates.append((shown, cases[number], start))
        shown, case, start = max(candidates, key=lambda candidate: len(candidate[0]))
        missing -= {rarest} | shown
        crops.append((case, start))
    return crops


def _points(source: CropSource, case: CachedCase) -> dict[int, Array]:
    """Returns voxels of each structure that a case shows, (n, 3)."""
    points = {}
    for value in source.classes:
        if value in case.classes:
            voxels = case.locations(value)
            step = 1 + len(voxels) // _POINTS
            points[value] = voxels[::step]
    return points


def _shown(points: Mapping[int, Array], start: Sequence[int], size: Sequence[int]) -> set[int]:
    """Returns the structures that a crop shows a sufficient part of."""
    stop = np.add(start, size)
    return {
        value
        for value, voxels in points.items()
        if ((voxels >= start) & (voxels < stop)).all(1).mean() >= SHOWN
    }
