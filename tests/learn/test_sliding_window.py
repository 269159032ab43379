"""Sliding-window inference: no seams, any volume size, the values of MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from fseft.learn import sliding_window
from fseft.learn.networks.heads import ParallelHeads, ResidualHead, SplitNetwork
from fseft.learn.sliding_window import (
    gaussian_weights,
    sliding_window_logits,
    sliding_window_slabs,
)

PATCH = (16, 16, 16)


class Pointwise(nn.Module):
    """Two classes, computed from each voxel alone."""

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
    logits = sliding_window_logits(Pointwise(), image, patch_size=PATCH, overlap=overlap)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, np.concatenate([image, 1 - image**2]), atol=1e-5)


def test_the_output_of_a_single_window_is_neither_weighted_nor_copied():
    outputs = []

    class Recorder(Pointwise):
        def forward(self, x):
            outputs.append(super().forward(x))
            return outputs[-1]

    slabs = [*sliding_window_slabs(Recorder(), an_image(PATCH), patch_size=PATCH)]
    (output,) = outputs
    np.testing.assert_array_equal(np.concatenate(slabs, axis=1), output[0].numpy())
    assert all(np.shares_memory(slab, output.numpy()) for slab in slabs)


def test_mirroring_does_not_change_a_pointwise_network():
    image = an_image((20, 24, 18))
    plain = sliding_window_logits(Pointwise(), image, patch_size=PATCH)
    flipped = sliding_window_logits(Pointwise(), image, patch_size=PATCH, mirror_axes=(0, 1, 2))
    np.testing.assert_allclose(flipped, plain, atol=1e-5)


def test_flips_are_averaged_over_the_given_axes_only():
    class Ramp(nn.Module):
        """Output that increases along the last axis, for any input."""

        def forward(self, x):
            return torch.linspace(-1, 1, 16).repeat(x.shape[0], 1, 16, 16, 1)

    image = an_image(PATCH)
    ramp = np.broadcast_to(np.linspace(-1, 1, 16), (1, *PATCH))
    np.testing.assert_allclose(
        sliding_window_logits(Ramp(), image, patch_size=PATCH, mirror_axes=(0, 1)), ramp, atol=1e-6
    )
    np.testing.assert_allclose(
        sliding_window_logits(Ramp(), image, patch_size=PATCH, mirror_axes=(2,)),
        0 * ramp,
        atol=1e-6,
    )


def test_the_number_of_windows_per_batch_does_not_matter():
    image = an_image((30, 20, 40))
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1)
    single, batched = (
        sliding_window_logits(network, image, patch_size=PATCH, windows_per_batch=count)
        for count in (1, 8)
    )
    np.testing.assert_allclose(single, batched, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 16), (7, 5, 3), (33, 17, 24), (48, 20, 9)])
@pytest.mark.parametrize("mirror_axes", [(), (0, 2)])
def test_progress_counts_every_window(shape, mirror_axes):
    calls = []
    sliding_window_logits(
        Pointwise(),
        an_image(shape),
        patch_size=PATCH,
        mirror_axes=mirror_axes,
        progress=lambda *n: calls.append(n),
    )
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1]


def a_network():
    """Three features that depend on the position in the window: zeros are padded."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1))


def a_head(classes, kernel_size=3):
    head = ResidualHead(nn.Conv3d(3, classes, 1), kernel_size, torch.Generator().manual_seed(0))
    nn.init.normal_(head.second.weight)
    return head


@pytest.mark.parametrize("windows", [(1, 1, 1), (1, 2, 3), (4, 2, 1)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_the_logits_equal_those_of_monai_where_its_windows_are_spaced_evenly(windows, overlap):
    shape = tuple(8 + int(8 * (1 - overlap)) * (count - 1) for count in windows)
    network, image = a_network(), an_image(shape)
    with torch.no_grad():
        expected = sliding_window_inference(
            torch.from_numpy(image)[None], (8, 8, 8), 2, network, overlap=overlap, mode="gaussian"
        )
    logits = sliding_window_logits(network, image, patch_size=(8, 8, 8), overlap=overlap)
    np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-5)


@given(
    side=st.integers(1, 200), patch=st.integers(1, 64), overlap=st.sampled_from([0, 0.25, 0.5, 0.9])
)
def test_windows_cover_every_voxel_with_about_the_same_overlap(side, patch, overlap):
    (starts,) = sliding_window._window_starts([side], [patch], overlap)
    assert starts[0] == 0
    assert starts[-1] + patch == max(side, patch)
    steps = np.diff(starts)
    if len(steps):
        assert steps.min() > 0
        assert steps.max() <= max(1, round(patch * (1 - overlap) + 0.5))
        assert steps.max() - steps.min() <= 1
    assert len(starts) == sliding_window.count_windows([side], [patch], overlap)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 60), *[st.integers(1, 12)] * 2),
    overlap=st.sampled_from([0.0, 0.5, 0.9]),
    kernel_size=st.sampled_from([1, 3, 5]),
    rows=st.integers(1, 8),
    small=st.sampled_from([0, 500, sliding_window.SMALL]),
)
def test_a_split_network_applies_its_head_to_the_features_of_the_whole_volume(
    shape, overlap, kernel_size, rows, small
):
    body, image = a_network(), an_image(shape)
    head = ParallelHeads([a_head(2, kernel_size), nn.Conv3d(3, 2, 1), a_head(5)])
    options = {"patch_size": (8, 8, 8), "overlap": overlap}
    filled = np.pad(image, [(0, 0), *((0, max(0, 8 - side)) for side in shape)], mode="edge")
    with torch.no_grad():
        expected = head(torch.from_numpy(sliding_window_logits(body, filled, **options))[None])[
            0
        ].numpy()
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # in pieces that are thinner than what the head sees, or all at once
        patch.setattr(sliding_window, "ROWS", rows)
        patch.setattr(sliding_window, "SMALL", small)
        logits = sliding_window_logits(SplitNetwork(body, head), image, **options)
    np.testing.assert_allclose(logits, expected[:, : shape[0], : shape[1], : shape[2]], atol=1e-4)


@pytest.mark.parametrize("mirror_axes", [(), (0, 1, 2)])
def test_a_split_network_with_a_pointwise_head_equals_the_whole_network(mirror_axes):
    body, head, image = a_network(), nn.Conv3d(3, 4, 1), an_image((19, 9, 12))
    options = {"patch_size": (8, 8, 8), "mirror_axes": mirror_axes}
    whole = sliding_window_logits(nn.Sequential(body, head), image, **options)
    np.testing.assert_allclose(
        sliding_window_logits(SplitNetwork(body, head), image, **options), whole, atol=1e-5
    )


@pytest.mark.parametrize("patch", [(8, 12, 5), (64, 48, 32)])
def test_windows_have_the_weights_of_monai(patch):
    from monai.data.utils import compute_importance_map

    expected = compute_importance_map(patch, mode="gaussian")
    np.testing.assert_allclose(gaussian_weights(patch), expected, rtol=1e-6)
