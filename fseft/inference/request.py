"""Request of a prediction, and its checks before any work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import has_sides
from fseft.errors import FseftError, did_you_mean
from fseft.inference.outputs import WINDOW_OVERLAP, MergeRule, PredictionFolder, arrange_outputs
from fseft.inference.products import Products
from fseft.volume.components import ALL, Cleaning

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.parallel import Workers


@dataclass(frozen=True)
class PredictRequest:
    """Scans, adapters and options of a prediction.

    Attributes:
        inputs: Image files, folders of images, or folders of DICOM series.
        output: Folder for the segmentations.
        adapters: Adapters, from `fseft.inference.adapter_groups.open_adapters`.
        overlap: Rule for voxels that several adapters assign to a structure.
        probabilities: Whether probability maps are written too.
        tta: Whether logits are averaged over mirrored copies.
        structures: Structures to write; empty for all.
        cleaning: What is removed from, and added to, the structures.
        products: Files to write for a case, apart from probability maps.
        report: File for the report of the run.
        window_overlap: Fraction of a window that the next window repeats, 0 <= x < 1.
        device: `auto`, `cpu` or `cuda`.
        workers: Number of processes, or the address of a dask scheduler.
        any_modality: Segment scans of another modality than the training scans, too.
        scans: Case -> files; if it is set, `inputs` are not searched.
    """

    inputs: tuple[Path, ...]
    output: Path
    adapters: tuple[OpenAdapter, ...]
    overlap: MergeRule = "probability"
    probabilities: bool = False
    tta: bool = False
    structures: tuple[str, ...] = ()
    cleaning: Cleaning = Cleaning()  # noqa: RUF009 - frozen
    products: Products = Products()  # noqa: RUF009 - frozen
    report: Path | None = None
    window_overlap: float = WINDOW_OVERLAP
    device: str = "cpu"
    workers: Workers = 1
    any_modality: bool = False
    scans: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


def checked(request: PredictRequest) -> PredictRequest:
    """Returns the request with those adapters only that can change the result.

    Raises:
        FseftError: No adapter predicts a structure that it names, an adapter cannot be averaged
            over mirrored copies, or the overlap of windows is not a fraction.
    """
    _check_structures(request)
    request = replace(request, adapters=_adapters_to_run(request))
    _check_mirroring(request)
    _check_window_overlap(request.window_overlap)
    return request


def _check_structures(request: PredictRequest) -> None:
    known = [name for adapter in request.adapters for name in adapter.manifest.labels]
    named = [name for name in request.cleaning.largest_component if name != ALL]
    for name in (*request.structures, *named):
        if name not in known:
            cause = f"no adapter predicts the structure {name!r}"
            raise FseftError(cause, hint=did_you_mean(name, list(dict.fromkeys(known))))


def _adapters_to_run(request: PredictRequest) -> tuple[OpenAdapter, ...]:
    """Returns all adapters, as they compete for voxels; in separate folders those in demand."""
    if request.overlap != "separate" or not request.structures:
        return request.adapters
    wanted = set(request.structures)
    return tuple(item for item in request.adapters if wanted & item.manifest.labels.keys())


def _check_mirroring(request: PredictRequest) -> None:
    """Refuses mirrored copies for a network that was not trained on any."""
    for adapter in request.adapters if request.tta else ():
        if adapter.manifest.mirror:
            continue
        lateral = has_sides(tuple(adapter.manifest.labels))
        raise FseftError(
            "test-time mirroring needs an adapter that was trained with mirroring",
            file=adapter.path,
            hint="Leave it out: the structures have a left and a right side."
            if lateral
            else "Leave it out, or adapt with mirror=true.",
        )


def _check_window_overlap(overlap: float) -> None:
    if not 0 <= overlap < 1:
        raise FseftError(
            f"windows cannot overlap by a fraction of {overlap:g}",
            hint="Set `overlap_windows` to a number from 0 to less than 1, such as 0.5.",
        )


def arrange_folders(
    request: PredictRequest, scans: Mapping[str, tuple[Path, ...]]
) -> tuple[PredictionFolder, ...]:
    """Returns the output folders of a request.

    Args:
        request: The request.
        scans: Case -> its files.

    Raises:
        FseftError: A segmentation in such a folder could replace a scan, or pass for one.
    """
    outputs = arrange_outputs(
        PredictionFolder(
            folder=request.output.absolute(),
            adapters=request.adapters,
            overlap=request.overlap,
            probabilities=request.probabilities,
            structures=request.structures,
            cleaning=request.cleaning,
            products=request.products,
        )
    )
    inputs = {path.resolve() for path in request.inputs}
    files = {file.resolve() for paths in scans.values() for file in paths}
    for output in outputs:
        replaced = files & {output.segmentation(name).resolve() for name in scans}
        if output.folder.resolve() in inputs or replaced:
            raise FseftError(
                "the output folder is also an input folder",
                file=output.folder,
                hint="Choose another output folder.",
            )
    return outputs
