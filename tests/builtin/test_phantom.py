"""The phantoms: plausible torsos, the same ones for the same seed, in a layout that others read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from fseft.builtin.phantom.anatomy import STRUCTURES
from fseft.builtin.phantom.dataset import ORIENTATIONS, stored, write_dataset
from fseft.builtin.phantom.render import Phantom, make_phantom
from fseft.errors import FseftError
from fseft.volume.geometry import geometry_mismatch, reorient
from fseft.volume.image import read_labels, read_volume

WHOLE = {
    "shape": (80, 56, 84),
    "spacing_mm": (5.0, 5.5, 6.0),
}  # large enough for the organs to be inside
SMALL = {"shape": (40, 28, 40), "spacing_mm": (9.0, 9.0, 9.0)}
LITRES = {
    "liver": (0.9, 2.0),
    "spleen": (0.1, 0.35),
    "kidney_right": (0.11, 0.21),
    "kidney_left": (0.11, 0.21),
    "pancreas": (0.06, 0.12),
    "gallbladder": (0.015, 0.06),
    "heart": (0.35, 0.8),
    "lung_right": (1.2, 3.0),
    "lung_left": (1.0, 2.8),
}


def phantom(seed: int, **how) -> Phantom:
    return make_phantom(np.random.default_rng(seed), **how)


def mask(phantom: Phantom, structure: str) -> np.ndarray:
    return phantom.labels == STRUCTURES.index(structure) + 1


def centre_mm(phantom: Phantom, structure: str) -> np.ndarray:
    """The mean place along right, anterior and superior."""
    return np.argwhere(mask(phantom, structure)).mean(0) * phantom.spacing_mm


@pytest.fixture(scope="module")
def ten() -> list[Phantom]:
    return [phantom(seed, **WHOLE) for seed in range(10)]


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    one, same, other = phantom(7, **SMALL), phantom(7, **SMALL), phantom(8, **SMALL)
    assert one.image.tobytes() == same.image.tobytes()
    assert one.labels.tobytes() == same.labels.tobytes()
    assert not np.array_equal(one.labels, other.labels)


def test_a_phantom_is_of_the_shape_and_types_that_it_says(ten):
    for each in ten:
        assert each.image.shape == each.labels.shape == WHOLE["shape"]
        assert (each.image.dtype, each.labels.dtype) == (np.int16, np.uint8)
        assert each.spacing_mm == WHOLE["spacing_mm"]
        assert each.orientation == "RAS"


def test_the_default_grid_is_small_and_frames_the_person():
    each = phantom(1)
    assert all(
        0.7 * want <= got <= want for got, want in zip(each.image.shape, (88, 64, 88), strict=True)
    )
    assert all(2.5 <= spacing <= 7.0 for spacing in each.spacing_mm)


def test_every_structure_is_seen_in_most_phantoms(ten):
    for structure in STRUCTURES:
        assert sum(mask(each, structure).any() for each in ten) >= 8, structure


@pytest.mark.parametrize("structure", LITRES)
def test_organs_have_the_size_of_organs(ten, structure):
    low, high = LITRES[structure]
    litres = [mask(each, structure).sum() * np.prod(each.spacing_mm) / 1e6 for each in ten]
    assert low <= np.median(litres) <= high


def test_the_aorta_is_two_to_three_and_a_half_centimetres_wide(ten):
    for each in ten:
        areas = mask(each, "aorta").sum((0, 1)) * each.spacing_mm[0] * each.spacing_mm[1]
        assert 18 <= np.sqrt(np.median(areas[areas > 0]) * 4 / np.pi) <= 38


@pytest.mark.parametrize(
    "structure", ["liver", "spleen", "heart", "kidney_left", "stomach", "pancreas"]
)
def test_an_organ_is_one_piece(ten, structure):
    largest = []
    for each in ten:
        pieces, _ = ndimage.label(mask(each, structure), np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        largest += [sizes.max() / sizes.sum()] * (sizes.size > 0)
    assert np.mean(largest) > 0.97


def test_organs_lie_where_they_lie_in_people(ten):
    for each in ten:
        right, anterior, superior = 0, 1, 2
        at = {
            structure: centre_mm(each, structure)
            for structure in STRUCTURES
            if mask(each, structure).any()
        }
        assert at["liver"][right] > at["vertebrae"][right] > at["spleen"][right]
        assert at["lung_right"][right] > at["heart"][right] > at["lung_left"][right]
        assert at["kidney_right"][right] > at["aorta"][right] > at["kidney_left"][right]
        assert at["stomach"][right] < at["liver"][right]
        assert at["aorta"][anterior] > at["vertebrae"][anterior]
        assert at["stomach"][anterior] > at["kidney_left"][anterior]
        assert at["heart"][superior] > at["liver"][superior] > at["kidney_right"][superior]


def test_ct_is_in_hounsfield_units(ten):
    def typical(structure: str) -> float:
        return float(np.median([np.median(each.image[mask(each, structure)]) for each in ten]))

    assert -920 < typical("lung_right") < -780
    assert 40 < typical("liver") < 140
    assert typical("ribs") > 150
    assert all(each.image.min() >= -1024 for each in ten)


def test_mr_has_the_anatomy_of_ct_and_other_intensities():
    ct, mr, again = (phantom(3, **SMALL, modality=modality) for modality in ("ct", "mr", "mr"))
    np.testing.assert_array_equal(ct.labels, mr.labels)
    np.testing.assert_array_equal(mr.image, again.image)
    assert mr.image.min() >= 0
    means = [
        np.median(phantom(s, **SMALL, modality="mr").image[mask(ct, "liver")]) for s in range(4)
    ]
    assert np.std(means) > 0.1 * np.mean(means)


def test_a_domain_shift_changes_the_image_and_not_the_anatomy():
    near, far = phantom(5, **SMALL), phantom(5, **SMALL, shift=1.0)
    np.testing.assert_array_equal(near.labels, far.labels)
    liver = mask(near, "liver")
    assert far.image[liver].std() > 1.5 * near.image[liver].std()


def test_partial_labels_leave_the_image_and_the_annotated_structures_as_they_are():
    each = phantom(2, **SMALL)
    image, labels, _ = stored(each, STRUCTURES, "RAS")
    same, partial, _ = stored(each, ("spleen", "liver"), "RAS")
    np.testing.assert_array_equal(image, same)
    np.testing.assert_array_equal(labels, each.labels)
    np.testing.assert_array_equal(partial == 1, mask(each, "spleen"))
    np.testing.assert_array_equal(partial == 2, mask(each, "liver"))
    assert partial.max() == 2


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_stored_phantom_states_its_orientation(orientation):
    each = phantom(2, **SMALL)
    image, _, geometry = stored(each, STRUCTURES, orientation)
    assert geometry.orientation == orientation
    back, grid = reorient(image, geometry, "RAS")
    np.testing.assert_array_equal(back, each.image)
    np.testing.assert_allclose(grid.spacing_mm, each.spacing_mm)
    np.testing.assert_allclose(grid.affine @ [19.5, 13.5, 19.5, 1], [0, 0, 0, 1], atol=1e-9)


def test_a_dataset_is_what_nnunet_reads(tmp_path):
    seen = []
    write_dataset(
        tmp_path,
        cases=3,
        test_cases=1,
        structures=["liver", "aorta"],
        name="Two",
        progress=lambda done, total: seen.append((done, total)),
        **SMALL,
    )
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "name": "Two",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "aorta": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for part, numbers in (("Tr", (0, 1, 2)), ("Ts", (3,))):
        for number in numbers:
            image = read_volume(tmp_path / f"images{part}" / f"case_{number:03d}_0000.nii.gz")
            labels = read_labels(tmp_path / f"labels{part}" / f"case_{number:03d}.nii.gz")
            assert geometry_mismatch(image.geometry, labels.geometry) is None
            assert image.array.dtype == np.int16
            assert set(np.unique(labels.array)) == {0, 1, 2}
            right = reorient(labels.array[0], labels.geometry, "RAS")[0]
            assert np.argwhere(right == 1).mean(0)[0] > np.argwhere(right == 2).mean(0)[0]


def test_the_same_dataset_is_written_twice_whatever_its_size(tmp_path):
    for folder, cases in (("a", 1), ("b", 2)):
        write_dataset(tmp_path / folder, cases=cases, seed=4, **SMALL)
    for name in ("imagesTr/case_000_0000.nii.gz", "labelsTr/case_000.nii.gz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 0}, "0 training"),
        ({"cases": 1, "structures": ["livr"]}, "Did you mean liver"),
        ({"cases": 1, "modality": "pet"}, "'pet'"),
        ({"cases": 1, "shift": -1.0}, "-1.0"),
        ({"cases": 1, "shape": (2, 40, 40)}, "at least 8"),
        ({"cases": 1, "spacing_mm": (3.0, 3.0)}, "three numbers"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(FseftError, match=message):
        write_dataset(tmp_path, **arguments)
