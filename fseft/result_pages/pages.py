"""The contents of each kind of page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.benchmarking.configure import RESULT
from fseft.benchmarking.cross_validation import FOLDER
from fseft.benchmarking.results import Benchmark
from fseft.errors import FseftError, pluralise
from fseft.model_zoo.adapter_file import read_manifest
from fseft.model_zoo.adapter_path import NAME, adapter_path
from fseft.reporting.page import Highlight, Page, Section
from fseft.result_pages.adapter import adapter_sections, cross_validation_section, read_run
from fseft.result_pages.benchmark import (
    benchmark_sections,
    best_row,
    configuration_section,
    trial_of,
)
from fseft.result_pages.cases import PredictedCases, read_cases
from fseft.result_pages.pictures import picture_section
from fseft.result_pages.scores import (
    case_section,
    case_volumes,
    structure_section,
    volume_section,
)
from fseft.result_pages.summary import (
    benchmark_highlights,
    describe_benchmark,
    describe_predictions,
    describe_run,
    expected_dice,
    score_highlights,
)
from fseft.version import __version__
from fseft.workspace import Workspace, file_digest, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.experiment.callbacks import Callbacks
    from fseft.schemas import Manifest

_FOOTER = (
    f"Written by fseft {__version__}. For research: nothing here is approved for clinical use, and "
    "a person who knows the anatomy must check every segmentation."
)
_MAX_NAMED = 8  # structures that a title lists


@dataclass(frozen=True)
class PageRequest:
    """The subject of a page.

    Attributes:
        folder: Folder of an adaptation, of predictions, or of a benchmark.
        labels: Folder of references; None for those that were scored.
        scans: Folder of the scans; None for where `predict` read them.
        pictures: Whether cases are drawn.
    """

    folder: Path
    labels: Path | None = None
    scans: Path | None = None
    pictures: bool = True


def predictions_page(request: PageRequest, callbacks: Callbacks) -> Page:
    """Returns the page about a folder of predictions.

    Args:
        request: The folder, and where its scans and references are.
        callbacks: Observer of the progress.

    Raises:
        FseftError: A file is missing or damaged.
    """
    predicted = _read(request, request.folder, callbacks)
    return Page(
        title=f"Segmentation of {pluralise(len(predicted.cases), 'scan')}",
        subtitle=_listed(list(predicted.cases[0].labels)),
        summary=score_highlights(predicted),
        sections=(
            Section("Summary", describe_predictions(predicted)),
            *_case_sections(request, predicted, callbacks),
            *_adapters(predicted),
        ),
        footer=_FOOTER,
    )


def run_page(request: PageRequest, callbacks: Callbacks) -> Page:
    """Returns the page about an adaptation, with the cases of its cross-validation.

    Args:
        request: The folder, and where its scans and references are.
        callbacks: Observer of the progress.

    Raises:
        FseftError: The run is not finished, or a file is missing or damaged.
    """
    run = read_run(request.folder)
    manifest = read_manifest(request.folder / NAME)
    folds = sorted((request.folder / FOLDER).glob("fold-*/predictions"))
    parts = [_read(request, fold, callbacks) for fold in folds]
    minutes = [Highlight("training", f"{run.seconds / 60:.1f} min")] if run else []
    size = (request.folder / NAME).stat().st_size / 1e6
    return Page(
        title=f"{manifest.dataset}: {manifest.method.name} of {manifest.model}",
        subtitle=_listed(list(manifest.labels)),
        summary=(
            *expected_dice(manifest),
            Highlight("training cases", str(len(manifest.support))),
            *minutes,
            Highlight("adapter file", f"{size:.2f} MB"),
        ),
        sections=(
            Section("Summary", describe_run(manifest), code=_predict_command(request.folder)),
            *_cross_validation_sections(request, manifest, parts, callbacks),
            *adapter_sections(request.folder),
        ),
        footer=_FOOTER,
    )


def benchmark_page(request: PageRequest, callbacks: Callbacks) -> Page:
    """Returns the page about a benchmark, with the cases of its best method.

    Args:
        request: The folder, and where its scans and references are.
        callbacks: Observer of the progress.

    Raises:
        FseftError: The benchmark has no results, or a file is missing or damaged.
    """
    benchmark = read_document(request.folder / f"{RESULT}.json", Benchmark)
    row = best_row(benchmark)
    if row is None:
        hint = "Run `fseft benchmark` again: it resumes."
        raise FseftError("the benchmark has no results", file=request.folder, hint=hint)
    seed = trial_of(benchmark, row).seed
    runs = Workspace(request.folder)
    folder = runs.run(benchmark.dataset, row.model, row.method, row.k, seed)
    predicted = _read(request, folder / "predictions", callbacks)
    name = f"{row.method} of {row.model}, k = {row.k}"
    return Page(
        title=f"{benchmark.dataset}: comparison of methods",
        subtitle=_listed(benchmark.structures),
        summary=benchmark_highlights(benchmark, row, name),
        sections=(
            Section("Summary", describe_benchmark(benchmark, row, f"{name}, seed {seed}")),
            *benchmark_sections(benchmark),
            *_case_sections(request, predicted, callbacks),
            configuration_section(benchmark),
        ),
        footer=_FOOTER,
    )


def _read(request: PageRequest, folder: Path, callbacks: Callbacks) -> PredictedCases:
    return read_cases(folder, labels=request.labels, scans=request.scans, callbacks=callbacks)


def _predict_command(folder: Path) -> str:
    return shlex.join(["fseft", "predict", "SCANS", "-o", "segmented", "--adapter", str(folder)])


def _cross_validation_sections(
    request: PageRequest,
    manifest: Manifest,
    parts: Sequence[PredictedCases],
    callbacks: Callbacks,
) -> Iterator[Section]:
    """Yields the result of a cross-validation, and the cases of all folds."""
    if manifest.cross_validation:
        yield cross_validation_section(manifest.cross_validation)
    cases = [case for part in parts for case in part.cases]
    if cases:
        joined = replace(parts[0], cases=tuple(cases), evaluation=None)
        yield from _case_sections(request, joined, callbacks)


def _case_sections(
    request: PageRequest, predicted: PredictedCases, callbacks: Callbacks
) -> Iterator[Section]:
    """Yields scores, pictures and volumes of predicted cases."""
    volumes = case_volumes(predicted, callbacks)
    if predicted.evaluation:
        yield structure_section(predicted.evaluation)
    if predicted.metrics:
        yield case_section(predicted)
    if request.pictures:
        yield picture_section(predicted, volumes)
    yield volume_section(predicted, volumes)


def _adapters(predicted: PredictedCases) -> Iterator[Section]:
    """Yields the sections about each adapter that is where it was, and unchanged."""
    has_several = len(predicted.adapters) > 1
    for sha256, written in predicted.adapters.items():
        path = Path(written)
        file = adapter_path(path)
        if not file.is_file() or file_digest(file) != sha256:
            text = f"{written} is a model, or an adapter that was moved or changed since."
            yield Section("Adapter", text)
            continue
        for section in _about(path):
            title = f"{section.title}: {path.name}" if has_several else section.title
            yield replace(section, title=title)


def _about(adapter: Path) -> Iterator[Section]:
    manifest = read_manifest(adapter)
    if manifest.cross_validation:
        yield cross_validation_section(manifest.cross_validation)
    yield from adapter_sections(adapter)


def _listed(structures: Sequence[str]) -> str:
    names = ", ".join(structures[:_MAX_NAMED])
    hidden = len(structures) - _MAX_NAMED
    return f"{names} and {hidden} more" if hidden > 0 else names
