"""`fseft plan`: measure a dataset, decide how it is processed for a model, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli import console
from fseft.cli.console import ConsoleCallbacks
from fseft.cli.formatting import named_parts
from fseft.cli.options import (
    PLAN,
    AnnotatedSlices,
    Channels,
    Cluster,
    Crops,
    DatasetFolder,
    Device,
    IgnoreLabel,
    Json,
    Memory,
    Minutes,
    MissingLabel,
    Model,
    Patch,
    Reader,
    Spacing,
    Strict,
    Workers,
    Workspace,
)
from fseft.cli.parsing import parse_memory, parse_patch, parse_spacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.schemas import Fingerprint, Plan


def plan(
    dataset: DatasetFolder,
    model: Model,
    spacing: Spacing = "",
    patch: Patch = "",
    crops: Crops = None,
    minutes: Minutes = None,
    planner: Annotated[
        str,
        typer.Option(
            help="Planner of spacing and patch (`fseft show planner` lists them).",
            rich_help_panel=PLAN,
        ),
    ] = "field-of-view",
    name: Annotated[
        str,
        typer.Option(
            help="Name of an alternative plan, for `fseft adapt --plan NAME`.", rich_help_panel=PLAN
        ),
    ] = "",
    memory: Memory = "",
    device: Device = "auto",
    workspace: Workspace = Path(),
    workers: Workers = 1,
    cluster: Cluster = "",
    strict: Strict = False,
    reader: Reader = "",
    ignore_label: IgnoreLabel = None,
    annotated_slices: AnnotatedSlices = "all",
    missing_label: MissingLabel = "absent",
    channels: Channels = None,
    as_json: Json = False,
) -> None:
    """Measure a dataset (fingerprint), and plan its preprocessing for a model.

    The fingerprint is a table of shapes, spacings, intensities and volumes of the structures, as in
    nnU-Net. Writes fingerprint.json and plan.MODEL.json (with --name, plan.MODEL.NAME.json) below
    fingerprints/. Only new and changed files are measured.

    For example:

    fseft plan livers --model phantom-tiny

    fseft plan livers --model none --memory 8GB

    fseft plan livers --model phantom-tiny --minutes 4

    fseft plan livers --model phantom-tiny --spacing 2,2,4 --patch 64,64,32 --name thick
    """
    from fseft import api

    fingerprint, decided = api.plan(
        dataset,
        model,
        spacing_mm=parse_spacing(spacing),
        patch_size=parse_patch(patch),
        crops_per_step=crops,
        minutes=minutes,
        planner=planner,
        name=name,
        memory_bytes=parse_memory(memory),
        device=device,
        workers=cluster or workers,
        strict=strict,
        reader=reader,
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
        channels=channels,
        workspace=workspace,
        callbacks=ConsoleCallbacks(),
    )
    if as_json:
        console.show_json(decided.model_dump(mode="json"))
        return
    _show(fingerprint, decided)
    console.note(f"plan: {api.Workspace(workspace).plan(decided.dataset, model, name)}")


def _show(fingerprint: Fingerprint, decided: Plan) -> None:
    from fseft.anatomy.vocabulary import resolve_names, show_resolved

    console.show_lines(_summary(fingerprint, decided.preprocessing.orientation))
    if fingerprint.classes:
        names = show_resolved(resolve_names(fingerprint.classes, fingerprint.meanings))
        rows = [
            (names[name], str(entry.id), str(entry.cases), _ml(entry.median_volume_mm3))
            for name, entry in fingerprint.classes.items()
        ]
        console.show_table(
            ("structure", "label", "cases", "median ml"),
            rows,
            right=("label", "cases", "median ml"),
        )
    if decided.annotated:
        _show_annotation(fingerprint, decided)
    decisions = [
        (decision.name, decision.value, "; rejected: ".join((decision.reason, *decision.rejected)))
        for decision in decided.decisions
    ]
    console.show_table(("decision", "value", "reason"), decisions)


MAX_CASES = 40
"""Cases in the table of annotated structures; all are in the plan."""


def _show_annotation(fingerprint: Fingerprint, decided: Plan) -> None:
    """Prints which structures each case shows (in ml), lacks (-) or does not annotate (?)."""
    structures = [name for name, structure in fingerprint.classes.items() if structure.cases]
    volumes = {case.name: case.volumes_mm3 for case in fingerprint.cases}
    rows = [
        (
            case,
            *(_ml(volumes[case].get(name)) if name in annotated else "?" for name in structures),
        )
        for case, annotated in decided.annotated.items()
    ]
    console.show_table(("case", *structures), rows[:MAX_CASES], right=structures)
    more = f"; {len(rows) - MAX_CASES} more cases are in the plan" if rows[MAX_CASES:] else ""
    console.show_paragraph(f"Volumes in ml; –: absent; ?: not annotated, no part of the loss{more}")


def _summary(fingerprint: Fingerprint, axes: str) -> Iterator[str]:
    from fseft.volume.fingerprint import permute_to_orientation
    from fseft.volume.intensity import modality_name

    cases = fingerprint.cases
    labelled = sum(bool(case.volumes_mm3) for case in cases)
    channels = ", ".join(fingerprint.channels)
    counts = f"{len(cases)} cases, {labelled} with structures"
    yield f"{fingerprint.dataset} ({fingerprint.reader}): {counts}"
    if parts := fingerprint.partly_annotated():
        yield f"annotated: {named_parts(parts)}"
    yield f"modality {modality_name(fingerprint.modality)}, channels {channels}"
    shapes = [permute_to_orientation(case.shape, case.orientation, axes) for case in cases]
    spacings = [permute_to_orientation(case.spacing_mm, case.orientation, axes) for case in cases]
    yield f"shape {_range(shapes)} voxels along {axes}"
    yield f"spacing {_range(spacings)} mm"


def _range(triples: Sequence[Sequence[float]]) -> str:
    """The smallest and the largest along each axis: `94–102×208×208`."""
    parts = []
    for values in zip(*triples, strict=True):
        low, high = f"{min(values):.4g}", f"{max(values):.4g}"
        parts.append(low if low == high else f"{low}–{high}")
    return "×".join(parts)


def _ml(volume_mm3: float | None) -> str:
    return "–" if volume_mm3 is None else f"{volume_mm3 / 1000:.3g}"
