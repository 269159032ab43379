"""Writes pages about results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fseft.experiment.callbacks import Callbacks
    from fseft.result_pages.report import Report


def report(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    scans: str | Path | None = None,
    pictures: bool = True,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
) -> Report:
    """Writes one HTML page about an adaptation, predictions or a benchmark.

    The page needs no other file and no network. It shows scores, the worst, the median and the best
    case in three planes, volumes, the training, the plan, and what repeats the run.

    Args:
        folder: Output folder of `adapt`, `predict` or `benchmark`.
        output: The HTML file; None for `report.html` in the folder.
        labels: Folder of reference labels; None for those that `evaluate` compared with. They are
            scored if `metrics.json` does not have their scores.
        scans: Folder of the scans; None for where `predict` read them.
        pictures: Whether cases are drawn; without pictures, no scan is read.
        overwrite: Replace a file that is not a page of fseft.
        callbacks: Observe the progress.

    Returns:
        `page`, the path of the file, and `kind`: "run", "predictions" or "benchmark".

    Raises:
        FseftError: The folder has no results, a scan or a reference is missing or damaged, or the
            output exists and is something else.

    Examples:
        >>> report("segmented", labels="livers/labelsTs").page  # doctest: +SKIP
        PosixPath('segmented/report.html')
    """
    from fseft.result_pages.pages import PageRequest
    from fseft.result_pages.report import write_report

    request = PageRequest(
        folder=Path(folder),
        labels=None if labels is None else Path(labels),
        scans=None if scans is None else Path(scans),
        pictures=pictures,
    )
    path = None if output is None else Path(output)
    return write_report(request, path, overwrite=overwrite, callbacks=callbacks)
