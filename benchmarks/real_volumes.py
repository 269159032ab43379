"""Every method on real volumes, CT and MR: one Markdown table.

`FSEFT_REAL_DATA=... python benchmarks/real_volumes.py [--data hippocampus,headneck] [--methods lora,full]` types the
commands of a user. Every row has the same support cases and crops, and the same unseen cases; scores are on the native
grid. Training takes --epochs; black-box methods, whose steps cost next to nothing, take their own number. The minutes
are those of one core that `fseft adapt` keeps busy, so that other work on the machine does not count. What was measured
before is kept in --work: a run that was cut off goes on. `--dry-run` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from fseft.model_zoo.catalogue import SCRATCH
from fseft.registry import registry

MODEL = "phantom-tiny"
TEST = 20
"""Cases that are scored, where there are so many."""
HEAD = """\
| data | model | method | trained parameters | MB | min | Dice | NSD 2 mm | HD95 mm |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Task:
    """A dataset, the cases to learn from, and the unseen ones, which are of the pool where settings are chosen."""

    name: str
    folder: Path
    pool: tuple[str, ...]
    scans: tuple[Path, ...]
    labels: Path
    structures: str = ""
    validate: bool = False

    @property
    def split(self) -> str:
        """Name of what is learned from and scored."""
        return f"{self.folder.name}{'-validate' if self.validate else ''}"


def hippocampus(data: Path, unseen: int = TEST, *, validate: bool = False) -> Task:
    """MR of the hippocampus; of the last 20 labelled cases, which are never learned from, the first are scored.

    To validate, the 20 before them are.
    """
    folder = data / "hippocampus"
    images = {path.name for path in (folder / "imagesTr").iterdir()}
    both = sorted(path.name for path in (folder / "labelsTr").iterdir() if path.name in images)
    both, tested = _split(both, TEST)
    if validate:
        both, tested = _split(both, TEST)
    pool = tuple(name.removesuffix(".nii.gz") for name in both)
    scans = tuple(folder / "imagesTr" / name for name in tested[:unseen])
    return Task("hippocampus (MR)", folder, pool, scans, folder / "labelsTr", validate=validate)


def headneck(data: Path, unseen: int = TEST, *, validate: bool = False) -> Task:
    """Planning CT; support from the completely contoured cases, of the 16 test cases the first are scored.

    To validate, the last 20 of those with all contours are.
    """
    folder = data / "headneck"
    pool = json.loads((folder / "splits.json").read_text())["complete"]
    scans, labels = sorted((folder / "imagesTs").iterdir()), folder / "labelsTs"
    if validate:
        pool, held_out = _split(pool, TEST)
        scans, labels = (
            [folder / "imagesTr" / f"{name}_0000.nii.gz" for name in held_out],
            folder / "labelsTr",
        )
    core = "brainstem,spinal_cord,parotid_right,parotid_left,mandible"
    return Task("headneck (CT)", folder, tuple(pool), tuple(scans[:unseen]), labels, core, validate)


def _split(names: list[str], count: int) -> tuple[list[str], list[str]]:
    return names[:-count], names[-count:]


TASKS = {"hippocampus": hippocampus, "headneck": headneck}


@dataclass(frozen=True)
class Row:
    """What one adaptation cost, and how well it segments the unseen cases."""

    trained_parameters: int
    megabytes: float
    minutes: float
    dice: float
    nsd: float
    hd95_mm: float


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
        """The folder of the adapter."""
        length = f"{self.epochs}-{self.minutes}{self.decoder and f'-{self.decoder}'}"
        length += "".join(f"-{setting}" for setting in self.settings)
        return (
            self.work
            / "runs"
            / self.task.split
            / f"{self.model}-{self.method}-k{self.k}-s{self.seed}-{length}"
        )

    @property
    def predictions(self) -> Path:
        """Where the unseen cases are segmented and scored."""
        return self.run / f"predictions-{len(self.task.scans)}"

    def commands(self) -> list[list[str]]:
        """What a user would type."""
        task = self.task
        pool = self.work / f"{task.split}-pool.txt"
        pool.parent.mkdir(parents=True, exist_ok=True)
        pool.write_text("\n".join(task.pool))
        common = ["--model", self.model, "--workspace", str(self.work)]
        structures = ["--labels", task.structures] if task.structures else []
        chance = ["--k", str(self.k), "--seed", str(self.seed), "--cases", str(pool)]
        training = ["--set", "early_stopping=false", "--set", "crops_per_step=2"]
        training += ["--set", f"epochs={self.epochs}"] if self.epochs else []
        training += ["--minutes", str(self.minutes)] if self.minutes else []
        training += ["--decoder", self.decoder] if self.decoder else []
        training += [part for setting in self.settings for part in ("--set", setting)]
        run, predicted = str(self.run), str(self.predictions)
        return [
            ["preprocess", str(task.folder), *common],
            [
                "adapt",
                str(task.folder),
                *common,
                "--method",
                self.method,
                *chance,
                *training,
                "-o",
                run,
                *structures,
            ],
            [
                "predict",
                *map(str, task.scans),
                "-o",
                predicted,
                "--adapter",
                run,
                "--workspace",
                str(self.work),
            ],
            ["evaluate", predicted, str(task.labels), *structures],
        ]

    def measured(self) -> Row | str:
        """Run the commands, if that was not done before; where `adapt` refuses the method, its line says why."""
        kept = self.predictions / "row.json"
        if kept.is_file():
            return Row(**json.loads(kept.read_text()))
        preprocess, adapt, *rest = self.commands()
        fseft(preprocess)
        before = _busy_seconds()
        if refused := fseft(adapt):
            return refused
        seconds = _busy_seconds() - before
        for command in rest:
            fseft(command)
        metrics = json.loads((self.predictions / "metrics.json").read_text())
        row = Row(
            trained_parameters=json.loads((self.run / "run.json").read_text())[
                "trained_parameters"
            ],
            megabytes=(self.run / "adapter.safetensors").stat().st_size / 1e6,
            minutes=seconds / 60,
            dice=metrics["mean_dice"],
            nsd=metrics["mean_nsd"],
            hd95_mm=metrics["mean_hd95_mm"],
        )
        kept.write_text(json.dumps(asdict(row)))
        return row


def fseft(arguments: list[str]) -> str:
    """Run one command; gives its line where it refuses its input.

    Raises:
        RuntimeError: It failed in another way.
    """
    command = [sys.executable, "-m", "fseft", *arguments]
    done = subprocess.run(
        command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
    )
    if done.returncode == 2:
        return done.stderr.strip().splitlines()[-1].removeprefix("error: ")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return ""


def _busy_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def line(trial: Trial) -> str:
    """One line of the table."""
    row = trial.measured()
    start = f"| {trial.task.name} | {trial.model} | {trial.method} |"
    if isinstance(row, str):
        return f"{start} {row} |" + 5 * " |"
    return (
        f"{start} {row.trained_parameters:,} | {row.megabytes:.2f} | {row.minutes:.1f} "
        f"| {row.dice:.3f} | {row.nsd:.3f} | {row.hd95_mm:.1f} |"
    )


def core_methods() -> list[str]:
    """Those that come with fseft, whatever plugins are installed."""
    known = registry()
    return [
        name
        for name in known.names("method")
        if known.provenance("method", name).distribution == "fseft"
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(core_methods()))
    parser.add_argument("--epochs", type=int, default=20, help="each has k steps")
    parser.add_argument("--minutes", type=float, help="at most so many, where that is less")
    parser.add_argument("--decoder", default="", help="another than by default")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", help="key=value for `adapt`"
    )
    parser.add_argument(
        "--unseen", type=int, default=TEST, help="so many unseen cases are scored, at most"
    )
    parser.add_argument(
        "--validate",
        action="store_true",
        help="for choosing settings: score cases of the pool, kept from learning",
    )
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("benchmark-work"))
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    folder = Path(os.environ["FSEFT_REAL_DATA"])
    trials = []
    for task in (
        TASKS[name](folder, options.unseen, validate=options.validate)
        for name in options.data.split(",")
    ):
        for method in options.methods.split(","):
            spec = registry().method(method)
            model = MODEL if spec.needs_model else SCRATCH
            epochs = None if spec.access == "black-box" else options.epochs
            how = (options.work, epochs, options.minutes, options.decoder, tuple(options.settings))
            trials.append(Trial(task, model, method, options.k, options.seed, *how))
    if options.dry_run:
        for command in (command for trial in trials for command in trial.commands()):
            print("fseft", *command)
        return
    print(HEAD, flush=True)
    for trial in trials:
        print(line(trial), flush=True)


if __name__ == "__main__":
    main()
