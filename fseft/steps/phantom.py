"""`fseft phantom`: write a dataset of made-up scans, and the recipe of the embedded model's training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fseft.registry import imported

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


LUNGS, KIDNEYS = ("lung_right", "lung_left"), ("kidney_right", "kidney_left")

EMBEDDED = (
    PhantomSet("chest-ct", "ct", (*LUNGS, "heart", "vertebrae", "ribs"), seed=11),
    PhantomSet("abdomen-ct", "ct", ("liver", *KIDNEYS, "gallbladder", "pancreas"), seed=12),
    PhantomSet("torso-ct", "ct", (*LUNGS, "liver", "vertebrae", "colon", "heart"), seed=13),
    PhantomSet("abdomen-mr", "mr", ("liver", *KIDNEYS, *LUNGS, "vertebrae"), seed=14),
    PhantomSet("torso-mr", "mr", ("heart", "ribs", "pancreas", "gallbladder", "colon"), seed=15),
)
"""What `phantom-tiny` is pre-trained on: five partially labelled datasets, CT and MR-like."""


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
    write_dataset = imported("fseft.builtin.phantom.dataset:write_dataset")
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
