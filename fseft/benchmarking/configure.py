"""Configuration of a benchmark, and the checks before any trial."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.parallel import Workers
    from fseft.plugin import MetricSpec
    from fseft.schemas import Dataset
    from fseft.workspace import Workspace

RESULT = "benchmark"
"""Name of the result files, without suffix."""
LABELS = "labels"
"""Folder of label maps that were converted from masks."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """Methods and models to compare, on which data, and how; all names are resolved.

    Attributes:
        dataset: The dataset.
        output: Folder for all results.
        models: Foundation models; each is adapted by each method.
        methods: Methods with their configurations.
        ks: Numbers of training cases.
        seeds: Random seeds; each draws its own training cases, the same for all methods.
        settings: Settings as the user wrote them, for the record.
        labels: Structures to segment; empty for all.
        cases: Use these cases only; empty for all.
        mapping: Structure -> class of the model, as for `AdaptRequest`.
        minutes: Time budget of each training; None for that of its plan.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes, one trial each, or the address of a dask scheduler.
        overwrite: Discard existing runs.
        test: Names of the test cases, or their number; see `hold_out`.
        test_images: Folder of separate scans to test on.
        test_labels: Folder of their labels.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.
        metrics: Metrics; empty for Dice, NSD and HD95. Rows are compared by the first.
        baseline: Method to compare the others with; empty for the best of each k.
    """

    dataset: Dataset
    output: Path
    models: tuple[FoundationModel, ...]
    methods: tuple[ConfiguredMethod, ...]
    ks: tuple[int, ...]
    seeds: tuple[int, ...]
    settings: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    minutes: float | None = None
    memory_bytes: int | None = None
    device: str = "auto"
    workers: Workers = 1
    overwrite: bool = False
    test: tuple[str, ...] = ()
    test_images: Path | None = None
    test_labels: Path | None = None
    tolerance_mm: float = 2.0
    metrics: tuple[MetricSpec, ...] = ()
    baseline: str = ""

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(method.name for method in self.methods)

    @property
    def processes(self) -> int:
        """Number of local processes; 1 on a cluster."""
        return self.workers if isinstance(self.workers, int) else 1


def check_request(request: BenchmarkRequest, workspace: Workspace) -> None:
    """Refuses a benchmark that cannot run, before it takes time.

    Args:
        request: The benchmark.
        workspace: Workspace, whose root the output folder must not be.

    Raises:
        FseftError: A choice is missing or contradicts another, or the output folder is in use.
    """
    for kind, entries in (("model", request.models), ("method", request.methods)):
        if not entries:
            raise FseftError(f"no {kind} to compare", hint=f"`fseft {kind}s` lists them.")
    if (request.test_images is None) != (request.test_labels is None):
        message = "`test_images` and `test_labels` go together"
        raise FseftError(message, hint="Give both folders, or neither.")
    if request.test and request.test_images is not None:
        message = "`test` chooses cases of the dataset, not of `test_images`"
        raise FseftError(message, hint="Give one of them.")
    if request.baseline and request.baseline not in request.method_names:
        message = f"the baseline {request.baseline!r} is not among the methods"
        raise FseftError(message, hint=did_you_mean(request.baseline, request.method_names))
    _check_output(request.output, (workspace.root, request.dataset.folder))


def _check_output(output: Path, reserved: tuple[Path, ...]) -> None:
    """Refuses an output folder with other contents than those of a benchmark."""
    hint = "Choose another `output`."
    if output.exists() and not output.is_dir():
        raise FseftError("is a file, not a folder", file=output, hint=hint)
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    is_benchmark = f"{RESULT}.json" in names or names <= {".lock", LABELS}
    is_reserved = output.resolve() in [path.resolve() for path in reserved]
    if is_reserved or not is_benchmark:
        raise FseftError("contains files of something else", file=output, hint=hint)
