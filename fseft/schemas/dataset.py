"""Schemas of a dataset: its cases, their files, and which voxels of the labels count."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fseft.schemas.base import FrozenModel, LabelTable, optional

MissingLabel = Literal["absent", "unannotated"]
"""Meaning of a structure that a label file does not contain."""


class Annotation(FrozenModel):
    """Which voxels of label files count.

    Attributes:
        ignore: Value of voxels that count neither as background nor as a structure; None if all
            voxels count.
        background: Value of the background; not 0 if scribbles mark it.
        slices: "auto": in a case that is drawn in single slices, slices without any label do not
            count; "all": they are background.
    """

    ignore: int | None = None
    background: int = 0
    slices: Literal["all", "auto"] = "all"


FULLY_ANNOTATED = Annotation()
"""All voxels count."""


class Case(FrozenModel):
    """One patient's volume and its labels.

    Attributes:
        name: Case identifier, unique in the dataset.
        images: One file per channel, or one file with all channels.
        label: A label map, or one mask per value, or None for an unlabelled case.
        annotation: Which voxels of the label count; set by `read_dataset`.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | dict[int, Path] | None = None
    annotation: Annotation = FULLY_ANNOTATED


class Unlabelled(FrozenModel):
    """Scans without labels that a training used as well; absent where it used none.

    Attributes:
        scans: Names of the scans.
        sha256: Digest of their files.
        path: Their folder, as the user wrote it; empty in the manifest, which others may read.
    """

    scans: tuple[str, ...]
    sha256: str
    path: str = ""


class Dataset(FrozenModel):
    """The cases and labels of a dataset, as a reader lists them.

    Attributes:
        name: Name of the folder.
        reader: Name of the reader.
        folder: Absolute path of the dataset; set by `read_dataset`.
        channels: Name of each image channel, such as "CT".
        labels: Structure name -> voxel value, without background; empty if the names are unknown.
        regions: Structure -> voxel values that belong to it, if structures overlap. `labels` then
            states the value that each is written with, in the order of writing.
        meanings: Ambiguous structure name -> its meaning, such as `cancer` -> `lung_tumor`.
        annotation: Which voxels of the labels count, as the dataset declares it.
        missing_label: Meaning of a structure that a label file does not contain, in `adapt`.
        cases: All cases, sorted by name.
        warnings: Messages for the user.

    Examples:
        >>> case = Case(name="a", images=(Path("a_0000.nii.gz"),), label=Path("a.nii.gz"))
        >>> dataset = Dataset(
        ...     name="livers", reader="nnunet", channels=("CT",), labels={"liver": 1}, cases=(case,)
        ... )
        >>> [case.name for case in dataset.labelled]
        ['a']
    """

    name: str
    reader: str
    folder: Path = Path()
    channels: tuple[str, ...]
    labels: LabelTable = {}
    regions: dict[str, tuple[int, ...]] = optional({})
    meanings: dict[str, str] = {}
    annotation: Annotation = FULLY_ANNOTATED
    missing_label: MissingLabel = "absent"
    cases: tuple[Case, ...]
    warnings: tuple[str, ...] = ()

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Cases with a label."""
        return tuple(case for case in self.cases if case.label is not None)
