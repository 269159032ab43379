"""The reporter `jsonl`: one JSON line per epoch in `log.jsonl` of the run folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fseft import workspace
from fseft.plugin import DICE_METRIC, ReporterSpec, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC = ReporterSpec(
    name="jsonl",
    factory="fseft.builtin.reporters.jsonl:JsonlReporter",
    summary="one JSON line per epoch in log.jsonl of the run folder",
)


class JsonlReporter:
    """Appends the epochs of a run to its log.

    The log of a resumed run equals that of an uninterrupted one.

    Args:
        run_folder: Folder of `log.jsonl`.
    """

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / "log.jsonl"

    @hookimpl
    def fseft_run_start(self, epoch: int) -> None:
        """Removes lines of epochs that will be repeated, and a line that is incomplete."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if 0 <= _epoch(line) < epoch]
        workspace.write_text(self.path, "".join(line + "\n" for line in kept))

    @hookimpl
    def fseft_epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Appends a line, with the Dice of each structure in the key `dice`."""
        line: dict[str, Any] = {"epoch": epoch}
        for key in ("loss", "learning_rate", "seconds"):
            line[key] = metrics[key]
        if dice := dice_by_structure(metrics):
            line["dice"] = dice
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def dice_by_structure(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns structure -> Dice from the metrics of an epoch."""
    return {
        name.removeprefix(DICE_METRIC): value
        for name, value in metrics.items()
        if name.startswith(DICE_METRIC)
    }


def _epoch(line: str) -> int:
    """Returns the epoch of a line, or -1 if the line is damaged."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return -1
