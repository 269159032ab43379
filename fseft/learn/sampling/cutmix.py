"""CutMix: boxes of a crop are replaced by the same boxes of another crop of the batch.

Yun et al. 2019 (arXiv:1905.04899), here with the labels of each voxel instead of mixed labels of
the image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fseft.learn.sampling.patch_sampler import Crops

SIDE = (0.25, 0.6)
"""Range of the side of a box along each axis, as a fraction of the crop."""


def cutmix(crops: Crops, probability: float, generator: np.random.Generator) -> Crops:
    """Returns crops of which some contain a box of the next crop, image and label.

    Args:
        crops: Crops of one size. A box is exchanged only between crops that annotate the same
            structures.
        probability: Probability of a box in each crop.
        generator: The only source of randomness.
    """
    count = len(crops.images)
    images, labels = crops.images.copy(), crops.labels.copy()
    for crop in range(count):
        source = (crop + 1) % count
        box = _draw_box(generator, crops.images.shape[2:])
        if generator.random() < probability and _same_annotation(crops, crop, source):
            images[crop][box] = crops.images[source][box]
            labels[crop][box] = crops.labels[source][box]
    return replace(crops, images=images, labels=labels)


def _draw_box(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Draws a box in an array (C, i, j, k): a slice along each axis."""
    box = [slice(None)]
    for length in shape:
        side = max(1, round(length * generator.uniform(*SIDE)))
        start = int(generator.integers(length - side + 1))
        box.append(slice(start, start + side))
    return tuple(box)


def _same_annotation(crops: Crops, first: int, second: int) -> bool:
    if crops.annotated is None:
        return True
    return np.array_equal(crops.annotated[first], crops.annotated[second])
