"""Public datasets that come as files of telling names: BTCV, FLARE22, LiTS, KiTS, AbdomenCT-1K, CT-ORG, 12organ."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.builtin.readers.folders import DECLARATION
from fseft.errors import FseftError
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC = ReaderSpec(
    name="challenges",
    factory="fseft.builtin.readers.challenges:Reader",
    summary="BTCV, FLARE22, LiTS, KiTS, AbdomenCT-1K, CT-ORG and AbdomenCT-12organ as published",
)


@dataclass(frozen=True)
class Layout:
    """How a public dataset is recognised and what its label values mean.

    Attributes:
        name: As it is called.
        case: Pattern of a case's name.
        example: One of them.
        image: What an image is called, with the case for `{}`; with its folder, where that is called after the case.
        label: What its label is called.
        labels: Structure -> value.
        page: Of the owner.
        pretraining: Volumes of it among the 2,042 that the FSEFT paper pre-trained on.
    """

    name: str
    case: str
    example: str
    image: str
    label: str
    labels: Mapping[str, int]
    page: str
    pretraining: int = 0


def _numbered(names: str) -> dict[str, int]:
    return {name: value for value, name in enumerate(names.split(), start=1)}


LAYOUTS = (
    Layout(
        name="BTCV",
        case=r"\d{4}",
        example="0001",
        image="img{}.nii.gz",
        label="label{}.nii.gz",
        labels=_numbered(
            "spleen kidney_right kidney_left gallbladder esophagus liver stomach aorta inferior_vena_cava "
            "portal_vein_and_splenic_vein pancreas adrenal_gland_right adrenal_gland_left"
        ),
        page="https://www.synapse.org/Synapse:syn3193805",
        pretraining=25,
    ),
    Layout(
        name="FLARE22",
        case=r"FLARE22_Tr_\d{4}|FLARETs_\d{4}",
        example="FLARE22_Tr_0001",
        image="{}_0000.nii.gz",
        label="{}.nii.gz",
        labels=_numbered(
            "liver kidney_right spleen pancreas aorta inferior_vena_cava adrenal_gland_right adrenal_gland_left "
            "gallbladder esophagus stomach duodenum kidney_left"
        ),
        page="https://flare22.grand-challenge.org",
    ),
    Layout(
        name="LiTS",
        case=r"\d+",
        example="0",
        image="volume-{}.nii",
        label="segmentation-{}.nii",
        labels=_numbered("liver liver_tumor"),
        page="https://competitions.codalab.org/competitions/17094",
        pretraining=95,
    ),
    Layout(
        name="KiTS",
        case=r"case_\d{5}",
        example="case_00000",
        image="{}/imaging.nii.gz",
        label="{}/segmentation.nii.gz",
        labels=_numbered("kidney kidney_tumor kidney_cyst"),
        page="https://kits-challenge.org",
        pretraining=204,
    ),
    Layout(
        name="KiTS21",
        case=r"case_\d{5}",
        example="case_00000",
        image="{}/imaging.nii.gz",
        label="{}/aggregated_MAJ_seg.nii.gz",
        labels=_numbered("kidney kidney_tumor kidney_cyst"),
        page="https://kits-challenge.org",
    ),
    Layout(
        name="AbdomenCT-1K",
        case=r"Case_\d{5}",
        example="Case_00001",
        image="{}_0000.nii.gz",
        label="{}.nii.gz",
        labels=_numbered("liver kidney spleen pancreas"),
        page="https://github.com/JunMa11/AbdomenCT-1K",
        pretraining=706,
    ),
    Layout(
        name="CT-ORG",
        case=r"\d+",
        example="0",
        image="volume-{}.nii.gz",
        label="labels-{}.nii.gz",
        labels=_numbered("liver bladder lung kidney bone brain"),
        page="https://wiki.cancerimagingarchive.net/pages/viewpage.action?pageId=61080890",
        pretraining=94,
    ),
    Layout(
        name="AbdomenCT-12organ",
        case=r"Organ12_\d{4}",
        example="Organ12_0001",
        image="{}_0000.nii.gz",
        label="{}.nii.gz",
        labels=_numbered(
            "liver kidney spleen pancreas aorta inferior_vena_cava stomach gallbladder esophagus adrenal_gland_right "
            "adrenal_gland_left celiac_trunk"
        ),
        page="https://zenodo.org/records/7860267",
        pretraining=43,
    ),
)


class Reader:
    """Reader `challenges`: files keep their owners' names, and lie in the folder or in folders in it."""

    def detects(self, folder: Path) -> bool:
        """Whether there is an image with its label, both named as in one of these datasets, and no `dataset.json`."""
        files = {} if (folder / DECLARATION).exists() else _files(folder)
        return any(case.label for layout in LAYOUTS for case in _cases(layout, files))

    def read(self, folder: Path) -> Dataset:
        """List the cases of that dataset of which most labels are there.

        Raises:
            FseftError: An image is there twice.
        """
        files = _files(folder)
        layout = max(
            LAYOUTS, key=lambda one: sum(case.label is not None for case in _cases(one, files))
        )
        cases = {case.name: case for case in _cases(layout, files)}
        for case in _cases(layout, files):
            if case.images != cases[case.name].images:
                twice = cases[case.name].images[0]
                raise FseftError(
                    f"there is also {twice}",
                    case=case.name,
                    file=case.images[0],
                    hint="Remove one.",
                )
        return Dataset(
            name=folder.name,
            reader="challenges",
            channels=("CT",),
            labels=dict(layout.labels),
            cases=tuple(cases[name] for name in sorted(cases)),
        )


def _files(folder: Path) -> dict[Path, str]:
    """All files of the folder and of the folders in it, and what they are called: `folder/name`."""
    inside = (
        sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        if folder.is_dir()
        else []
    )
    below = [file for path in inside if path.is_dir() for file in sorted(path.iterdir())]
    return {path: f"{path.parent.name}/{path.name}" for path in (*inside, *below) if path.is_file()}


def _cases(layout: Layout, files: Mapping[Path, str]) -> list[Case]:
    """The images of a dataset, with their labels; empty where it is another dataset."""
    ends = {end: path for path, called in files.items() for end in (called, path.name)}
    before, after = map(re.escape, layout.image.split("{}"))
    pattern = re.compile(f"(?:.*/)?{before}({layout.case}){after}")
    matched = [
        (path, match[1]) for path, called in files.items() if (match := pattern.fullmatch(called))
    ]
    return [
        Case(name=name, images=(path,), label=ends.get(layout.label.format(name)))
        for path, name in matched
    ]
