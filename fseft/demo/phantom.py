"""`fseft phantom`: write a dataset of made-up scans, and the recipe of the embedded model's training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fseft.registry import import_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEFT_OUT = ("spleen", "stomach", "aorta")
"""Structures that the embedded model never saw, so that there is something new to adapt to."""


@dataclass(frozen=True)
class PhantomSet:
    """One synthetic dataset: which structures its imaginary site annotated."""

    name: str
    modality: Literal["ct", "mr"]
    structures: tuple[str, ...]
    cases: int = 60
    seed: int = 0


@dataclass(frozen=True)
class VariedSet:
    """One synthetic dataset with domain randomisation: parts of torsos, or made-up organs where there is an atlas."""

    name: str
    modality: Literal["ct", "mr"]
    spacing_mm: float
    seed: int
    structures: tuple[str, ...] = ()  # all if empty
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
"""What `phantom-tiny` is pre-trained on: partially labelled datasets, CT and MR-like, of torsos and made-up organs."""


def write_phantoms(
    folder: Path,
    phantoms: PhantomSet,
    *,
    test_cases: int = 0,
    shift: float = 0.0,
    spacing_mm: float | None = None,
    done: Callable[[str], None] = lambda _: None,
) -> None:
    """Write one synthetic dataset.

    Raises:
        FseftError: Unknown structure, or the folder cannot be written.
    """
    write_dataset = import_object("fseft.builtin.phantom.dataset:write_dataset")
    write_dataset(
        folder,
        cases=phantoms.cases,
        test_cases=test_cases,
        seed=phantoms.seed,
        modality=phantoms.modality,
        structures=phantoms.structures or None,
        shift=shift,
        name=phantoms.name,
        spacing_mm=None if spacing_mm is None else (spacing_mm,) * 3,
        progress=lambda count, _: done(str(count)),
    )


def write_varied(
    folder: Path,
    varied: VariedSet,
    *,
    test_cases: int = 0,
    done: Callable[[str], None] = lambda _: None,
) -> None:
    """Write one dataset for pre-training.

    Raises:
        FseftError: The folder cannot be written.
    """
    if varied.atlas:
        scenes = import_object("fseft.builtin.phantom.domain:Scenes")
        source = scenes(varied.modality, varied.spacing_mm, varied.atlas, varied.reach_mm)
    else:
        source = import_object("fseft.builtin.phantom.domain:Torsos")(
            varied.modality, varied.spacing_mm
        )
    write = import_object("fseft.builtin.phantom.dataset:write_phantoms")
    write(
        folder,
        source.make,
        cases=varied.cases,
        test_cases=test_cases,
        seed=varied.seed,
        modality=varied.modality,
        structures=varied.structures or source.structures,
        name=varied.name,
        progress=lambda count, _: done(str(count)),
    )
