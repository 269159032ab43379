"""The masks of one structure, and the measurements on them that metrics share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fseft.metrics.surfaces import nearest_distances, surface_voxels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One structure in the prediction and in the reference.

    Both masks are cropped to the structure, with a margin of one voxel of background. Derived
    quantities are computed on first use and shared by all metrics of the structure.

    Args:
        prediction: Mask of shape (i, j, k).
        reference: Mask of the same shape.
        spacing_mm: Voxel size along i, j, k.
        image_shape: Shape of the image that the masks were cropped from.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.

    Examples:
        >>> import numpy as np
        >>> mask = np.ones((2, 2, 2), bool)
        >>> masks = MaskPair(mask, mask, spacing_mm=(1.0, 1.0, 5.0), image_shape=(2, 2, 2))
        >>> masks.prediction_ml
        0.04
    """

    prediction: Mask
    reference: Mask
    spacing_mm: tuple[float, float, float]
    image_shape: tuple[int, ...]
    tolerance_mm: float = 2.0

    @cached_property
    def prediction_voxels(self) -> int:
        """Number of voxels of the predicted structure."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def reference_voxels(self) -> int:
        """Number of voxels of the reference structure."""
        return int(np.count_nonzero(self.reference))

    @property
    def prediction_ml(self) -> float:
        """Volume of the predicted structure, in ml."""
        return self.prediction_voxels * math.prod(self.spacing_mm) / 1000

    @property
    def reference_ml(self) -> float:
        """Volume of the reference structure, in ml."""
        return self.reference_voxels * math.prod(self.spacing_mm) / 1000

    @property
    def image_diagonal_mm(self) -> float:
        """Length of the diagonal of the uncropped image, in mm."""
        lengths = np.multiply(self.spacing_mm, self.image_shape)
        return math.hypot(*lengths)

    @cached_property
    def surface_distances_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances of surface voxels to the other surface: from prediction, from reference.

        Distances are between voxel centres, in mm. A surface voxel has a face neighbour outside the
        mask or the image. Both masks must have voxels.
        """
        prediction, reference = (
            surface_voxels(mask, self.spacing_mm) for mask in (self.prediction, self.reference)
        )
        return nearest_distances(prediction, reference), nearest_distances(reference, prediction)
