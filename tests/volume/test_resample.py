"""Resampling keeps the field of view, equals scikit-image, and invents no label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from fseft.errors import FseftError
from fseft.volume.decision import decide
from fseft.volume.resample import (
    interpolation_matrix,
    resample_image,
    resample_labels,
    resample_scores,
)
from fseft.volume.streamed_classes import StreamedClasses

shapes = st.tuples(*[st.integers(1, 19)] * 3)
seeds = st.integers(0, 1 << 16)
few = settings(max_examples=40, deadline=None)


def argmax_on_grid(scores, shape, rows=1000, *, with_scores=False):
    """The class of highest score, of scores that arrive in slabs of that many rows."""
    result = np.zeros(shape, np.uint16)
    argmax = StreamedClasses(scores.shape[1:], shape, with_scores=with_scores)
    for start in range(0, scores.shape[1], rows):
        for region, strongest, part in argmax.add(scores[:, start : start + rows]):
            assert (part is not None) == with_scores
            assert part is None or part.shape == (len(scores), *strongest.shape)
            result[region] = strongest
    return result


def oracle(volume, shape, order):
    return resize(
        volume.astype(np.float64),
        shape,
        order,
        mode="edge",
        anti_aliasing=False,
        preserve_range=True,
    )


@few
@given(old=st.integers(1, 90), new=st.integers(1, 120), order=st.sampled_from([1, 3]))
def test_weights_of_a_voxel_sum_to_one(old, new, order):
    weights = interpolation_matrix(old, new, order)
    assert weights.shape == (new, old)
    assert weights.dtype == np.float32
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_linear_rows_have_two_weights_and_are_shared_read_only():
    weights = interpolation_matrix(50, 80, 1)
    assert (weights != 0).sum(axis=1).max() == 2
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 2


@few
@given(old=shapes, new=shapes, order=st.sampled_from([1, 3]), seed=seeds)
def test_image_equals_scikit_image(old, new, order, seed):
    image = np.random.default_rng(seed).normal(size=(2, *old)).astype(np.float32)
    expected = np.stack([oracle(channel, new, order) for channel in image])
    assert np.abs(resample_image(image, new, order) - expected).max() <= 1e-5 * max(
        np.ptp(image), 1
    )


@pytest.mark.parametrize("new", [(70, 33, 111), (40, 90, 64), (97, 100, 20)])
def test_image_of_hounsfield_units_equals_scikit_image_over_many_bands(new):
    image = np.random.default_rng(0).integers(-1024, 3000, (1, 64, 90, 70)).astype(np.int16)
    result = resample_image(image, new)
    assert result.dtype == np.float32
    assert np.abs(result[0] - oracle(image[0], new, 3)).max() < 1e-5 * 4024


@few
@given(old=shapes, new=shapes, order=st.sampled_from([1, 3]), value=st.integers(-2000, 3000))
def test_constants_are_preserved_exactly(old, new, order, value):
    assert (resample_image(np.full((1, *old), value, np.int16), new, order) == value).all()


@few
@given(shape=shapes, seed=seeds)
def test_an_unchanged_shape_changes_nothing(shape, seed):
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(2, *shape)).astype(np.float32)
    labels = generator.integers(0, 9, shape).astype(np.uint8)
    assert np.array_equal(resample_image(image, shape), image)
    assert np.array_equal(resample_labels(labels, shape), labels)
    assert np.array_equal(argmax_on_grid(image, shape), image.argmax(axis=0))


@pytest.mark.parametrize("order", [1, 3])
def test_a_linear_field_stays_where_it_was_in_the_world(order):
    old, new = (30, 41, 50), (47, 41, 33)

    def field(shape):
        centres = [(np.arange(n) + 0.5) / n for n in shape]
        x, y, z = np.meshgrid(*centres, indexing="ij")
        return 3 * x - 2 * y + z

    inner = tuple(slice(n // 4, n - n // 4) for n in new)
    result = resample_image(field(old)[None], new, order)[0]
    assert np.abs(result - field(new))[inner].max() < (1e-4 if order == 3 else 1e-5)


def blobs(seed, shape, values):
    """Labels in blocks, with rare small structures."""
    generator = np.random.default_rng(seed)
    coarse = generator.choice([0, 0, 0, *values], size=tuple(-(-n // 4) for n in shape))
    labels = np.kron(coarse, np.ones((4, 4, 4), int))[tuple(slice(n) for n in shape)]
    labels[tuple(n // 2 for n in shape)] = values[-1]
    return labels.astype(np.uint16)


@few
@given(old=shapes, new=shapes, seed=seeds)
def test_labels_equal_scikit_image_wherever_one_label_holds_the_majority(old, new, seed):
    labels = blobs(seed, old, [1, 4, 300])
    result = resample_labels(labels, new)
    for value in (0, 1, 4, 300):
        share = oracle(labels == value, new, 1)
        assert (result[share > 0.5 + 1e-5] == value).all()
        assert (share[result == value] > 0.125).all()


@few
@given(old=shapes, new=shapes, seed=seeds)
def test_labels_outside_the_set_never_appear(old, new, seed):
    labels = blobs(seed, old, [2, 7, 65535])
    result = resample_labels(labels, new)
    assert result.dtype == labels.dtype
    assert result.shape == new
    assert set(np.unique(result)) <= set(np.unique(labels))


def test_a_volume_without_background_gains_none():
    labels = np.random.default_rng(0).integers(3, 6, (13, 17, 9)).astype(np.uint8)
    assert resample_labels(labels, (20, 11, 9)).min() >= 3


def test_ties_go_to_the_larger_label():
    labels = np.array([0, 1, 2, 5], np.uint8).reshape(4, 1, 1)
    assert resample_labels(labels, (2, 1, 1)).ravel().tolist() == [1, 5]


@pytest.mark.parametrize("bad", [np.zeros((2, 2, 2)), np.full((2, 2, 2), -1)])
def test_arrays_that_are_not_labels_are_refused(bad):
    with pytest.raises(FseftError, match="abels"):
        resample_labels(bad, (3, 3, 3))


@few
@given(old=shapes, new=shapes, slab=st.integers(1, 9), seed=seeds)
def test_streamed_scores_equal_unstreamed_ones(old, new, slab, seed):
    scores = np.random.default_rng(seed).normal(size=(3, *old)).astype(np.float32)
    whole = resample_image(scores, new, order=1)
    stop = 0
    for planes, part in resample_scores(scores, new, slab=slab):
        assert planes[0].start == stop
        stop = planes[0].stop
        assert stop - planes[0].start <= slab
        assert np.allclose(part, whole[(slice(None), *planes)], atol=1e-5)
    assert stop == new[0]


@few
@given(old=shapes, new=shapes, seed=seeds, data=st.data())
def test_a_region_of_the_scores_is_a_part_of_them(old, new, seed, data):
    scores = np.random.default_rng(seed).normal(size=(3, *old)).astype(np.float32)
    starts = [data.draw(st.integers(0, side - 1)) for side in new]
    region = tuple(
        slice(start, data.draw(st.integers(start + 1, side)))
        for start, side in zip(starts, new, strict=True)
    )
    parts = [part for _, part in resample_scores(scores, new, region=region, slab=3)]
    whole = resample_image(scores, new, order=1)
    assert np.allclose(np.concatenate(parts, axis=1), whole[(slice(None), *region)], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("new", [(25, 20, 31), (11, 14, 9)])
@pytest.mark.parametrize("rows", [1, 4, 11])
@pytest.mark.parametrize("with_scores", [False, True])
def test_argmax_on_the_grid_is_the_argmax_of_resampled_scores_and_leaves_them_as_they_were(
    dtype, new, rows, with_scores
):
    scores = np.random.default_rng(0).normal(size=(5, 11, 14, 9)).astype(dtype)
    before = scores.copy()
    result = argmax_on_grid(scores, new, rows, with_scores=with_scores)
    assert np.mean(result == resample_image(scores, new, order=1).argmax(axis=0)) > 0.999
    assert np.array_equal(scores, before)


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (300, np.uint16)])
def test_more_than_256_classes_need_two_bytes(classes, dtype):
    scores = np.zeros((classes, 2, 2, 2), np.float32)
    scores[-1] = 1
    ((_, strongest, _),) = StreamedClasses((2, 2, 2), (3, 3, 3)).add(scores)
    assert strongest.dtype == dtype
    assert (strongest == classes - 1).all()


@few
@given(old=shapes, new=shapes, rows=st.integers(1, 19), seed=seeds)
def test_only_where_a_class_may_beat_the_first_is_anything_resampled(old, new, rows, seed):
    scores = np.zeros((3, *old), np.float32)
    scores[1:] = -1
    assert not list(StreamedClasses(old, new).add(scores))
    place = tuple(np.random.default_rng(seed).integers(0, old))
    scores[(2, *place)] = 4
    assert np.array_equal(
        argmax_on_grid(scores, new, rows),
        resample_image(scores, new, order=1).argmax(axis=0),
    )


@few
@given(old=shapes, new=shapes, rows=st.integers(1, 19), seed=seeds)
def test_slabs_of_any_thickness_give_the_argmax_of_the_whole(old, new, rows, seed):
    scores = np.random.default_rng(seed).normal(size=(4, *old)).astype(np.float32)
    whole = resample_image(scores, new, order=1)
    found = argmax_on_grid(scores, new, rows)
    best = np.take_along_axis(whole, found[None].astype(np.intp), axis=0)[0]
    assert np.allclose(best, whole.max(axis=0), atol=1e-5)  # except ties


@few
@given(old=shapes, new=shapes, rows=st.integers(1, 19), seed=seeds)
def test_classes_that_overlap_are_written_in_their_order(old, new, rows, seed):
    scores = np.random.default_rng(seed).integers(-9, 9, (4, *old)).astype(np.float32)
    order = (2, 1, 3)
    found = np.zeros(new, np.uint8)
    classes = StreamedClasses(old, new, order)
    for start in range(0, old[0], rows):
        for region, part, _ in classes.add(scores[:, start : start + rows]):
            found[region] = part
    whole = resample_image(scores, new, order=1)
    is_clear = (np.abs(whole[1:] - whole[0]) > 1e-4).all(axis=0)
    np.testing.assert_array_equal(found[is_clear], decide(whole, order)[is_clear])
