"""Sliding windows: the seams are invisible, and every size of volume works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fseft.learn.infer import segment

PATCH = (16, 16, 16)


class Pointwise(nn.Module):
    """Two classes; each voxel for itself."""

    def forward(self, x):
        assert x.shape[2:] == PATCH
        assert not self.training
        return torch.cat([x, 1 - x.square()], 1)


def an_image(shape):
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 16, 16), (7, 5, 3), (1, 40, 16), (33, 17, 24), (48, 20, 9)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_pointwise_network_is_reproduced_whatever_the_size(shape, overlap):
    image = an_image(shape)
    logits = segment(Pointwise(), image, patch_size=PATCH, overlap=overlap)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, np.concatenate([image, 1 - image**2]), atol=1e-5)


def test_flipping_changes_nothing_for_a_network_that_does_not_mind():
    image = an_image((20, 24, 18))
    plain = segment(Pointwise(), image, patch_size=PATCH)
    flipped = segment(Pointwise(), image, patch_size=PATCH, mirror_axes=(0, 1, 2))
    np.testing.assert_allclose(flipped, plain, atol=1e-5)


def test_flips_are_averaged_over_the_given_axes_only():
    class Ramp(nn.Module):
        """Grows along the last axis, whatever it sees."""

        def forward(self, x):
            return torch.linspace(-1, 1, 16).repeat(x.shape[0], 1, 16, 16, 1)

    image = an_image(PATCH)
    ramp = np.broadcast_to(np.linspace(-1, 1, 16), (1, *PATCH))
    np.testing.assert_allclose(segment(Ramp(), image, patch_size=PATCH, mirror_axes=(0, 1)), ramp, atol=1e-6)
    np.testing.assert_allclose(segment(Ramp(), image, patch_size=PATCH, mirror_axes=(2,)), 0 * ramp, atol=1e-6)


def test_the_number_of_windows_per_batch_does_not_matter():
    image = an_image((30, 20, 40))
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1)
    one, many = (segment(network, image, patch_size=PATCH, windows_per_batch=count) for count in (1, 8))
    np.testing.assert_allclose(one, many, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 16), (7, 5, 3), (33, 17, 24), (48, 20, 9)])
@pytest.mark.parametrize("mirror_axes", [(), (0, 2)])
def test_progress_counts_every_window(shape, mirror_axes):
    told = []
    segment(Pointwise(), an_image(shape), patch_size=PATCH, mirror_axes=mirror_axes, progress=lambda *n: told.append(n))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
