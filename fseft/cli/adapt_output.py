"""Output of `fseft adapt`: the choice of the method, the end of the training, and the scores."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from fseft.cli.console import note, show_lines, show_table
from fseft.errors import pluralise

if TYPE_CHECKING:
    from fseft.adaptation.request import AdaptConfig
    from fseft.adaptation.unlabelled_scans import UnlabelledScans
    from fseft.inference.adapter import Adapter
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.schemas import CrossValidation, Run, Selection

ENDS = {
    "all epochs": "all epochs done",
    "time budget": "the time budget is used up",
    "plateau of the training loss": "early stopping, as the training loss no longer decreased",
    "the solver": "solved in closed form",
}
"""Reason in `run.json` -> the reason as the command prints it."""


def method_reason(selection: Selection | None) -> str:
    """Returns the chosen method with the reason; empty if the user chose it."""
    return f"{selection.method} ({selection.reason})" if selection else ""


def describe_start(origin: OpenAdapter | None) -> str:
    """Returns the adapter to start from with its training cases; empty without one."""
    if origin is None:
        return ""
    manifest = origin.manifest
    return f"{origin.path}, {manifest.method.name} on {', '.join(manifest.support)}"


def describe_unlabelled(scans: UnlabelledScans | None) -> str:
    """Returns the number of scans without labels and their folder; empty without any."""
    return f"{len(scans.cases)} of {scans.path}" if scans else ""


def shown_decisions(config: AdaptConfig) -> dict[str, str]:
    """Returns the decisions on which the result depends most, with their reasons."""
    shown = ("plan", "channels", "spacing")
    planned = [decision for decision in config.plan.decisions if decision.name in shown]
    return {
        decision.name: f"{decision.value} ({decision.reason})"
        for decision in (*config.request.decisions, *planned)
    }


def training_length(config: AdaptConfig) -> str:
    """Returns the time budget or the number of steps; empty where little or nothing is trained."""
    request = config.request
    if request.minutes:
        return f"{request.minutes:g} minutes"
    if not request.method.spec.trains or request.method.caches_features:
        return ""
    epochs = config.training.epochs
    steps = f"{epochs * request.k} steps, {pluralise(epochs, 'epoch')}"
    return f"{steps} (the remaining time is measured; --minutes sets another length)"


def initial_rows(config: AdaptConfig) -> list[tuple[str, str]]:
    """Returns what the output of each structure is initialised from."""
    trains = config.request.method.spec.trains
    new = "-, new to the model" if trains else "-, never segmented"
    rows = []
    for name in config.labels:
        former = config.continued.get(name)
        source = f"{former} of the adapter" if former else config.matched.get(name, new)
        rows.append((name, source))
    return rows


def show_candidates(selection: Selection) -> None:
    """Prints the methods that were tried, with their scores."""
    rows = [
        (
            candidate.method,
            str(candidate.steps or "-"),
            f"{candidate.mean:.3f}" if candidate.dice else "failed",
            str(len(candidate.dice)),
            f"{candidate.seconds:.0f}",
        )
        for candidate in selection.candidates
    ]
    if rows:
        columns = ("method tried", "steps", "Dice", "held-out cases", "s")
        show_table(columns, rows, right=columns[1:])


def show_adapter(adapter: Adapter) -> None:
    """Prints how the training ended, the path of the adapter, and its scores."""
    run = adapter.run
    if run is None:
        return
    size = adapter.path.stat().st_size
    shown = f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
    show_lines(
        [
            _summary(run),
            *_strength(run),
            *_soup(run),
            *run.notes,
            f"adapter: {adapter.path} ({shown})",
        ]
    )
    if run.cross_validation:
        _show_cross_validation(run.cross_validation)
    if not run.diverged:
        folder = shlex.quote(str(adapter.path.parent))
        note(f"next: fseft predict SCANS -o segmented --adapter {folder}; fseft report {folder}")


def _strength(run: Run) -> list[str]:
    """Describes the fraction of the changes that was kept, unless it is all of them."""
    if run.strength is None or run.strength.value == 1:
        return []
    dice = run.strength.dice
    kept = f"{run.strength.value:.0%} of the trained changes were kept"
    before = f"Dice {dice['0']:.3f} of the model without training"
    return [f"{kept}, as all of them lower the {before} to {dice['1']:.3f} on the training cases"]


def _soup(run: Run) -> list[str]:
    """Describes which of several trainings was written."""
    if run.soup is None:
        return []
    scores = ", ".join(f"{name} {dice:.3f}" for name, dice in run.soup.dice.items())
    result = "the average" if run.soup.chosen == "average" else f"number {run.soup.chosen}"
    count = len(run.soup.members)
    return [f"{count} seeds: {result} was stored (Dice on training cases: {scores})"]


def _show_cross_validation(result: CrossValidation) -> None:
    """Prints the expected Dice of each structure, with its interval."""
    expected = {**result.expected, "mean": result.mean}
    rows = [
        (name, f"{dice.mean:.3f}", f"{dice.low:.3f} to {dice.high:.3f}", str(dice.cases))
        for name, dice in expected.items()
    ]
    columns = ("cross-validation", "Dice", "95 % interval", "cases")
    show_table(columns, rows, right=("Dice", "cases"))


def _summary(run: Run) -> str:
    """Describes the length of the training, and why it ended."""
    reason = ENDS.get(run.stopped_by, run.stopped_by)
    if not run.epochs:
        return reason
    loss = "" if run.final_loss is None else f", loss {run.final_loss:.4f}"
    epochs = f"{pluralise(run.epochs, 'epoch')} in {run.seconds:.0f} s"
    return f"{run.trained_parameters:,} parameters trained, {epochs}{loss}; {reason}"
