"""Augmentation depends on its seed alone, keeps shapes and labels, and uses no global state."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from fseft.builtin.augmentations.blank_boxes import BlankBoxes
from fseft.builtin.augmentations.brightness_gradient import BrightnessGradient
from fseft.builtin.augmentations.contrast import Contrast
from fseft.builtin.augmentations.gamma import Gamma
from fseft.builtin.augmentations.inverted_gamma import InvertedGamma
from fseft.errors import FseftError
from fseft.learn.sampling import augmentation
from fseft.learn.sampling.augmentation import NO_AUGMENTATION, load_augmentations
from fseft.learn.sampling.patch_sampler import Crops
from fseft.learn.training import components
from fseft.plugin import AugmentationSpec, hookimpl
from fseft.registration import Plugin
from fseft.registry import Registry, import_object, registry
from fseft.training_config import DEFAULT_AUGMENTATIONS

SIZE = (16, 20, 24)
ALL = load_augmentations(DEFAULT_AUGMENTATIONS)
NAMES = [spec.name for spec in registry().specs("augmentation", AugmentationSpec)]


@pytest.fixture
def crops():
    """Four crops with a margin, and two structures."""
    margins = np.multiply(2, ALL.margin(SIZE))
    shape = (4, 1, *np.add(SIZE, margins))
    labels = np.zeros(shape, np.int16)
    labels[:, :, 4:12, 4:12, 4:12] = 1
    labels[:, :, 12:, 12:, 12:] = 5
    images = np.random.default_rng(0).random(shape, np.float32)
    return Crops(images, labels)


def always(name):
    """A pipeline that applies an augmentation to each crop."""
    (step,) = load_augmentations([name]).steps
    always_step = augmentation.AugmentationStep(step.augmentation, 1.0, step.spatial)
    return augmentation.AugmentationPipeline((always_step,))


def same(a, b):
    return np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_seed_gives_the_same_result(crops, seed):
    pipeline = load_augmentations(DEFAULT_AUGMENTATIONS, mirror_axes=(0, 1, 2))
    first = pipeline.augment(crops, SIZE, seed)
    assert same(first, pipeline.augment(crops, SIZE, seed))


def test_seeds_differ(crops):
    images = set()
    for seed in range(8):
        result = ALL.augment(crops, SIZE, seed)
        images.add(result.images.tobytes())
    assert len(images) > 4


def test_threads_do_not_disturb_each_other(crops):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: ALL.augment(crops, SIZE, seed), range(24)))
    for seed, result in enumerate(results):
        assert same(result, ALL.augment(crops, SIZE, seed))


@pytest.mark.parametrize("name", NAMES)
def test_no_global_generator_is_used(crops, name, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a global generator was used")

    expected = always(name).augment(crops, SIZE, 3)
    for function in ("uniform", "random", "normal", "randint", "seed", "choice"):
        monkeypatch.setattr(f"numpy.random.{function}", refuse)
    for function in ("uniform", "random", "gauss", "randint", "seed", "choice"):
        monkeypatch.setattr(f"random.{function}", refuse)
    assert same(always(name).augment(crops, SIZE, 3), expected)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_types_and_label_values_stay(crops, name):
    result = always(name).augment(crops, SIZE, 0)
    assert result.images.shape == result.labels.shape == (4, 1, *SIZE)
    assert result.images.dtype == np.float32
    assert result.labels.dtype == np.int16
    assert set(np.unique(result.labels)) <= {0, 1, 5}
    assert np.isfinite(result.images).all()


@pytest.mark.parametrize("name", NAMES)
def test_drawn_parameters_can_be_applied_again(crops, name):
    pipeline = always(name)
    drawn = pipeline.draw(np.random.default_rng(0), (1, *SIZE))
    arrays = crops.images[0], crops.labels[0]
    stored = [array.copy() for array in arrays]
    first = pipeline.apply(drawn, *arrays, SIZE)
    again = pipeline.apply(pickle.loads(pickle.dumps(drawn)), *arrays, SIZE)  # noqa: S301
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(arrays[0], stored[0])
    np.testing.assert_array_equal(arrays[1], stored[1])


def test_crops_that_no_augmentation_applies_to_lose_their_margin_only(crops):
    pipeline = augmentation.AugmentationPipeline(
        (augmentation.AugmentationStep(ALL.steps[0].augmentation, 0.0, spatial=True),)
    )
    i, j, k = pipeline.margin(SIZE)
    expected = crops.images[:, :, i : i + SIZE[0], j : j + SIZE[1], k : k + SIZE[2]]
    np.testing.assert_array_equal(pipeline.augment(crops, SIZE, 0).images, expected)


def test_only_the_allowed_axes_are_flipped():
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32), (2, 1, *SIZE))
    crops = Crops(np.ascontiguousarray(ramp), np.zeros((2, 1, *SIZE), np.int16))

    def directions(axes):
        pipeline = load_augmentations((), mirror_axes=axes)
        flipped = set()
        for seed in range(20):
            row = pipeline.augment(crops, SIZE, seed).images[0, 0, 0, 0]
            flipped.add(bool(row[-1] < row[0]))
        return flipped

    assert directions((0, 1)) == {False}
    assert directions((2,)) == {False, True}


@pytest.mark.parametrize("seed", range(12))
def test_beyond_the_crop_image_and_label_are_continued_alike(crops, seed):
    everywhere = Crops(crops.images, np.ones_like(crops.labels))
    assert (ALL.augment(everywhere, SIZE, seed).labels == 1).all()


def test_rotation_and_scaling_share_one_interpolation(crops, monkeypatch):
    calls = []
    from batchgenerators.augmentations import utils

    interpolate = utils.interpolate_img
    monkeypatch.setattr(
        utils, "interpolate_img", lambda *a, **k: calls.append(k["order"]) or interpolate(*a, **k)
    )
    steps = (*always("rotation").steps, *always("scaling").steps)
    one_crop = Crops(crops.images[:1], crops.labels[:1])
    augmentation.AugmentationPipeline(steps).augment(one_crop, SIZE, 0)
    assert calls == [1, 0]


def test_contrast_and_gamma_are_those_of_batchgenerators(crops):
    from batchgenerators.augmentations.color_augmentations import augment_contrast, augment_gamma

    image, label = crops.images[0], crops.labels[0]
    stretched, _ = Contrast().apply((1.2,), image, label)
    expected = augment_contrast(image.copy(), lambda: 1.2)
    np.testing.assert_allclose(stretched, expected, atol=1e-6)
    powered, _ = Gamma().apply(1.4, image, label)
    expected = augment_gamma(image.copy(), (1.4, 1.4), retain_stats=True)
    np.testing.assert_allclose(powered, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_inverted_gamma_keeps_order_mean_and_spread_and_is_another_curve(crops, seed):
    image = crops.images[0]
    exponent = InvertedGamma().draw(np.random.default_rng(seed), image.shape)
    changed, _ = InvertedGamma().apply(exponent, image, crops.labels[0])
    assert (np.diff(changed.ravel()[np.argsort(image, None)]) >= -1e-6).all()
    assert changed.mean() == pytest.approx(image.mean(), abs=1e-4)
    assert changed.std() == pytest.approx(image.std(), rel=1e-3)
    assert not np.allclose(changed, Gamma().apply(exponent, image, crops.labels[0])[0], atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_a_brightness_gradient_is_smooth_and_bounded(crops, seed):
    gradient = BrightnessGradient()
    field = gradient.draw(np.random.default_rng(seed), (2, *SIZE))
    channels = np.stack([crops.images[0, 0], 10 * crops.images[0, 0]])
    changed, label = gradient.apply(field, channels, labels := crops.labels[0])
    change = (changed - channels) / channels.std(axis=(1, 2, 3), keepdims=True)
    assert 0 < np.abs(change).max() <= 1 + 1e-4
    assert all(np.abs(np.diff(change, axis=axis)).max() < 0.2 for axis in (1, 2, 3))
    np.testing.assert_allclose(change[0], change[1], atol=1e-4)
    assert label is labels


@pytest.mark.parametrize("seed", range(3))
def test_blank_boxes_hold_the_mean_and_leave_most_of_the_image(crops, seed):
    blanking = BlankBoxes()
    image, label = crops.images[0], crops.labels[0]
    boxes = blanking.draw(np.random.default_rng(seed), image.shape)
    changed, label_out = blanking.apply(boxes, image, label)
    blank = changed != image
    assert 0 < blank.mean() < 0.15
    np.testing.assert_allclose(changed[blank], image.mean(), rtol=1e-5)
    assert label_out is label


def test_small_shifts_alone_are_the_published_recipe(crops):
    pipeline = load_augmentations(["shift"])
    assert pipeline.margin(SIZE) == (0, 0, 0)
    without_margin = NO_AUGMENTATION.augment(crops, SIZE, 0)
    size = without_margin.images.shape[2:]
    shifted = [pipeline.augment(crops, size, seed).images for seed in range(50)]
    steps = np.array([(images - crops.images).reshape(4, -1) for images in shifted])
    assert np.ptp(steps, axis=2).max() < 1e-6
    sizes = np.abs(steps[:, :, 0])
    assert 0.05 < sizes.max() <= 0.1
    assert 0.1 < (sizes > 1e-6).mean() < 0.3


def test_names_are_checked():
    with pytest.raises(FseftError, match=r"unknown augmentation 'rotations'.*rotation"):
        load_augmentations(["rotations"])


class Inversion:
    """An augmentation of a plugin."""

    def draw(self, generator, shape):  # noqa: ARG002
        return ()

    def apply(self, parameters, image, label):  # noqa: ARG002
        return -image, label


class Stretch:
    """A spatial augmentation of a plugin."""

    def draw(self, generator, shape):  # noqa: ARG002
        return 2.0

    def apply(self, factor, coordinates):
        return coordinates / factor


def test_an_augmentation_has_settings(crops):
    size, settings = crops.images.shape[2:], {"augment.noise": {"standard_deviation": 0.0}}
    pipeline = load_augmentations(["noise"] * 30, settings=settings)
    np.testing.assert_array_equal(pipeline.augment(crops, size, 0).images, crops.images)


def test_a_plugin_adds_an_augmentation(crops, monkeypatch):
    specs = [
        AugmentationSpec(name="inversion", factory=f"{__name__}:Inversion", probability=1.0),
        AugmentationSpec(name="stretch", factory=f"{__name__}:Stretch", spatial=True),
    ]
    hooks = SimpleNamespace()
    hooks.fseft_augmentations = hookimpl(lambda: specs, specname="fseft_augmentations")
    builtin = Plugin("builtin", "fseft", "1", import_object("fseft.builtin:plugin"))
    installed = Registry([builtin, Plugin("mine", "mine", "1", hooks)])
    for module in (augmentation, components):
        monkeypatch.setattr(module, "registry", lambda: installed)
    pipeline = load_augmentations(["inversion"])
    size = crops.images.shape[2:]
    np.testing.assert_array_equal(pipeline.augment(crops, size, 0).images, -crops.images)
    assert load_augmentations(["rotation", "stretch"]).steps[-1].spatial
