"""`fseft plan`: measure a dataset, decide how it is processed for a model, and say why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli import console
from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.documents import Fingerprint, Plan

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def plan(
    dataset: Annotated[
        Path, typer.Argument(help="Dataset folder (nnU-Net, Decathlon, or imagesTr + labelsTr).")
    ],
    model: Annotated[str, typer.Option(help="Foundation model; none: random weights.")],
    memory: Annotated[str, typer.Option(help="Memory that training may take, for example 12GB.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workspace: Annotated[Path, typer.Option(help="Folder for plans, caches and runs.")] = Path(),
    workers: Annotated[int, typer.Option(help="Processes that measure.")] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse incomplete datasets instead of warning.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Measure a dataset and decide how it is processed for a model.

    Writes fingerprint.json and plan.MODEL.json below fingerprints/. Files are measured again
    only if one has changed.
    """
    from fseft.steps.datasets import read_dataset
    from fseft.steps.plan import make_plan
    from fseft.store import Store

    store = Store(workspace)
    total = len(read_dataset(dataset, strict=strict).cases)
    with console.progress(total, "measure") as advance:
        fingerprint, made = make_plan(
            dataset,
            model,
            store,
            memory_bytes=parse_memory(memory) if memory else None,
            device=device,
            workers=workers,
            strict=strict,
            progress=advance,
        )
    if as_json:
        console.show_json(made.model_dump(mode="json"))
        return
    _show(fingerprint, made)
    console.note(f"plan: {store.plan(made.dataset, model)}")


def parse_memory(text: str) -> int:
    """Bytes of `12GB`, `800 MB`, `16GiB` or a bare number of bytes; GB is 10⁹, GiB is 2³⁰.

    Raises:
        FseftError: It is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if match is None or (match[3] and not match[2]) or float(match[1]) == 0:
        raise FseftError(f"--memory {text!r} is no amount of memory", hint="Write for example 12GB.")
    unit = 1024 ** list(_UNITS).index(match[2]) if match[3] else _UNITS[match[2]]
    return int(float(match[1]) * unit)


def _show(fingerprint: Fingerprint, made: Plan) -> None:
    for line in _summary(fingerprint):
        console.out.print(line, markup=False, highlight=False, soft_wrap=True)
    if fingerprint.classes:
        rows = [
            (name, str(found.id), str(found.cases), _ml(found.median_volume_mm3))
            for name, found in fingerprint.classes.items()
        ]
        console.show_table(
            ("structure", "label", "cases", "median ml"), rows, right=("label", "cases", "median ml")
        )
    decisions = [(decision.name, decision.value, decision.reason) for decision in made.decisions]
    console.show_table(("decision", "value", "reason"), decisions)
    for warning in made.warnings:
        console.warn(warning)


def _summary(fingerprint: Fingerprint) -> Iterator[str]:
    cases = fingerprint.cases
    labelled = sum(bool(case.volumes_mm3) for case in cases)
    channels = ", ".join(fingerprint.channels)
    yield f"{fingerprint.dataset} ({fingerprint.reader}): {len(cases)} cases, {labelled} with structures"
    yield f"modality {fingerprint.modality}, channels {channels}"
    yield f"shape {_range([case.shape for case in cases])} voxels"
    yield f"spacing {_range([case.spacing_mm for case in cases])} mm"


def _range(triples: Sequence[Sequence[float]]) -> str:
    """The smallest and the largest along each axis: `94–102×208×208`."""
    parts = []
    for values in zip(*triples, strict=True):
        low, high = f"{min(values):.4g}", f"{max(values):.4g}"
        parts.append(low if low == high else f"{low}–{high}")
    return "×".join(parts)


def _ml(volume_mm3: float | None) -> str:
    return "–" if volume_mm3 is None else f"{volume_mm3 / 1000:.3g}"
