"""Scores of every method on real CT and MR volumes, as a Markdown table.

    FSEFT_REAL_DATA=... python benchmarks/real_volumes.py [--data hippocampus,headneck]
                                                          [--methods lora,full]

All rows use the same training cases, crops and unseen cases, and the commands that a user would
type; scores are computed on the native grid. Training takes --epochs; black-box methods, whose
steps cost little, take their default number. Minutes are CPU minutes of `fseft adapt`, so that
other processes on the machine do not count. Results are stored in --work: an interrupted benchmark
resumes. `--dry-run` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fseft.metrics.fields import MetricColumn
from fseft.metrics.selection import DEFAULT_BENCHMARK_METRICS, select_metrics
from fseft.model_zoo.catalogue import SCRATCH
from fseft.registry import registry

MODEL = "phantom-tiny"
TEST_CASES = 20
"""Maximum number of unseen cases to score."""
HEADNECK_STRUCTURES = "brainstem,spinal_cord,parotid_right,parotid_left,mandible"


@dataclass(frozen=True)
class Task:
    """A dataset, the cases to draw training cases from, and the unseen cases.

    Attributes:
        name: Name in the table.
        folder: Folder of the dataset.
        pool: Cases to draw training cases from.
        scans: Unseen scans.
        labels: Folder of their labels.
        structures: Structures to segment; empty for all.
        validate: Whether the unseen cases are validation cases, for choosing settings.
    """

    name: str
    folder: Path
    pool: tuple[str, ...]
    scans: tuple[Path, ...]
    labels: Path
    structures: str = ""
    validate: bool = False

    @property
    def split(self) -> str:
        """Name of dataset and split, for folders."""
        return f"{self.folder.name}{'-validate' if self.validate else ''}"


def hippocampus(data: Path, unseen: int = TEST_CASES, *, validate: bool = False) -> Task:
    """Return the task on MR of the hippocampus.

    The last 20 labelled cases are the test cases, the 20 before them the validation cases; the
    first `unseen` of them are scored.
    """
    folder = data / "hippocampus"
    images = {path.name for path in (folder / "imagesTr").iterdir()}
    labels = {path.name for path in (folder / "labelsTr").iterdir()}
    pool, held_out = _split(sorted(images & labels))
    if validate:
        pool, held_out = _split(pool)
    scans = [folder / "imagesTr" / name for name in held_out[:unseen]]
    return Task(
        "hippocampus (MR)",
        folder,
        tuple(name.removesuffix(".nii.gz") for name in pool),
        tuple(scans),
        folder / "labelsTr",
        validate=validate,
    )


def headneck(data: Path, unseen: int = TEST_CASES, *, validate: bool = False) -> Task:
    """Return the task on planning CT of head and neck.

    Training cases are drawn from the completely contoured cases. The first `unseen` of the 16 test
    cases are scored, or of the last 20 completely contoured cases to validate.
    """
    folder = data / "headneck"
    splits = json.loads((folder / "splits.json").read_text())
    pool = splits["complete"]
    scans = sorted((folder / "imagesTs").iterdir())
    labels = folder / "labelsTs"
    if validate:
        pool, held_out = _split(pool)
        scans = [folder / "imagesTr" / f"{name}_0000.nii.gz" for name in held_out]
        labels = folder / "labelsTr"
    return Task(
        "headneck (CT)",
        folder,
        tuple(pool),
        tuple(scans[:unseen]),
        labels,
        HEADNECK_STRUCTURES,
        validate,
    )


def _split(names: list[str]) -> tuple[list[str], list[str]]:
    return names[:-TEST_CASES], names[-TEST_CASES:]


TASKS = {"hippocampus": hippocampus, "headneck": headneck}


@dataclass(frozen=True)
class Row:
    """Costs of an adaptation, and its scores on the unseen cases by metric."""

    trained_parameters: int
    megabytes: float
    minutes: float
    scores: dict[str, float]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Row:
        """Read a row; in files, each score is a key."""
        scores = dict(values)
        return cls(
            trained_parameters=scores.pop("trained_parameters"),
            megabytes=scores.pop("megabytes"),
            minutes=scores.pop("minutes"),
            scores=scores,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the row as it is stored."""
        costs = {
            "trained_parameters": self.trained_parameters,
            "megabytes": self.megabytes,
            "minutes": self.minutes,
        }
        return costs | self.scores


@dataclass(frozen=True)
class Trial:
    """One adaptation, scored on the unseen cases."""

    task: Task
    model: str
    method: str
    k: int
    seed: int
    work: Path
    epochs: int | None = None
    minutes: float | None = None
    decoder: str = ""
    settings: tuple[str, ...] = ()

    @property
    def run(self) -> Path:
        """Folder of the adapter."""
        parts = [self.model, self.method, f"k{self.k}", f"s{self.seed}"]
        parts += [str(self.epochs), str(self.minutes)]
        parts += [part for part in (self.decoder, *self.settings) if part]
        return self.work / "runs" / self.task.split / "-".join(parts)

    @property
    def predictions(self) -> Path:
        """Folder of the predictions and their scores."""
        return self.run / f"predictions-{len(self.task.scans)}"

    def commands(self) -> list[list[str]]:
        """Return the commands that a user would type."""
        task = self.task
        workspace = ["--workspace", str(self.work)]
        model = ["--model", self.model, *workspace]
        structures = ["--labels", task.structures] if task.structures else []
        scans = [str(scan) for scan in task.scans]
        run, output = str(self.run), str(self.predictions)
        return [
            ["preprocess", str(task.folder), *model],
            ["adapt", str(task.folder), *model, *self._training(), "-o", run, *structures],
            ["predict", *scans, "-o", output, "--adapter", run, *workspace],
            ["evaluate", output, str(task.labels), *structures],
        ]

    def _training(self) -> list[str]:
        """Return the options of the training, and write the list of cases."""
        pool = self.work / f"{self.task.split}-pool.txt"
        pool.parent.mkdir(parents=True, exist_ok=True)
        pool.write_text("\n".join(self.task.pool))
        options = ["--method", self.method, "--k", str(self.k), "--seed", str(self.seed)]
        options += ["--cases", str(pool)]
        settings = ["early_stopping=false", "crops_per_step=2"]
        if self.epochs:
            settings.append(f"epochs={self.epochs}")
        if self.minutes:
            options += ["--minutes", str(self.minutes)]
        if self.decoder:
            options += ["--decoder", self.decoder]
        for setting in (*settings, *self.settings):
            options += ["--set", setting]
        return options

    def measured(self) -> Row | str:
        """Run the commands unless they ran before.

        Returns:
            The row; the message of `fseft adapt` if it refuses the method.
        """
        stored = self.predictions / "row.json"
        if stored.is_file():
            return Row.from_json(json.loads(stored.read_text()))
        preprocess, adapt, *others = self.commands()
        fseft(preprocess)
        start = _cpu_seconds()
        if message := fseft(adapt):
            return message
        seconds = _cpu_seconds() - start
        for command in others:
            fseft(command)
        row = self._row(seconds)
        stored.write_text(json.dumps(row.to_json()))
        return row

    def _row(self, seconds: float) -> Row:
        run = json.loads((self.run / "run.json").read_text())
        scores = json.loads((self.predictions / "metrics.json").read_text())
        adapter = self.run / "adapter.safetensors"
        return Row(
            trained_parameters=run["trained_parameters"],
            megabytes=adapter.stat().st_size / 1e6,
            minutes=seconds / 60,
            scores={column.key: scores[f"mean_{column.key}"] for column in columns()},
        )


def columns() -> list[MetricColumn]:
    """Return the metrics of the table."""
    return [MetricColumn.of(metric) for metric in select_metrics(DEFAULT_BENCHMARK_METRICS)]


def fseft(arguments: list[str]) -> str:
    """Run a command.

    Returns:
        Its message if it refuses its input, otherwise an empty text.

    Raises:
        RuntimeError: The command failed in another way.
    """
    command = [sys.executable, "-m", "fseft", *arguments]
    process = subprocess.run(
        command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    if process.returncode == 2:
        return process.stderr.strip().splitlines()[-1].removeprefix("error: ")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{process.stderr}")
    return ""


def _cpu_seconds() -> float:
    """Return the CPU time of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def heading() -> str:
    """Return the first two lines of the table."""
    cells = ["data", "model", "method", "trained parameters", "MB", "min"]
    cells += [f"{column.title} {column.unit}".strip() for column in columns()]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def line(trial: Trial) -> str:
    """Return a line of the table."""
    row = trial.measured()
    cells = [trial.task.name, trial.model, trial.method]
    if isinstance(row, str):
        cells += [row, *[""] * (2 + len(columns()))]
    else:
        cells += [f"{row.trained_parameters:,}", f"{row.megabytes:.2f}", f"{row.minutes:.1f}"]
        cells += [column.text(row.scores) for column in columns()]
    return f"| {' | '.join(cells)} |"


def core_methods() -> list[str]:
    """Return the methods of fseft itself, without those of plugins."""
    names = registry().names("method")
    return [name for name in names if registry().provenance("method", name).distribution == "fseft"]


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default=",".join(TASKS))
    add("--methods", default=",".join(core_methods()))
    add("--epochs", type=int, default=20, help="epochs of k steps")
    add("--minutes", type=float, help="additional time budget of each training")
    add("--decoder", default="", help="mode of the decoder")
    add("--set", action="append", default=[], dest="settings", help="key=value for `adapt`")
    add("--unseen", type=int, default=TEST_CASES, help="maximum number of unseen cases")
    add("--validate", action="store_true", help="score validation cases, to choose settings")
    add("--k", type=int, default=5)
    add("--seed", type=int, default=0)
    add("--work", type=Path, default=Path("benchmark-work"))
    add("--dry-run", action="store_true", help="print the commands only")
    return parser.parse_args()


def trials(options: argparse.Namespace) -> list[Trial]:
    """Return a trial for each dataset and method."""
    data = Path(os.environ["FSEFT_REAL_DATA"])
    selected = []
    for name in options.data.split(","):
        task = TASKS[name](data, options.unseen, validate=options.validate)
        for method in options.methods.split(","):
            spec = registry().method(method)
            trial = Trial(
                task,
                MODEL if spec.needs_model else SCRATCH,
                method,
                options.k,
                options.seed,
                options.work,
                epochs=None if spec.access == "black-box" else options.epochs,
                minutes=options.minutes,
                decoder=options.decoder,
                settings=tuple(options.settings),
            )
            selected.append(trial)
    return selected


def main() -> None:
    """Print the table, or the commands."""
    options = parse_options()
    if options.dry_run:
        for trial in trials(options):
            for command in trial.commands():
                print("fseft", *command)
        return
    print(heading(), flush=True)
    for trial in trials(options):
        print(line(trial), flush=True)


if __name__ == "__main__":
    main()
