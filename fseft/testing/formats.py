"""The checks of a format of segmentations, as parameters of a test, and a small segmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from fseft.plugin import FormatSpec
from fseft.registry import registry
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters
from fseft.volume.geometry import Geometry
from fseft.volume.segmentation import Segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _pytest.mark import ParameterSet

_NAMES = {"liver": 1, "kidney_left": 2, "Niere rechts": 5, "vein/artery\\x": 7, "not there": 9}


def format_checks(
    name: str, *, scan: Sequence[Path] = (), xfail: Mapping[str, str] | None = None
) -> list[ParameterSet]:
    """Returns the checks of a format, as parameters of a test that calls each.

    ```python
    @pytest.mark.parametrize("check", format_checks("my-format"))
    def test_my_format(check):
        check()
    ```

    Args:
        name: Name of the format in the registry.
        scan: Folder of a DICOM series, for a format that needs one.
        xfail: Reason for each check that must fail.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    return parameters(name, CHECKS, _Format(name, tuple(scan)), xfail)


def a_segmentation(*scan: Path, shape: tuple[int, int, int] = (6, 8, 10)) -> Segmentation:
    """Returns a segmentation on an oblique grid, with odd names, and a structure without voxels.

    Args:
        *scan: Files of the scan.
        shape: Voxels along i, j and k.
    """
    labels = np.zeros(shape, np.uint8)
    labels[1:3, 2:5, 2:6] = 1
    labels[3, 4:7, 1:4] = 2
    labels[4, 1, 1] = 5
    labels[2, 6, 8] = 7
    affine = np.array(
        [[0.0, 0.0, 0.8, -20.0], [0.0, 0.9, 0.0, 11.0], [2.5, 0.0, 0.0, -300.0], [0, 0, 0, 1.0]]
    )
    return Segmentation(
        case="case01",
        labels=labels,
        geometry=Geometry(shape, affine),
        structures=dict(_NAMES),
        scan=scan or (Path("case01.nii.gz"),),
        algorithm="lora of phantom-tiny",
        version="1.0",
    )


@dataclass(frozen=True)
class _Format:
    """A format, and the scan that it refers to."""

    name: str
    scan: tuple[Path, ...]

    def segmentation(self) -> Segmentation:
        """Returns a segmentation of the scan: of the series, if there is one."""
        if not self.scan:
            return a_segmentation()
        from fseft.volume.image import read_volume

        volume = read_volume(self.scan[0])
        _, i, j, k = volume.array.shape
        plain = a_segmentation(*self.scan, shape=(i, j, k))
        return replace(plain, geometry=volume.geometry)

    def files(self, folder: Path, segmentation: Segmentation) -> list[str]:
        """Writes a segmentation, and returns the paths of all files in the folder."""
        spec = registry().resolve("format", self.name).spec
        assert isinstance(spec, FormatSpec)
        path = folder / f"{segmentation.case}{spec.suffix}"
        path.parent.mkdir(exist_ok=True)
        registry().factory("format", self.name)(segmentation, path)
        assert path.exists()
        files = [file for file in folder.rglob("*") if file.is_file()]
        return sorted(str(file.relative_to(folder)) for file in files)


def writes_its_path_only(subject: _Format) -> None:
    """It writes the path that it was given, and nothing next to it."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "out"
        folder.mkdir()
        files = subject.files(folder, subject.segmentation())
        assert all(name.startswith("case01") for name in files)
        assert list(Path(parent).iterdir()) == [folder]


def writes_an_empty_segmentation(subject: _Format) -> None:
    """A segmentation in which nothing was found is written as such."""
    plain = subject.segmentation()
    empty = replace(plain, labels=np.zeros_like(plain.labels))
    with TemporaryDirectory() as folder:
        assert subject.files(Path(folder), empty)


def leaves_the_labels_unchanged(subject: _Format) -> None:
    """The label map is the same afterwards: other formats are written from it."""
    segmentation = subject.segmentation()
    before = segmentation.labels.copy()
    with TemporaryDirectory() as folder:
        subject.files(Path(folder), segmentation)
    np.testing.assert_array_equal(segmentation.labels, before)


def loads_no_torch_before_it_is_chosen(subject: _Format) -> None:
    """Listing the plugin of the format does not import torch."""
    assert_listed_without_torch("format", subject.name)


CHECKS: tuple[Callable[[_Format], None], ...] = (
    writes_its_path_only,
    writes_an_empty_segmentation,
    leaves_the_labels_unchanged,
    loads_no_torch_before_it_is_chosen,
)
