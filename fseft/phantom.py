"""Synthetic datasets: for trying the workflow, and for pre-training the embedded model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fseft.experiment.callbacks import Callbacks
from fseft.registry import import_object

if TYPE_CHECKING:
    from pathlib import Path

LEFT_OUT = ("spleen", "stomach", "aorta")
"""Structures that the embedded model was not pre-trained on."""


@dataclass(frozen=True)
class PhantomSet:
    """A synthetic dataset of torsos.

    Attributes:
        name: Name of the dataset.
        modality: "ct" or "mr".
        structures: Annotated structures; empty for all.
        cases: Number of labelled cases.
        seed: Random seed.
    """

    name: str
    modality: Literal["ct", "mr"]
    structures: tuple[str, ...]
    cases: int = 60
    seed: int = 0


@dataclass(frozen=True)
class VariedSet:
    """A synthetic dataset with domain randomisation, for pre-training.

    Attributes:
        name: Name of the dataset.
        modality: "ct" or "mr".
        spacing_mm: Isotropic voxel size.
        seed: Random seed.
        structures: Annotated structures; empty for all.
        cases: Number of labelled cases.
        atlas: Number of the atlas of artificial organs; 0 for parts of torsos.
        reach_mm: Extent of the artificial organs.
    """

    name: str
    modality: Literal["ct", "mr"]
    spacing_mm: float
    seed: int
    structures: tuple[str, ...] = ()
    cases: int = 24
    atlas: int = 0
    reach_mm: float = 0.0


LUNGS, KIDNEYS = ("lung_right", "lung_left"), ("kidney_right", "kidney_left")

EMBEDDED = (
    VariedSet("chest-ct", "ct", 4.0, 11, (*LUNGS, "heart", "vertebrae", "ribs")),
    VariedSet("abdomen-ct", "ct", 4.0, 12, ("liver", *KIDNEYS, "gallbladder", "pancreas")),
    VariedSet(
        "torso-ct", "ct", 5.0, 13, (*LUNGS, "liver", *KIDNEYS, "vertebrae", "colon", "heart")
    ),
    VariedSet("abdomen-mr", "mr", 4.0, 14, ("liver", *KIDNEYS, *LUNGS, "vertebrae")),
    VariedSet("torso-mr", "mr", 5.0, 15, ("heart", "ribs", "pancreas", "gallbladder", "colon")),
    VariedSet("scene1-mr", "mr", 1.0, 21, cases=40, atlas=1, reach_mm=24.0),
    VariedSet("scene2-ct", "ct", 1.0, 22, cases=40, atlas=2, reach_mm=36.0),
    VariedSet("scene3-ct", "ct", 1.0, 23, cases=40, atlas=3, reach_mm=30.0),
    VariedSet("scene3-mr", "mr", 1.0, 23, cases=40, atlas=3, reach_mm=30.0),
)
"""Partially labelled datasets, CT and MR-like, that `phantom-tiny` is pre-trained on."""


def write_phantoms(
    folder: Path,
    phantoms: PhantomSet,
    *,
    test_cases: int = 0,
    shift: float = 0.0,
    spacing_mm: float | None = None,
    callbacks: Callbacks | None = None,
) -> None:
    """Writes a synthetic dataset of torsos in the layout of nnU-Net.

    Args:
        folder: New folder for the dataset.
        phantoms: The dataset.
        test_cases: Number of cases in `imagesTs` and `labelsTs`.
        shift: Domain shift from 0 to 1: another scanner.
        spacing_mm: Isotropic voxel size. Default: varies.
        callbacks: Observer of the progress.

    Raises:
        FseftError: A structure is unknown, or the folder cannot be written.
    """
    write_dataset = import_object("fseft.builtin.phantom.dataset:write_dataset")
    options: dict[str, Any] = {
        "cases": phantoms.cases,
        "test_cases": test_cases,
        "seed": phantoms.seed,
        "modality": phantoms.modality,
        "structures": phantoms.structures or None,
        "shift": shift,
        "name": phantoms.name,
        "spacing_mm": None if spacing_mm is None else (spacing_mm,) * 3,
    }
    total = phantoms.cases + test_cases
    with (callbacks or Callbacks()).progress(f"phantoms {phantoms.name}", total) as advance:
        write_dataset(folder, **options, progress=lambda case, _: advance(str(case)))


def write_varied(
    folder: Path,
    varied: VariedSet,
    *,
    test_cases: int = 0,
    callbacks: Callbacks | None = None,
) -> None:
    """Writes a synthetic dataset for pre-training in the layout of nnU-Net.

    Args:
        folder: New folder for the dataset.
        varied: The dataset.
        test_cases: Number of cases in `imagesTs` and `labelsTs`.
        callbacks: Observer of the progress.

    Raises:
        FseftError: The folder cannot be written.
    """
    source = _source(varied)
    write = import_object("fseft.builtin.phantom.dataset:write_phantoms")
    options: dict[str, Any] = {
        "cases": varied.cases,
        "test_cases": test_cases,
        "seed": varied.seed,
        "modality": varied.modality,
        "structures": varied.structures or source.structures,
        "name": varied.name,
    }
    total = varied.cases + test_cases
    with (callbacks or Callbacks()).progress(f"phantoms {varied.name}", total) as advance:
        write(folder, source.make, **options, progress=lambda case, _: advance(str(case)))


def _source(varied: VariedSet) -> Any:
    """Returns the generator of the phantoms of a dataset."""
    if not varied.atlas:
        torsos = import_object("fseft.builtin.phantom.domain:Torsos")
        return torsos(varied.modality, varied.spacing_mm)
    scenes = import_object("fseft.builtin.phantom.domain:Scenes")
    return scenes(varied.modality, varied.spacing_mm, varied.atlas, varied.reach_mm)
