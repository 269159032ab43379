"""The fingerprint holds what NumPy finds in the files; labels that do not belong are refused."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.schemas import Case, ClassFingerprint, Dataset, Fingerprint
from fseft.volume.case_files import case_content
from fseft.volume.fingerprint import (
    combine_measurements,
    dataset_content,
    measure_case,
    permute_to_orientation,
)
from fseft.volume.geometry import Geometry, geometry_mismatch, reorient
from fseft.volume.image import write_labels, write_volume

SHAPE = (10, 12, 14)
NAMES = {"liver": 1, "spleen": 5}


def a_geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.5), origin_mm=(0, 0, 0), degrees=0.0):
    angle = np.radians(degrees)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(turn) * spacing_mm
    affine[:3, 3] = origin_mm
    return Geometry(shape, affine)


def an_image(seed=0, low=-1000, channels=1):
    image = np.random.default_rng(seed).normal(50, 40, (channels, *SHAPE)).astype(np.int16)
    image[:, 0] = low
    return image


def a_label(*values):
    label = np.zeros(SHAPE, np.uint8)
    for index, value in enumerate(values):
        label[3 * index + 1 : 3 * index + 3, 2:9, 4:8] = value
    return label


def write(folder, name, label=None, *, image=None, geometry=None, label_geometry=None):
    geometry = geometry or a_geometry()
    image_path, label_path = folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz"
    write_volume(image_path, an_image() if image is None else image, geometry)
    if label is not None:
        write_labels(label_path, label, label_geometry or geometry)
    return Case(name=name, images=(image_path,), label=None if label is None else label_path)


def fingerprint_of(cases, *, labels=NAMES, channels=("CT",)):
    dataset = Dataset(
        name="d", reader="nnunet", channels=channels, labels=labels, cases=tuple(cases)
    )
    body = not dataset.labelled
    measured = [measure_case(case, channels=channels, labels=labels, body=body) for case in cases]
    return combine_measurements(
        dataset, measured, {case.name: case_content(case) for case in cases}
    )


def test_sizes_are_in_mm_and_label_values_need_not_be_contiguous(tmp_path):
    found = fingerprint_of([write(tmp_path, "a", a_label(1, 5)), write(tmp_path, "b", a_label(5))])
    liver, spleen = found.classes["liver"], found.classes["spleen"]
    assert (liver.id, liver.cases, spleen.id, spleen.cases) == (1, 1, 5, 2)
    assert spleen.median_volume_mm3 == pytest.approx(2 * 7 * 4 * 3)
    assert found.cases[0].extents_mm["liver"] == pytest.approx((4, 7, 6))
    assert found.warnings == ()


def test_a_case_is_measured_as_stored(tmp_path):
    case = fingerprint_of([write(tmp_path, "a", a_label(1, 5))]).cases[0]
    assert case.shape == SHAPE
    assert case.shape_after_crop == (9, 12, 14)
    assert case.spacing_mm == pytest.approx((2, 1, 1.5))
    assert case.orientation == "LPS"


def test_foreground_intensities_weigh_cases_alike(tmp_path):
    labels, images = (a_label(1), a_label(1, 5)), (an_image(1), an_image(2))
    cases = [
        write(tmp_path, name, label, image=image)
        for name, label, image in zip("ab", labels, images, strict=True)
    ]
    (stats,) = fingerprint_of(cases).intensities
    inside = [image[0][label > 0] for image, label in zip(images, labels, strict=True)]
    mean = np.mean([values.mean() for values in inside])
    assert stats.mean == pytest.approx(mean)
    assert stats.std == pytest.approx(np.sqrt(np.mean([((v - mean) ** 2).mean() for v in inside])))
    assert (stats.minimum, stats.maximum) == (min(map(np.min, inside)), max(map(np.max, inside)))
    assert stats.percentile_00_5 <= stats.median <= stats.percentile_99_5


def test_every_channel_has_its_intensities(tmp_path):
    image = np.concatenate([an_image(), an_image() + 500])
    case = write(tmp_path, "a", a_label(1, 5), image=image)
    first, second = fingerprint_of([case], channels=("T1", "T2")).intensities
    assert second.mean == pytest.approx(first.mean + 500)


def test_unlabelled_cases_give_shape_and_spacing_only(tmp_path):
    alone = [write(tmp_path, "a", a_label(1, 5))]
    both = [*alone, write(tmp_path, "b", image=an_image() + 300)]
    found = fingerprint_of(both)
    assert found.intensities == fingerprint_of(alone).intensities
    assert len(found.cases) == 2


def test_a_dataset_without_labels_is_measured_in_the_body(tmp_path):
    found = fingerprint_of([write(tmp_path, "a")], labels={})
    assert found.intensities[0].mean == pytest.approx(an_image()[0, 1:].mean())
    assert found.classes == {}


def test_structures_without_names_are_called_after_their_values(tmp_path):
    cases = [write(tmp_path, "a", a_label(7)), write(tmp_path, "b", a_label(2, 7))]
    assert fingerprint_of(cases, labels={}).labels == {"class_2": 2, "class_7": 7}


def test_a_structure_in_no_case_is_reported(tmp_path):
    found = fingerprint_of([write(tmp_path, "a", a_label(1))])
    assert found.classes["spleen"].cases == 0
    assert any("spleen" in warning for warning in found.warnings)


def test_a_label_value_without_a_name_is_refused(tmp_path):
    with pytest.raises(FseftError, match=r"case a.*a_label.*label value 3 without a name"):
        fingerprint_of([write(tmp_path, "a", a_label(1, 3))])


def test_labels_that_are_all_empty_are_refused(tmp_path):
    with pytest.raises(FseftError, match="no case of d has a labelled voxel"):
        fingerprint_of([write(tmp_path, "a", a_label())])


@pytest.mark.parametrize(
    "other",
    [
        {"shape": (10, 12, 13)},
        {"spacing_mm": (2, 1, 1.6)},
        {"origin_mm": (0, 0, 30)},
        {"degrees": 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_label_on_another_grid_is_refused_with_what_differs(tmp_path, other):
    geometry = a_geometry(**other)
    label = np.ones(geometry.shape, np.uint8)
    case = write(tmp_path, "a", label, label_geometry=geometry)
    difference = geometry_mismatch(a_geometry(), geometry).split()[0]
    with pytest.raises(FseftError, match=rf"case a.*a_label.*a\.nii\.gz.*{difference}"):
        fingerprint_of([case])


@pytest.mark.parametrize("code", ["LAS", "SPL", "IRA"])
def test_a_label_stored_with_other_axes_is_turned_onto_its_image(tmp_path, code):
    label, geometry = reorient(a_label(1, 5), a_geometry(), code)
    turned = fingerprint_of([write(tmp_path, "a", label, label_geometry=geometry)])
    (tmp_path / "plain").mkdir()
    plain = fingerprint_of([write(tmp_path / "plain", "a", a_label(1, 5))])
    assert (turned.classes, turned.intensities) == (plain.classes, plain.intensities)


def test_a_label_that_is_flipped_in_its_header_only_is_refused(tmp_path):
    flipped = Geometry(SHAPE, a_geometry().affine @ np.diag([1, -1, 1, 1]))
    case = write(tmp_path, "a", a_label(1, 5), label_geometry=flipped)
    with pytest.raises(FseftError, match="not on the same grid: origin"):
        fingerprint_of([case])


def test_ct_without_air_may_have_lost_its_offset(tmp_path):
    cases = [write(tmp_path, "a", a_label(1, 5), image=an_image(low=0))]
    assert any("subtract 1024" in warning for warning in fingerprint_of(cases).warnings)
    assert fingerprint_of(cases, channels=("T1",)).warnings == ()


def test_the_key_changes_with_files_and_declaration_only(tmp_path):
    case = write(tmp_path, "a", a_label(1))
    dataset = Dataset(name="d", reader="nnunet", channels=("CT",), labels=NAMES, cases=(case,))
    key = dataset_content(dataset, {"a": case_content(case)})
    moved = dataset.model_copy(update={"cases": (case.model_copy(update={"name": "a"}),)})
    assert dataset_content(moved, {"a": case_content(case)}) == key
    assert (
        dataset_content(dataset.model_copy(update={"labels": {"x": 1}}), {"a": case_content(case)})
        != key
    )
    write(tmp_path, "a", a_label(5))
    assert dataset_content(dataset, {"a": case_content(case)}) != key


def test_the_document_survives_json(tmp_path):
    found = fingerprint_of([write(tmp_path, "a", a_label(1, 5))])
    assert Fingerprint.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("source", "expected"), [("RAS", (1, 2, 3)), ("SPL", (3, 2, 1)), ("AIL", (3, 1, 2))]
)
def test_lengths_follow_their_axes(source, expected):
    assert permute_to_orientation((1, 2, 3), source) == expected
    assert permute_to_orientation(permute_to_orientation((1, 2, 3), source), "RAS", source) == (
        1,
        2,
        3,
    )


def test_a_fingerprint_of_an_earlier_version_is_read():
    stored = {"id": 1, "cases": 2, "median_volume_mm3": 5.0, "minimum_volume_mm3": 4.0}
    assert ClassFingerprint.model_validate(stored) == ClassFingerprint(
        id=1, cases=2, median_volume_mm3=5.0
    )
