"""Phantoms on disk: a small labelled dataset in the layout of nnU-Net v2."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.anatomy import STRUCTURES
from fseft.builtin.phantom.render import make_phantom
from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fseft.builtin.phantom.render import Modality, Phantom
    from fseft.volume.geometry import Geometry

ORIENTATIONS = ("LPS", "RAS", "LAS", "SPL")  # as scanners and converters leave them


def write_dataset(
    folder: Path,
    *,
    cases: int,
    test_cases: int = 0,
    seed: int = 0,
    modality: Modality = "ct",
    structures: Sequence[str] | None = None,
    shift: float = 0.0,
    name: str | None = None,
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes phantoms as an nnU-Net v2 dataset, each stored in one of several orientations.

    Args:
        folder: Folder of `dataset.json`, `imagesTr`, `labelsTr` and, with test cases, `imagesTs`
            and `labelsTs`.
        cases: Training cases.
        test_cases: Test cases, numbered after the training cases; their labels are in `labelsTs`.
        seed: The same seed gives the same phantoms; case n does not depend on how many there are.
        modality: "ct" or "mr".
        structures: Annotated structures, as labels 1, 2, ... in this order; by default all.
        shift: Domain shift, see `make_phantom`.
        name: Name in `dataset.json`; by default "Phantom" and the modality.
        shape: Voxels to the right, anterior and superior, see `make_phantom`.
        spacing_mm: Voxel size along the same axes.
        progress: Called as progress(done, total) after every case.

    Raises:
        FseftError: A structure is unknown or an argument is out of range.
    """
    make = partial(make_phantom, shape=shape, spacing_mm=spacing_mm, modality=modality, shift=shift)
    write_phantoms(
        folder,
        make,
        cases=cases,
        test_cases=test_cases,
        seed=seed,
        modality=modality,
        structures=_annotated(structures),
        name=name or f"Phantom {modality.upper()}",
        progress=progress,
    )


def write_phantoms(
    folder: Path,
    make: Callable[[np.random.Generator], Phantom],
    *,
    cases: int,
    test_cases: int,
    seed: int,
    modality: Modality,
    structures: Sequence[str],
    name: str,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the phantoms that `make` returns per random generator, as `write_dataset` does.

    Args:
        folder: Folder of the dataset.
        make: Function of a random generator that returns a phantom.
        cases: Training cases.
        test_cases: Test cases, numbered after the training cases.
        seed: The same seed gives the same phantoms.
        modality: "ct" or "mr".
        structures: Annotated structures, as labels 1, 2, ... in this order.
        name: Name in `dataset.json`.
        progress: Called as progress(done, total) after every case.

    Raises:
        FseftError: There is no training case, or the number of test cases is negative.
    """
    from fseft.workspace import write_text

    if cases < 1 or test_cases < 0:
        raise FseftError(
            f"a dataset of {cases} training and {test_cases} test cases",
            hint="At least 1 training case is needed.",
        )
    total = cases + test_cases
    for number in range(total):
        rng = np.random.default_rng((seed, number))
        phantom = make(rng)
        orientation = str(rng.choice(ORIENTATIONS))
        part = "Tr" if number < cases else "Ts"
        image, labels, geometry = stored(phantom, structures, orientation)
        _write_case(folder, part, f"case_{number:03d}", image, labels, geometry)
        if progress:
            progress(number + 1, total)
    text = json.dumps(_description(name, modality, structures, cases), indent=2)
    write_text(folder / "dataset.json", text + "\n")  # last: it marks the dataset as complete


def _write_case(
    folder: Path,
    part: str,
    case: str,
    image: NDArray[np.int16],
    labels: NDArray[np.uint8],
    geometry: Geometry,
) -> None:
    """Writes image and labels (i, j, k) of a case to the part "Tr" or "Ts" of a dataset."""
    from fseft.volume.image import write_labels, write_volume

    images_folder = folder / f"images{part}"
    labels_folder = folder / f"labels{part}"
    images_folder.mkdir(parents=True, exist_ok=True)
    labels_folder.mkdir(parents=True, exist_ok=True)
    write_volume(images_folder / f"{case}_0000.nii.gz", image[None], geometry)
    write_labels(labels_folder / f"{case}.nii.gz", labels, geometry)


def stored(
    phantom: Phantom, structures: Sequence[str], orientation: str
) -> tuple[NDArray[np.int16], NDArray[np.uint8], Geometry]:
    """Returns a phantom in the form of a file.

    Args:
        phantom: The phantom to store.
        structures: Annotated structures, which become labels 1, 2, ...; others are background.
        orientation: Three-letter code of the array axes in the file, such as "LPS".

    Returns:
        Image (i, j, k), labels (i, j, k) and their geometry, with the patient around the origin.
    """
    from fseft.volume.geometry import Geometry, reorient

    i, j, k = phantom.image.shape
    affine = np.diag(
        [*np.multiply(phantom.spacing_mm, (-1, -1, 1)), 1.0]
    )  # RAS axes in an LPS world
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    annotated = np.zeros(len(phantom.structures) + 1, np.uint8)
    for number, structure in enumerate(structures, start=1):
        annotated[phantom.structures.index(structure) + 1] = number
    grid = Geometry((i, j, k), affine)
    image, geometry = reorient(phantom.image, grid, orientation)
    labels, _ = reorient(annotated[phantom.labels], grid, orientation)
    return image, labels, geometry


def _annotated(structures: Sequence[str] | None) -> tuple[str, ...]:
    if structures is None:
        return STRUCTURES
    for structure in structures:
        if structure not in STRUCTURES:
            raise FseftError(
                f"the phantom has no structure {structure!r}",
                hint=did_you_mean(structure, STRUCTURES),
            )
    return tuple(dict.fromkeys(structures))


def _description(
    name: str, modality: str, structures: Sequence[str], cases: int
) -> dict[str, object]:
    return {
        "name": name,
        "channel_names": {"0": modality.upper()},
        "labels": {"background": 0}
        | {structure: n for n, structure in enumerate(structures, start=1)},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
