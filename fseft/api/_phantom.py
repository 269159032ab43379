"""Writes synthetic datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fseft.api._resolve import as_selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.experiment.callbacks import Callbacks
    from fseft.phantom import PhantomSet, VariedSet


def write_phantoms(
    output: str | Path,
    *,
    cases: int = 10,
    test_cases: int = 0,
    modality: Literal["ct", "mr"] = "ct",
    structures: Sequence[str] | None = None,
    shift: float = 0.0,
    spacing_mm: float | None = None,
    seed: int = 0,
    embedded: bool = False,
    callbacks: Callbacks | None = None,
) -> dict[Path, int]:
    """Writes a synthetic dataset in the layout of nnU-Net.

    Args:
        output: New folder for the dataset.
        cases: Number of labelled cases.
        test_cases: Number of cases in `imagesTs` and `labelsTs`.
        modality: "ct" or "mr".
        structures: Annotated structures; None for all.
        shift: Domain shift from 0 to 1: another scanner.
        spacing_mm: Isotropic voxel size; None for one that varies.
        seed: Random seed.
        embedded: Write the datasets that phantom-tiny is pre-trained on, a folder each; all other
            options except `test_cases` are ignored.
        callbacks: Observe the progress.

    Returns:
        Folder of each dataset -> number of labelled cases.

    Raises:
        FseftError: A structure is unknown, a folder is not empty, or it cannot be written.

    Examples:
        >>> write_phantoms("livers", cases=10, test_cases=3)  # doctest: +SKIP
    """
    from fseft import phantom
    from fseft.workspace import atomic_write, require_empty

    folder = Path(output)
    sets: dict[Path, PhantomSet | VariedSet]
    if embedded:
        sets = {folder / varied.name: varied for varied in phantom.EMBEDDED}
    else:
        single = phantom.PhantomSet(
            folder.name, modality, as_selection("structures", structures), cases, seed
        )
        sets = {folder: single}
    for path in sets:
        require_empty(path)
    for path, item in sets.items():
        with atomic_write(path) as temporary:
            if isinstance(item, phantom.VariedSet):
                phantom.write_varied(temporary, item, test_cases=test_cases, callbacks=callbacks)
            else:
                phantom.write_phantoms(
                    temporary,
                    item,
                    test_cases=test_cases,
                    shift=shift,
                    spacing_mm=spacing_mm,
                    callbacks=callbacks,
                )
    return {path: item.cases for path, item in sets.items()}
