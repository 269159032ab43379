"""Segments scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fseft.api._resolve import as_model, as_workspace
from fseft.errors import FseftError
from fseft.inference.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.api._resolve import AdapterLike, ModelLike, WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.inference.outputs import MergeRule
    from fseft.inference.run import PredictResult
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.parallel import Workers
    from fseft.workspace import Workspace


def predict(
    scans: str | Path | Sequence[str | Path],
    adapter: AdapterLike | Sequence[AdapterLike] = (),
    output: str | Path = "",
    *,
    model: ModelLike = "",
    overlap: MergeRule = "probability",
    probabilities: bool = False,
    tta: bool = False,
    structures: Sequence[str] = (),
    largest_component: Sequence[str] = (),
    remove_small_ml: float = 0.0,
    fill_holes: bool = False,
    formats: Sequence[str] = ("nifti",),
    statistics: bool = False,
    preview: bool = False,
    report: str | Path | None = None,
    overlap_windows: float = 0.5,
    any_modality: bool = False,
    device: str = "auto",
    workers: Workers = 1,
    workspace: WorkspaceLike | None = None,
    callbacks: Callbacks | None = None,
) -> PredictResult:
    """Segments scans on their own grid.

    Args:
        scans: Files, folders of files, or folders of DICOM series.
        adapter: One or several adapters, their files, or the folders of their runs.
        output: Folder for the segmentations.
        model: A foundation model instead of adapters, which segments its own classes.
        overlap: How several adapters share a voxel: "probability" (the highest), "first", or
            "separate" folders.
        probabilities: Write the probabilities of all classes too.
        tta: Average over mirrored copies of each window.
        structures: Write only these structures, as in the full result.
        largest_component: Structures that keep their largest component only; ["all"] for all.
        remove_small_ml: Remove components of less than this volume.
        fill_holes: Fill background that a structure encloses.
        formats: File formats: "nifti", "masks", "seg.nrrd", "dicom-seg", "rtstruct", or those of
            plugins.
        statistics: Measure volume, intensity and position of the structures.
        preview: Draw a PNG per case.
        report: JSON file for a report of the run.
        overlap_windows: Fraction of a window that the next window repeats;
            0.25 takes about a third of the time of 0.5.
        any_modality: Segment scans of another modality than the training scans, instead of refusing
            them.
        device: "auto", "cpu" or "cuda".
        workers: Processes, or the address of a dask scheduler.
        workspace: Where models of the user are stored; None for the adapter's own, or the current
            folder.
        callbacks: Observe the progress.

    Returns:
        Which cases were segmented now, and which before.

    Raises:
        FseftError: A scan cannot be read, or an adapter does not fit; all other scans are segmented
            first. The model has no classes, or its weights are missing.

    Examples:
        >>> predict(["scan.nii.gz"], adapter, output="segmented")  # doctest: +SKIP
        >>> predict("t1.nii.gz", output="out", model="brainchop-18")  # doctest: +SKIP
    """
    from fseft.inference.products import Products
    from fseft.inference.request import PredictRequest
    from fseft.inference.run import predict as run_prediction
    from fseft.volume.components import Cleaning

    adapters = [adapter] if isinstance(adapter, str | Path | Adapter) else list(adapter)
    first = adapters[0] if adapters else None
    default = first.workspace if isinstance(first, Adapter) else "."
    place = as_workspace(default if workspace is None else workspace)
    request = PredictRequest(
        inputs=tuple(map(Path, [scans] if isinstance(scans, str | Path) else scans)),
        output=Path(output),
        adapters=_open(adapters, model, place),
        overlap=overlap,
        probabilities=probabilities,
        tta=tta,
        structures=tuple(structures),
        cleaning=Cleaning(tuple(largest_component), remove_small_ml, fill_holes),
        products=Products(tuple(dict.fromkeys(formats)), statistics, preview),
        report=None if report is None else Path(report),
        window_overlap=overlap_windows,
        any_modality=any_modality,
        device=device,
        workers=workers,
    )
    return run_prediction(request, callbacks)


def _open(
    adapters: Sequence[AdapterLike],
    model: ModelLike,
    workspace: Workspace,
) -> tuple[OpenAdapter, ...]:
    """Opens adapters, or a model in place of one."""
    from fseft.inference.adapter_groups import open_adapters
    from fseft.inference.model import open_model

    if bool(adapters) == bool(model):
        cause = "both adapters and a model" if model else "neither an adapter nor a model"
        raise FseftError(f"{cause} to predict with", hint="Pass either of them.")
    if not model:
        paths = [item.path if isinstance(item, Adapter) else Path(item) for item in adapters]
        return open_adapters(paths, workspace)
    return (open_model(as_model(model, workspace)),)
