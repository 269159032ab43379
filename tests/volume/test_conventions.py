"""A network gets the same numbers from this package as from its owner's preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    NormalizeIntensity,
    Orientation,
    ScaleIntensity,
    ScaleIntensityRange,
    Spacing,
)
from scipy.ndimage import gaussian_filter

from fseft.builtin.models.dae import CARD as DAE
from fseft.builtin.models.fseft import CARD as FSEFT
from fseft.builtin.models.monai_wholebody import CARD as WHOLE_BODY
from fseft.schemas import Preprocessing
from fseft.volume.geometry import Geometry
from fseft.volume.image import Volume
from fseft.volume.intensity import normalise
from fseft.volume.preprocessing import preprocess_volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def a_scan(minimum, maximum, *, margin=0):
    """A smooth scan whose axes are LPI, in an array (x, y, z) with its RAS affine."""
    noise = np.random.default_rng(0).normal(size=(30, 34, 23))
    smooth = gaussian_filter(noise, 1.5)
    scaled = (smooth - smooth.min()) / np.ptp(smooth)
    array = (minimum + scaled * (maximum - minimum)).astype(np.float32)
    if margin:
        outside = np.ones(array.shape, bool)
        outside[margin:-margin, margin:-margin, margin:-margin] = False
        array[outside] = minimum
    affine = np.diag([-0.83, -0.91, -2.3, 1.0])
    affine[:3, 3] = (40, 25, 300)
    return array, affine


def fed(array, affine, card, modality, spacing_mm, **changes):
    """The input of a network, and the preprocessed volume."""
    contract = card.contract
    preprocessing = Preprocessing(
        orientation=contract.orientation,
        spacing_mm=spacing_mm,
        modality=modality,
        intensity=(contract.intensity[modality],),
        patch_size=contract.patch_size,
        **{**contract.conventions, **changes},
    )
    volume = Volume(array[None], Geometry(array.shape, RAS_TO_LPS @ affine))
    prepared = preprocess_volume(volume, None, preprocessing)
    return normalise(prepared.image, preprocessing.intensity, prepared.statistics()), prepared


def monai(array, affine, spacing_mm, *transforms):
    image = MetaTensor(torch.from_numpy(array[None]), affine=torch.from_numpy(affine))
    for transform in (Orientation("RAS"), Spacing(spacing_mm, mode="bilinear"), *transforms):
        image = transform(image)
    return image


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (0.7, 0.91, 2.0)])
def test_ct_of_a_monai_model_is_what_its_owner_feeds(spacing_mm):
    array, affine = a_scan(-1000, 800)
    owner = monai(
        array, affine, spacing_mm, ScaleIntensityRange(-175, 250, 0.0, 1.0, clip=True)
    ).numpy()
    ours, _ = fed(array, affine, FSEFT, "ct", spacing_mm, crop="none")
    assert ours.shape == owner.shape
    np.testing.assert_allclose(ours, owner, atol=2e-4)


def test_the_crop_to_the_body_does_not_move_the_grid():
    array, affine = a_scan(-1000, 800, margin=5)
    owner = monai(
        array, affine, (1.5, 1.5, 1.5), ScaleIntensityRange(-175, 250, 0.0, 1.0, clip=True)
    )
    ours, prepared = fed(array, affine, FSEFT, "ct", (1.5, 1.5, 1.5))
    ours_to_owner = np.linalg.inv(owner.affine.numpy()) @ RAS_TO_LPS @ prepared.geometry.affine
    start = ours_to_owner[:3, 3]
    np.testing.assert_allclose(start, np.rint(start), atol=1e-6)
    i, j, k = (
        slice(int(first), int(first) + side)
        for first, side in zip(np.rint(start), ours.shape[1:], strict=True)
    )
    assert ours.size < owner.numel()
    np.testing.assert_allclose(ours, owner.numpy()[:, i, j, k], atol=2e-4)


def test_the_extremes_of_the_whole_body_bundle_are_those_after_resampling():
    array, affine = a_scan(-1000, 3000)
    transforms = (NormalizeIntensity(nonzero=True), ScaleIntensity(minv=-1.0, maxv=1.0))
    owner = monai(array, affine, (1.5, 1.5, 1.5), *transforms).numpy()
    ours, _ = fed(array, affine, WHOLE_BODY, "ct", (1.5, 1.5, 1.5))
    np.testing.assert_allclose(ours, owner, atol=2e-4)


def test_mr_of_dae_is_normalised_over_nonzero_voxels_and_air_stays_zero():
    array, affine = a_scan(0, 600, margin=6)
    spacing_mm = (0.83, 0.91, 2.3)
    owner = monai(array, affine, spacing_mm, NormalizeIntensity(nonzero=True)).numpy()
    ours, _ = fed(array, affine, DAE, "mr", spacing_mm, crop="none")
    np.testing.assert_allclose(ours, owner, atol=2e-4)
    assert (ours[:, :5] == 0).all()
