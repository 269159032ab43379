"""Public datasets that are recognised by their file names, such as BTCV, FLARE22, LiTS and KiTS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft import dataset_json
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
    """File names and labels of a public dataset.

    Attributes:
        name: Name of the dataset.
        case: Regular expression of case names.
        example: A case name.
        image: Name of an image, with `{}` for the case; includes a folder that is named after the
            case.
        label: Name of a label file, likewise.
        labels: Structure -> value.
        page: Web page of the owner.
        pretraining: Number of its volumes among the 2,042 for pre-training in the FSEFT paper.
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
            "spleen kidney_right kidney_left gallbladder esophagus liver stomach aorta "
            "inferior_vena_cava portal_vein_and_splenic_vein pancreas adrenal_gland_right "
            "adrenal_gland_left"
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
            "liver kidney_right spleen pancreas aorta inferior_vena_cava adrenal_gland_right "
            "adrenal_gland_left gallbladder esophagus stomach duodenum kidney_left"
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
            "liver kidney spleen pancreas aorta inferior_vena_cava stomach gallbladder "
            "esophagus adrenal_gland_right adrenal_gland_left celiac_trunk"
        ),
        page="https://zenodo.org/records/7860267",
        pretraining=43,
    ),
)


class Reader:
    """Reader `challenges`; files keep their original names, in the folder or its subfolders."""

    def detects(self, folder: Path) -> bool:
        """Returns whether the folder has an image and its label, but no `dataset.json`."""
        if (folder / dataset_json.NAME).exists():
            return False
        files = _files(folder)
        return any(case.label for layout in LAYOUTS for case in _cases(layout, files))

    def read(self, folder: Path) -> Dataset:
        """Lists the cases of the dataset with the most labels in the folder.

        Raises:
            FseftError: Two images have the name of one case.
        """
        files = _files(folder)
        layout = max(LAYOUTS, key=lambda layout: _count_labels(layout, files))
        cases: dict[str, Case] = {}
        for case in _cases(layout, files):
            if case.name in cases:
                cause = f"is a duplicate of {cases[case.name].images[0]}"
                raise FseftError(cause, case=case.name, file=case.images[0], hint="Remove one.")
            cases[case.name] = case
        return Dataset(
            name=folder.name,
            reader="challenges",
            channels=("CT",),
            labels=dict(layout.labels),
            cases=tuple(cases[name] for name in sorted(cases)),
        )


def _files(folder: Path) -> dict[Path, str]:
    """Returns the files of a folder and of its subfolders, with names as in `folder/name`."""
    if not folder.is_dir():
        return {}
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    nested = [file for path in visible if path.is_dir() for file in sorted(path.iterdir())]
    files = [path for path in (*visible, *nested) if path.is_file()]
    return {path: f"{path.parent.name}/{path.name}" for path in files}


def _cases(layout: Layout, files: Mapping[Path, str]) -> list[Case]:
    """Returns the images of a dataset with their labels; empty if the layout does not match."""
    by_name: dict[str, Path] = {}
    for path, name in files.items():
        by_name[name] = path
        by_name[path.name] = path
    prefix, suffix = map(re.escape, layout.image.split("{}"))
    pattern = re.compile(f"(?:.*/)?{prefix}({layout.case}){suffix}")
    cases = []
    for path, name in files.items():
        if match := pattern.fullmatch(name):
            case = match[1]
            label = by_name.get(layout.label.format(case))
            cases.append(Case(name=case, images=(path,), label=label))
    return cases


def _count_labels(layout: Layout, files: Mapping[Path, str]) -> int:
    return sum(case.label is not None for case in _cases(layout, files))
