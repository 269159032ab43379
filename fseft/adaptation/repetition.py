"""The options of `fseft adapt` that repeat a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fseft.adaptation.differences import SUPPORT
from fseft.schemas import Plan, Run
from fseft.workspace import read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def options_of_run(path: Path) -> dict[str, Any]:
    """Returns the options of `fseft adapt` that repeat a run, except for the dataset.

    Args:
        path: The `run.json` of a run; its plan is read from the same folder.

    Raises:
        FseftError: A file cannot be read, or is damaged.
    """
    run = read_document(path, Run)
    plan_file = path.with_name("plan.json")
    planned = read_document(plan_file, Plan).options if plan_file.is_file() else None
    chosen = {
        "spacing": planned and _joined(planned.spacing_mm),
        "patch": planned and _joined(planned.patch_size),
        "minutes": run.recipe.get("minutes"),
        "from": run.origin and run.origin.path,
    }
    return {
        "model": run.model,
        "method": run.method,
        "k": run.k,
        "seed": run.seed,
        "cases": run.sources[SUPPORT].split(", "),
        "labels": list(run.labels),
        "decoder": run.decoder,
        "bottleneck": run.bottleneck,
        "fp16": bool(run.recipe.get("half")),
        "set": list(_settings(run)),
        **{name: value for name, value in chosen.items() if value},
    }


def _joined(values: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in values or ())


def _settings(run: Run) -> Iterator[str]:
    """Yields `KEY=VALUE` of the method and of the training."""
    for key, value in {**run.config, **run.recipe}.items():
        if value is not None and key not in ("minutes", "half"):
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{key}={text}"
