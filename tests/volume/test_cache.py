"""A cached case comes back as it was, whole or in patches, or not at all."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.errors import FseftError
from fseft.volume.cache import has_case, open_case, write_case

SHAPE = (40, 33, 50)


def a_label(shape=SHAPE, dtype=np.uint8):
    label = np.zeros(shape, dtype)
    label[5:30, 3:30, 10:45] = 1
    label[10:12, 20:23, 7] = 3
    return label


def an_image(dtype=np.int16, channels=2):
    return np.random.default_rng(0).normal(0, 50, (channels, *SHAPE)).astype(dtype)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    write_case(root, "a", an_image(), a_label(), {"spacing": [1.5, 1, 1]}, classes=[1, 2, 3])
    return open_case(root, "a")


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int32, np.float16, np.float32])
@pytest.mark.parametrize("label_dtype", [np.uint8, np.uint16])
def test_arrays_come_back_as_they_were(tmp_path, dtype, label_dtype):
    image, label = an_image(dtype), a_label(dtype=label_dtype)
    write_case(tmp_path, "a", image, label, {"n": 1}, classes=[1])
    case = open_case(tmp_path, "a")
    for read, written in zip(case.read_all(), (image, label), strict=True):
        assert read.dtype == written.dtype
        assert np.array_equal(read, written)
    assert (case.channels, case.shape, case.meta) == (2, SHAPE, {"n": 1})


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 200, 2), (97, 5, 33)])
def test_any_shape_and_memory_layout_is_kept(tmp_path, shape):
    image = np.asfortranarray(
        np.random.default_rng(0).integers(0, 99, (1, *shape)).astype(np.int16)
    )
    write_case(tmp_path, "a", image, None, {}, classes=[])
    assert np.array_equal(open_case(tmp_path, "a").read_all()[0], image)


triples = st.tuples(*[st.integers(-60, 90)] * 3)
sizes = st.tuples(*[st.integers(1, 70)] * 3)


@settings(deadline=None, max_examples=50)
@given(start=triples, size=sizes, pad=st.integers(-1024, 100))
def test_a_patch_is_the_slice_padded_where_it_leaves_the_array(case, start, size, pad):
    voxels = np.ix_(*[np.arange(s, s + n) for s, n in zip(start, size, strict=True)])
    inside = np.ones(size, bool)
    for index, n in zip(voxels, SHAPE, strict=True):
        inside = inside & (index >= 0) & (index < n)
    nearest = tuple(np.clip(index, 0, n - 1) for index, n in zip(voxels, SHAPE, strict=True))
    image, label = an_image()[(slice(None), *nearest)], a_label()[nearest]
    assert np.array_equal(case.read_image(start, size, pad=pad), np.where(inside, image, pad))
    assert np.array_equal(case.read_label(start, size), np.where(inside, label, 0))


def test_patches_belong_to_the_caller(case):
    patch = case.read_image((0, 0, 0), (5, 5, 5))
    patch[:] = 7
    assert not (case.read_image((0, 0, 0), (5, 5, 5)) == 7).all()


def test_locations_are_distinct_members_of_their_class(case):
    assert case.classes == (1, 3)
    for value, number in [(1, 10_000), (3, 6)]:
        places = case.locations(value)
        assert places.shape == (number, 3)
        assert places.dtype == np.int16
        assert (a_label()[tuple(places.T)] == value).all()
        assert len(np.unique(places, axis=0)) == number


def test_a_class_that_does_not_occur_has_no_locations(case):
    assert case.locations(2).shape == (0, 3)


def test_locations_depend_on_the_seed_alone(tmp_path):
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        write_case(tmp_path, name, an_image(), a_label(), {}, classes=[1], seed=seed)
    a, b, c = (open_case(tmp_path, name).locations(1) for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_locations_reach_every_part_of_a_large_class(case):
    places = case.locations(1)
    assert places.min(axis=0).tolist() == [5, 3, 10]
    assert places.max(axis=0).tolist() == [29, 29, 44]


def test_a_case_without_label_is_refused(tmp_path):
    write_case(tmp_path, "a", an_image(), None, {}, classes=[1])
    case = open_case(tmp_path, "a")
    assert not case.labelled
    assert case.classes == ()
    assert case.read_all()[1] is None
    with pytest.raises(FseftError, match="case a: has no label"):
        case.read_label((0, 0, 0), (1, 1, 1))


def test_writing_again_replaces_the_case(tmp_path):
    write_case(tmp_path, "a", an_image(), a_label(), {"n": 1}, classes=[1])
    write_case(tmp_path, "a", an_image(np.float32), None, {"n": 2}, classes=[1])
    case = open_case(tmp_path, "a")
    assert case.meta == {"n": 2}
    assert not case.labelled


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_case(tmp_path, "a", an_image(), a_label(), {"not": object()}, classes=[1])
    assert list(tmp_path.iterdir()) == []
    assert not has_case(tmp_path, "a")


def test_a_writer_that_fails_keeps_what_was_there(tmp_path):
    write_case(tmp_path, "a", an_image(), None, {"n": 1}, classes=[])
    with pytest.raises(TypeError):
        write_case(tmp_path, "a", an_image(), None, {"n": object()}, classes=[])
    assert open_case(tmp_path, "a").meta == {"n": 1}


@pytest.mark.parametrize(
    ("image", "label", "cause"),
    [
        (np.zeros((3, 3, 3), np.int16), None, "channel, i, j, k"),
        (np.zeros((1, 0, 3, 3), np.int16), None, "channel, i, j, k"),
        (np.zeros((1, 3, 3, 3)), None, "float64"),
        (np.zeros((1, 3, 3, 3), np.int16), np.zeros((3, 3, 3), np.int64), "int64"),
        (np.zeros((1, 3, 3, 3), np.int16), np.zeros((3, 3, 4), np.uint8), r"\(3, 3, 4\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, image, label, cause):
    with pytest.raises(FseftError, match=cause):
        write_case(tmp_path, "a", image, label, {}, classes=[])
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_any_length_is_cached(tmp_path):
    names = ["肝" * 90 + letter for letter in "ab"]
    for content, name in enumerate(names):
        write_case(tmp_path, name, an_image() + content, None, {}, classes=[], content=str(content))
    for content, name in enumerate(names):
        image, _ = open_case(tmp_path, name, str(content)).read_all()
        assert np.array_equal(image, an_image() + content)


def test_a_file_that_is_missing_or_too_many_is_damage(tmp_path):
    write_case(tmp_path, "a", an_image(), a_label(), {}, classes=[1])
    assert has_case(tmp_path, "a")
    (tmp_path / "a" / "label.b2nd").unlink()
    assert not has_case(tmp_path, "a")


def test_an_unknown_case_is_refused(tmp_path):
    with pytest.raises(FseftError, match=r"case b, .*is not in the cache"):
        open_case(tmp_path, "b")


@pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "locations.npz", "case.json"])
@pytest.mark.parametrize("left", [0, 0.5, None])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, name, left):
    write_case(tmp_path, "a", an_image(), a_label(), {"n": 1}, classes=[1])
    path = tmp_path / "a" / name
    case = open_case(tmp_path, "a")
    if left is None:
        path.write_bytes(b"\xff" * 3000)
    else:
        path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(FseftError, match=r"the cache is damaged .* Run again") as caught:
        case.read_all(), case.meta, case.locations(1)
    assert (caught.value.case, caught.value.file) == ("a", path)


def _mean(case):
    return float(case.read_image((0, 0, 0), case.shape).mean()), len(case.locations(1))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_open_case_serves_worker_processes(case, method):
    expected = _mean(case)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(_mean, [case] * 4)) == [expected] * 4


def test_an_open_case_pickles_without_its_files(case):
    case.read_all()
    data = pickle.dumps(case)
    assert len(data) < 500
    assert pickle.loads(data) == case  # noqa: S301
