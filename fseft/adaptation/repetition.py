"""The options of `fseft adapt` that repeat a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fseft.adaptation.differences import SUPPORT
from fseft.errors import FseftError
from fseft.model_zoo.adapter_path import adapter_path
from fseft.schemas import Document, Plan, PlanOptions, Run, TrainingSet
from fseft.workspace import file_digest, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

D = TypeVar("D", bound=Document)

logger = logging.getLogger(__name__)


def options_of_run(path: Path) -> dict[str, Any]:
    """Returns the options of `fseft adapt` that repeat a run, except for the dataset.

    Args:
        path: The `run.json` of a run; its plan and training cases are read from the same
            folder.

    Raises:
        FseftError: A file cannot be read, or is damaged.
    """
    run = read_document(path, Run)
    plan = _read_if_there(path.with_name("plan.json"), Plan)
    support = _read_if_there(path.with_name("support.json"), TrainingSet)
    drawn_from = support.pool if support else ()
    options = {
        "model": run.model,
        "method": run.method,
        "k": run.k,
        "seed": run.seed,
        "cases": list(drawn_from) or _split(run.sources.get(SUPPORT, "")),
        "labels": list(run.labels),
        "map": [f"{structure}={row}" for structure, row in run.head_rows.items()],
        "decoder": run.decoder,
        "bottleneck": run.bottleneck,
        "fp16": bool(run.recipe.get("half")),
        "set": list(_settings(run)),
        "from": run.origin and run.origin.path,
        "unlabelled": run.unlabelled and run.unlabelled.path,
        "minutes": run.recipe.get("minutes"),
        "seeds": run.recipe.get("seeds", 1),
        **(_plan_options(plan.options) if plan else {}),
    }
    return {name: value for name, value in options.items() if value not in (None, "", [])}


def _read_if_there(path: Path, kind: type[D]) -> D | None:
    return read_document(path, kind) if path.is_file() else None


def _split(names: str) -> list[str]:
    return names.split(", ") if names else []


def _plan_options(options: PlanOptions) -> dict[str, Any]:
    return {
        "spacing": _joined(options.spacing_mm),
        "patch": _joined(options.patch_size),
        "channels": options.channels,
        "memory": f"{options.memory_bytes} B" if options.memory_bytes else None,
        "device": options.device,
    }


def _joined(values: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in values or ())


def _settings(run: Run) -> Iterator[str]:
    """Yields `KEY=VALUE` of the method and of the training."""
    for key, value in {**run.config, **run.recipe}.items():
        if value is not None and key not in ("minutes", "half", "seeds"):
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{key}={text}"


def check_repeatable(path: Path) -> None:
    """Warns if the strength of a run was reduced, which its method alone does not repeat.

    Args:
        path: The `run.json` of a run.

    Raises:
        FseftError: The adapter that the run started from is gone, or has changed.
    """
    run = read_document(path, Run)
    if run.strength is not None and run.strength.value < 1:
        logger.warning(
            "%s: the run kept %.0f%% of the trained changes, this one keeps all of them",
            path,
            100 * run.strength.value,
        )
    if run.origin is None:
        return
    file = adapter_path(Path(run.origin.path))
    if not file.is_file() or file_digest(file) != run.origin.sha256:
        cause = "the adapter that the run started from is gone, or has changed"
        raise FseftError(cause, file=file, hint="Start from another one by `from`.")
