"""The built-in formats of segmentations."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from fseft.builtin.formats.masks import file_names
from fseft.builtin.formats.masks import write as write_masks
from fseft.builtin.formats.seg_nrrd import write as write_seg_nrrd
from fseft.testing import a_segmentation, format_checks
from fseft.volume.geometry import geometry_mismatch
from fseft.volume.image import read_labels


@pytest.mark.parametrize(
    "check", [check for name in ("nifti", "masks", "seg.nrrd") for check in format_checks(name)]
)
def test_the_contract(check):
    check()


def test_each_mask_is_a_structure_on_the_grid_of_the_scan(tmp_path):
    segmentation = a_segmentation()
    write_masks(segmentation, tmp_path / "segmentations")
    names = file_names(segmentation.structures)
    assert {path.name for path in (tmp_path / "segmentations").iterdir()} == set(names.values())
    for name, file in names.items():
        mask = read_labels(tmp_path / "segmentations" / file)
        np.testing.assert_array_equal(mask.array[0], segmentation.mask(name))
        assert geometry_mismatch(mask.geometry, segmentation.geometry) is None
    assert nib.load(tmp_path / "segmentations" / "liver.nii.gz").shape == (10, 8, 6)


@pytest.mark.parametrize("structure", ["a/b", "..", 'CON: "x"?', "x" * 300, "\n", "肝臓" * 90])
def test_file_names_are_valid_on_all_systems_and_unique(structure, tmp_path):
    names = file_names([structure, structure.upper() + " ", "liver", "Liver"])
    assert len({name.lower() for name in names.values()}) == len(names)
    for name in names.values():
        (tmp_path / name).touch()
        assert (tmp_path / name).parent.samefile(tmp_path)
        assert not set(name) & set('<>:"/\\|?*\n')


def test_slicer_reads_names_colours_and_codes(tmp_path):
    """Read by SimpleITK alone; the fields are those that Slicer's own reader parses."""
    segmentation = a_segmentation()
    write_seg_nrrd(segmentation, tmp_path / "x.seg.nrrd")
    image = SimpleITK.ReadImage(str(tmp_path / "x.seg.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), segmentation.labels)
    segments = {}
    for number, name in enumerate(segmentation.structures):
        fields = ("Name", "LabelValue", "Extent", "Color", "Tags")
        segments[name] = {key: image.GetMetaData(f"Segment{number}_{key}") for key in fields}
    assert segments["liver"]["Extent"] == "2 5 2 4 1 2"
    assert segments["not there"]["Extent"] == "0 -1 0 -1 0 -1"
    assert [item["LabelValue"] for item in segments.values()] == ["1", "2", "5", "7", "9"]
    assert "~SCT^64033007^Kidney~SCT^7771000^Left~" in segments["kidney_left"]["Tags"]
    assert "~99FSEFT^NIERE_RECHTS^Niere rechts~" in segments["Niere rechts"]["Tags"]
    colours = {item["Color"] for item in segments.values()}
    assert len(colours) == len(segments)
    assert all(0 <= float(part) <= 1 for colour in colours for part in colour.split())
