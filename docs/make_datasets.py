"""Writes `datasets.md`, the table of public datasets, from the readers: `python docs/make_datasets.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import resolve_names, split_pair
from fseft.builtin.readers.challenges import LAYOUTS
from fseft.builtin.readers.chaos import LABELS as CHAOS
from fseft.builtin.readers.folders import MEANINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path(__file__).with_name("datasets.md")
SPLITS = Path(__file__).with_name("fewshot_splits.json")
HEAD = """# Public datasets

Made by `python docs/make_datasets.py`. Give the folder that holds what is named under *files*, or holds the folders
that do, to any command: `fseft plan FOLDER --model MODEL`, `fseft pretrain FOLDER FOLDER --out NAME`. Nothing has to be
renamed or converted. The files stay with their owners: read their terms on the page before you share what became of
them. Structures in *italics* are pairs that are drawn as one. *Volumes* are those that the FSEFT paper pre-trained on.

The layouts are tested on trees of empty files, and the label values are as published; no file of these datasets was at
hand where this page was made.

| dataset | files | structures, in the order of their values | reader | volumes | page |
|---|---|---|---|---:|---|
"""
DECLARED = "`dataset.json`, `imagesTr`, `labelsTr`"
AMOS = """
spleen, right kidney, left kidney, gall bladder, esophagus, liver, stomach, arota, postcava, pancreas,
right adrenal gland, left adrenal gland, duodenum, bladder, prostate/uterus
"""
DECATHLON = {
    "Liver": ("liver, cancer", 87),
    "Lung": ("cancer", 46),
    "Pancreas": ("pancreas, cancer", 198),
    "HepaticVessel": ("Vessel, Tumour", 210),
    "Spleen": ("spleen", 27),
    "Colon": ("colon cancer primaries", 93),
}
TEXT = """
The sequences of a patient in CHAOS MR are cases of their own, `1_T1DUAL` and `1_T2SPIR`. Name those of one sequence
with `--cases`, or predict patients that no support case is of: nothing else keeps the same patient from both sides.

A dataset of another layout needs a `dataset.json` as nnU-Net has it, or a reader of its own
(`fseft plugin new NAME --kind reader`).

## What names mean

`fseft pretrain` learns under the names of one vocabulary, `fseft/anatomy/structures.csv`, and says what it took a
dataset's own names for: `lkidney -> kidney_left`. `fseft plan` shows the same, and `fseft adapt` starts a structure
from the model's class that means the same. Names that the vocabulary does not have keep their words. The tasks of the
Medical Segmentation Decathlon have names such as `cancer`, which the reader gives the meanings in the table.

## Left and right

`fseft pretrain` divides a pair that is drawn as one where another dataset of the run has its left or its right, or
`--labels` names one of them; else it stays whole. It is divided once, when arrays are cached, by the components of the
structure and the midline of the body: the plane that mirrors the body best. A warning names the cases where that is
uncertain: no clear midline, one component on both sides of it (divided where it is narrowest, or cut there), both
components on one side, nothing on one side.

Refused are two names of one dataset that mean the same, a structure that is there whole and in parts (`--labels` says
which of them to learn), and a name such as `tumour` or `class_1` in two datasets, which does not say what it is. A name
of no meaning, `class_1` or `foreground`, is taken for a class of a model by `--map class_1=class_1` alone.

## Few-shot splits of the FSEFT paper

The cases are listed in [fewshot_splits.json](fewshot_splits.json), in the paper's order; name them by `--cases`.
TotalSegmentator is version 1, with one structure per task.

| dataset | structures | cases to choose from | test cases |
|---|---|---:|---:|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(sorted(rows(), key=str.lower)) + TEXT + "".join(splits())


def rows() -> Iterable[str]:
    """A line for each dataset."""
    for one in LAYOUTS:
        files = f"`{one.image}`, `{one.label}`".format(one.example, one.example)
        yield row(one.name, files, structures(one.labels), "challenges", one.pretraining, one.page)
    yield row(
        "AMOS22 (CT; cases from 501 on are left out)",
        DECLARED,
        structures(AMOS.split(",")),
        "decathlon",
        200,
        "https://amos22.grand-challenge.org",
    )
    for task, (names, count) in DECATHLON.items():
        meant = structures(names.split(", "), MEANINGS.get(task))
        yield row(f"MSD {task}", DECLARED, meant, "decathlon", count, "http://medicaldecathlon.com")
    page, mr = (
        "https://chaos.grand-challenge.org",
        "`1/T2SPIR/DICOM_anon`, `1/T2SPIR/Ground`; T1DUAL in phase likewise",
    )
    yield row("CHAOS CT", "`1/DICOM_anon`, `1/Ground`", structures(CHAOS["CT"]), "chaos", 14, page)
    yield row("CHAOS MR", mr, structures(CHAOS["MR"]), "chaos", 0, page)
    masks = "`s0000/ct.nii.gz` (or `mri.nii.gz`), `s0000/segmentations/STRUCTURE.nii.gz`"
    yield row(
        "TotalSegmentator",
        masks,
        "one per mask",
        "masks",
        0,
        "https://doi.org/10.5281/zenodo.6802613",
    )


def row(name: str, files: str, what: str, reader: str, count: int, page: str) -> str:
    """One line of the table."""
    return f"| {name} | {files} | {what} | `{reader}` | {count or ''} | {page} |\n"


def structures(names: Iterable[str], meanings: dict[str, str] | None = None) -> str:
    """Own names as the vocabulary has them, pairs that are drawn as one in italics."""
    meant = resolve_names([" ".join(name.split()) for name in names], meanings).values()
    return ", ".join(f"*{name}*" if split_pair(name) else name for name in meant)


def splits() -> Iterable[str]:
    """A line for each pair of counts."""
    for dataset, tasks in json.loads(SPLITS.read_text(encoding="utf-8")).items():
        counts: dict[tuple[int, int], list[str]] = {}
        for task, cases in tasks.items():
            counts.setdefault((len(cases["train"]), len(cases["test"])), []).append(task)
        for (fit, test), names in counts.items():
            yield f"| {dataset} | {', '.join(names)} | {fit} | {test} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
