"""The page about an adaptation, predictions or a benchmark, as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fseft.benchmarking.configure import RESULT
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.inference.index import INDEX
from fseft.model_zoo.adapter_path import NAME
from fseft.reporting.page import is_own_page, render_page
from fseft.result_pages.pages import benchmark_page, predictions_page, run_page
from fseft.workspace import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.result_pages.pages import PageRequest

Kind = Literal["run", "predictions", "benchmark"]
PAGE = "report.html"
_BUILDERS = {"run": run_page, "predictions": predictions_page, "benchmark": benchmark_page}


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        page: Path of the HTML file.
        kind: What it is about.
    """

    page: Path
    kind: Kind


def write_report(
    request: PageRequest,
    output: Path | None = None,
    *,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
) -> Report:
    """Writes the page about the results in a folder.

    Args:
        request: The folder, and where its scans and references are.
        output: The HTML file; None for `report.html` in the folder.
        overwrite: Replace a file that is not a page of fseft.
        callbacks: Observer of the progress.

    Raises:
        FseftError: The folder has no results, a file is missing or damaged, or the output exists.
    """
    kind = find_kind(request.folder)
    path = output or request.folder / PAGE
    _require_replaceable(path, overwrite=overwrite)
    page = _BUILDERS[kind](request, callbacks or Callbacks())
    write_text(path, render_page(page))
    return Report(path, kind)


def find_kind(folder: Path) -> Kind:
    """Returns what results a folder has.

    Raises:
        FseftError: It does not exist, or is not a folder of `adapt`, `predict` or `benchmark`.
    """
    files: dict[str, Kind] = {
        f"{RESULT}.json": "benchmark",
        INDEX: "predictions",
        NAME: "run",
        "run.json": "run",
    }
    for file, kind in files.items():
        if (folder / file).is_file():
            return kind
    if folder.is_file():
        raise FseftError("is a file, not a folder", file=folder, hint=f"Pass {folder.parent}.")
    if not folder.exists():
        raise FseftError("does not exist", file=folder, hint="Check the path.")
    found = sorted(path.parent for file in files for path in folder.glob(f"*/{file}"))
    hint = f"Did you mean {found[0]}?" if found else "Pass the output folder of one of them."
    raise FseftError("contains no results of adapt, predict or benchmark", file=folder, hint=hint)


def _require_replaceable(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace anything but a page of fseft, unless `overwrite` is set."""
    if path.is_dir():
        raise FseftError("is a folder", file=path, hint="Pass the path of an HTML file.")
    if path.exists() and not overwrite and not is_own_page(path):
        cause = "exists, and is not a page of fseft"
        raise FseftError(cause, file=path, hint="Choose another output, or set overwrite.")
