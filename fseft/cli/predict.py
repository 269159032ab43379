"""`fseft predict`: segment scans with one or several adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fseft.cli import completion
from fseft.cli.callbacks import PredictCallbacks
from fseft.cli.options import (
    CLEANING,
    COMPUTE,
    DATA,
    MODEL,
    OUTPUT,
    Cluster,
    Device,
    Json,
    Workers,
    Workspace,
    output_folder,
)
from fseft.cli.parsing import names, parse_volume
from fseft.errors import pluralise


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCANS...", help="Scans: files, folders of files, DICOM series folders."
        ),
    ],
    output: Annotated[
        Path,
        output_folder("Folder for the segmentations."),
    ],
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="adapter.safetensors, or the folder of its run; repeatable.",
            autocompletion=completion.adapters,
            rich_help_panel=MODEL,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Foundation model instead of an adapter: segments its own classes.",
            autocompletion=completion.models,
            rich_help_panel=MODEL,
        ),
    ] = "",
    overlap: Annotated[
        Literal["probability", "first", "separate"],
        typer.Option(
            metavar="RULE",
            help="Voxels that several adapters assign to a structure: probability (the highest "
            "wins), first (the first adapter wins) or separate (a folder per adapter).",
            rich_help_panel=OUTPUT,
        ),
    ] = "probability",
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Write probability maps too, one channel per class.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            help="Test-time augmentation: average over 8 mirrored copies, 8 times slower. The "
            "adapter must be trained with --set mirror=true.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            metavar="NAME,...",
            help="File formats of the segmentation: nifti, masks, seg.nrrd, dicom-seg, rtstruct "
            "(`fseft show format` lists them).",
            autocompletion=completion.formats,
            rich_help_panel=OUTPUT,
        ),
    ] = ["nifti"],  # noqa: B006 - never changed
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics",
            help="Measure volume, intensity and position of every structure: statistics.csv, and "
            "a JSON file per case.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Draw a PNG per case.", rich_help_panel=OUTPUT),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a report of this run as JSON: times, versions, digests of all files.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    structures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Write only these structures, with the voxels that they have in the full result.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    largest_component: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Structures that keep their largest connected component only, or all.",
            rich_help_panel=CLEANING,
        ),
    ] = None,
    remove_small: Annotated[
        str,
        typer.Option(
            metavar="VOLUME",
            help="Remove connected components of less than this volume, such as 0.5ml.",
            rich_help_panel=CLEANING,
        ),
    ] = "",
    fill_holes: Annotated[
        bool,
        typer.Option(
            "--fill-holes",
            help="Fill background that a structure encloses.",
            rich_help_panel=CLEANING,
        ),
    ] = False,
    any_modality: Annotated[
        bool,
        typer.Option(
            "--any-modality",
            help="Segment scans of another modality than the training scans too (CT with an "
            "adapter for MR), which are refused otherwise.",
            rich_help_panel=DATA,
        ),
    ] = False,
    overlap_windows: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            help="Fraction of a window that the next window repeats; less is faster.",
            rich_help_panel=COMPUTE,
        ),
    ] = 0.5,
    device: Device = "auto",
    workers: Workers = 1,
    cluster: Cluster = "",
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Segment new scans on their own grid.

    Needs the scan, the adapter and the weights of its model only; with --model instead of an
    adapter, the model segments its own classes. Scans that were segmented before
    by the same adapters are skipped. Adapters on the same frozen features share one forward pass.

    For example:

    fseft predict livers/imagesTs -o out --adapter liver.safetensors

    fseft predict series/ -o out --adapter runs/livers/phantom-tiny/lora-k5-s0 --format
    nifti,dicom-seg --statistics --preview

    fseft predict t1.nii.gz -o out --model brainchop-18
    """
    from fseft import api
    from fseft.cli.console import show_json, show_lines

    result = api.predict(
        inputs,
        adapter or (),
        output,
        model=model,
        overlap=overlap,
        probabilities=probabilities,
        tta=tta,
        structures=names(structures) or (),
        largest_component=names(largest_component) or (),
        remove_small_ml=parse_volume(remove_small),
        fill_holes=fill_holes,
        formats=names(formats) or (),
        statistics=statistics,
        preview=preview,
        report=report,
        overlap_windows=overlap_windows,
        any_modality=any_modality,
        device=device,
        workers=cluster or workers,
        workspace=workspace,
        callbacks=PredictCallbacks(),
    )
    if as_json:
        outcome = {"segmented": result.segmented, "skipped": result.skipped}
        show_json({"output": str(output), **outcome})
        return
    skipped = f", {len(result.skipped)} existed already" if result.skipped else ""
    show_lines([f"{pluralise(len(result.segmented), 'scan')} segmented{skipped}: {output}"])
