"""Scans without labels that a training uses as well: selected and preprocessed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.planning.preprocessing import preprocess
from fseft.schemas import FULLY_ANNOTATED, Unlabelled
from fseft.volume.case_files import case_content
from fseft.volume.intensity import modality_warnings
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.callbacks import Callbacks
    from fseft.schemas import Case, Dataset
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnlabelledScans:
    """Scans without labels.

    Attributes:
        path: Their folder, as the user wrote it.
        cases: The scans.
        contents: Key of the files of each scan; empty until `without_training_cases` sets it.
    """

    path: Path
    cases: tuple[Case, ...]
    contents: tuple[str, ...] = ()

    def without_training_cases(
        self, dataset: Dataset, training_cases: Collection[str]
    ) -> UnlabelledScans:
        """Returns the scans that are not training cases; a warning names the others.

        Args:
            dataset: The labelled dataset.
            training_cases: Names of its training cases, whose scans are recognised by content.

        Raises:
            FseftError: No scan is left, or a file cannot be read.
        """
        training = [case for case in dataset.cases if case.name in training_cases]
        without_label = {"label": None, "annotation": FULLY_ANNOTATED}
        known = {case_content(case.model_copy(update=without_label)) for case in training}
        contents = {case: case_content(case) for case in self.cases}
        kept = tuple(case for case in self.cases if contents[case] not in known)
        names = ", ".join(case.name for case in self.cases if case not in kept)
        if not kept:
            cause = f"contains no scan but training cases ({names})"
            raise FseftError(cause, file=self.path, hint="Add scans, or leave out `unlabelled`.")
        if names:
            logger.warning("%s: left out %s: training cases have labels", self.path, names)
        return replace(self, cases=kept, contents=tuple(contents[case] for case in kept))

    def describe(self) -> Unlabelled:
        """Returns the description for `run.json`."""
        return Unlabelled(
            scans=tuple(case.name for case in self.cases),
            sha256=digest(*self.contents),
            path=str(self.path),
        )


def cache_unlabelled(
    config: AdaptConfig, workspace: Workspace, callbacks: Callbacks
) -> list[CachedCase]:
    """Preprocesses the scans without labels as the training cases, and returns their arrays.

    Args:
        config: The resolved configuration.
        workspace: Where the arrays are stored.
        callbacks: Observe the preprocessing.

    Returns:
        The arrays of the scans; none if the training uses labelled cases only.

    Raises:
        FseftError: A scan cannot be read, or has other channels than the training cases.
    """
    scans = config.unlabelled
    if scans is None:
        return []
    dataset = config.request.dataset.model_copy(update={"cases": scans.cases})
    workers = config.request.workers
    cache = preprocess(dataset, config.plan, workspace, workers=workers, callbacks=callbacks)
    cache.check_contents(scans.contents)
    cached = [cache.open(case.name) for case in scans.cases]
    is_mr = config.plan.preprocessing.modality == "mr"
    for case in cached:
        for warning in modality_warnings(case.read_all()[0], "mr" if is_mr else "other"):
            logger.warning("case %s, %s: %s", case.case, scans.path, warning)
    return cached
