"""The augmentation `blank_boxes`: boxes without structure, whose labels are to be inferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

COUNT = (1, 5)
"""Range of the number of boxes; the upper limit is excluded."""
SIDE = (0.1, 0.33)
"""Range of the side of a box along each axis, as a fraction of the crop."""

Box = tuple[slice, ...]


class BlankBoxes:
    """Boxes that are filled with the mean of each channel; the label stays."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[Box, ...]:
        """Draws the boxes, each as a slice along each spatial axis."""
        return tuple(_box(generator, shape[1:]) for _ in range(generator.integers(*COUNT)))

    def apply(self, boxes: tuple[Box, ...], image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the image (C, i, j, k) with blank boxes, and the label."""
        blank = image.copy()
        for box in boxes:
            inside = (slice(None), *box)
            blank[inside] = image.mean(axis=(1, 2, 3), keepdims=True)
        return blank, label


def _box(generator: Generator, shape: tuple[int, ...]) -> Box:
    slices = []
    for length in shape:
        side = max(1, round(length * generator.uniform(*SIDE)))
        start = int(generator.integers(length - side + 1))
        slices.append(slice(start, start + side))
    return tuple(slices)


SPEC = AugmentationSpec(
    name="blank_boxes",
    factory="fseft.builtin.augmentations.blank_boxes:BlankBoxes",
    summary="one to four boxes filled with the mean intensity; not in the default set",
    reference="DeVries and Taylor 2017, arXiv:1708.04552 (cutout)",
    probability=0.2,
)
