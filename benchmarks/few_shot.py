"""The defaults against their ablations and a plain U-Net in equal CPU time, as a Markdown table.

    FSEFT_REAL_DATA=... python benchmarks/few_shot.py [--data hippocampus,headneck,torso,phantom]
        [--rows lora,full,unet] [--k 5] [--seeds 0,1,2] [--minutes 1,4] [--validate]

Each row trains for the given minutes of CPU time on one core, so that other processes on the
machine do not count, and is scored on the native grid of unseen cases. A row is a method, with the
settings that differ from the defaults; `unet` is MONAI's U-Net from random weights, trained with
Dice and cross-entropy on the same crops of the same grid. `torso` consists of deformed copies of
the one torso CT: they show how fast many organs are learned, not how well a result generalises.
Results are stored in --work: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from real_volumes import MODEL, TASKS, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from fseft.adaptation.request import AdaptConfig

ROWS = (
    "lora",
    "full",
    "scratch",
    "lora loss=dice",
    "lora loss=dice_ce",
    "lora crops_per_step=6",
    "lora augment=false",
    "lora --planner native",
)
"""A method, with settings, a planner or a spacing in mm that differ from the defaults."""
UNET = "unet"
UNET_CHANNELS = (16, 32, 64, 128, 256)
UNET_LEARNING_RATE = 2e-3
ORGANS = {
    "spleen": 1,
    "kidney_right": 2,
    "kidney_left": 3,
    "gallbladder": 4,
    "liver": 5,
    "stomach": 6,
    "pancreas": 7,
    "adrenal_gland_right": 8,
    "adrenal_gland_left": 9,
    "aorta": 52,
    "inferior_vena_cava": 63,
    "portal_vein_and_splenic_vein": 64,
}
"""Structures of the torso CT, with their values in its label map."""
KNOWN_TO_MODEL = ("liver", "kidney_right", "kidney_left", "gallbladder", "pancreas")
"""Structures that the model has classes for."""


@dataclass(frozen=True)
class Trial:
    """A training and its score on the unseen cases; `data` is the name of the task."""

    data: str
    task: Task
    row: str
    k: int
    seed: int
    minutes: float
    work: Path

    @property
    def folder(self) -> Path:
        """Folder of the run and its predictions."""
        row = self.row.replace(" ", "-").replace("=", "-")
        name = f"{row}-k{self.k}-s{self.seed}-{self.minutes:g}min"
        split = f"{self.data}-validate" if self.task.validate else self.data
        return self.work / "few-shot" / split / name

    def dice(self) -> float:
        """Returns the mean Dice of the structures; a child process trains, unless done before."""
        stored = self.folder / f"dice-{len(self.task.scans)}.json"
        if not stored.is_file():
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            key = [self.data, self.row, str(self.k), str(self.seed), str(self.minutes)]
            command = [sys.executable, __file__, *sys.argv[1:], "--trial", *key]
            subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
        return float(json.loads(stored.read_text())["dice"])

    def run(self) -> None:
        """Trains, segments and scores in this process, whose clock is that of its CPU time."""
        import fseft

        count_cpu_time()
        predictions = self.folder / f"predictions-{len(self.task.scans)}"
        values = self._unet(predictions) if self.row == UNET else self._adapt(predictions)
        scores = fseft.evaluate(
            predictions,
            self.task.labels,
            metrics=("dice",),
            structures=list(values),
            label_values=values,
            workers=1,
        )
        row = {"dice": scores.mean["dice"], "classes": scores.classes}
        stored = self.folder / f"dice-{len(self.task.scans)}.json"
        stored.write_text(json.dumps(row, default=str))

    def _adapt(self, predictions: Path) -> dict[str, int]:
        import fseft

        method, *words = self.row.split(" ")
        planner = words[-1] if "--planner" in words else ""
        side_mm = float(words[-1]) if "--spacing" in words else None
        settings = dict(word.split("=") for word in words if "=" in word)
        if planner:
            fseft.plan(
                self.task.folder,
                MODEL,
                planner=planner,
                minutes=self.minutes,
                name=planner,
                workspace=self.work,
            )
        adapter = fseft.adapt(
            self.task.folder,
            "none" if method == "scratch" else MODEL,
            method,
            self.k,
            seed=self.seed,
            minutes=self.minutes,
            labels=self.task.structures.split(",") if self.task.structures else None,
            cases=self.task.pool,
            settings=settings,
            spacing_mm=(side_mm, side_mm, side_mm) if side_mm else None,
            plan=planner,
            output=self.folder,
            workspace=self.work,
            overwrite=True,
        )
        fseft.predict(list(self.task.scans), adapter, predictions, workspace=self.work)
        return adapter.labels

    def _unet(self, predictions: Path) -> dict[str, int]:
        """Trains MONAI's U-Net on the grid and the crops of `lora`, and segments the scans."""
        from fseft.adaptation.configure import configure
        from fseft.adaptation.request import AdaptRequest
        from fseft.api._resolve import as_dataset, as_model, as_workspace
        from fseft.experiment.settings import configure_method

        workspace = as_workspace(self.work)
        request = AdaptRequest(
            dataset=as_dataset(self.task.folder, strict=False, reader=""),
            model=as_model(MODEL, workspace),
            method=configure_method("lora", {}),
            k=self.k,
            seed=self.seed,
            labels=tuple(filter(None, self.task.structures.split(","))),
            cases=self.task.pool,
            minutes=self.minutes,
        )
        config = configure(request, workspace)
        network = train_unet(config, workspace, 60 * self.minutes)
        predictions.mkdir(parents=True, exist_ok=True)
        for scan in self.task.scans:
            segment(network, config, scan, predictions)
        return config.labels


def count_cpu_time() -> None:
    """Lets time budgets of this process count its CPU time."""
    from fseft.adaptation import method_selection, training
    from fseft.learn import training_loop

    for module in (method_selection, training, training_loop):
        vars(module)["time"] = SimpleNamespace(monotonic=time.process_time)


def train_unet(config: AdaptConfig, workspace: Any, seconds: float) -> nn.Module:
    """Trains a U-Net from random weights for a CPU time; AdamW with a cosine schedule."""
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    from fseft.adaptation.support_crops import SupportCrops
    from fseft.planning.preprocessing import preprocess

    torch.manual_seed(config.request.seed)
    cache = preprocess(config.request.dataset, config.plan, workspace, cases=config.support.cases)
    crops = SupportCrops.of(config, [cache.open(name) for name in config.support.cases])
    strides = (2,) * (len(UNET_CHANNELS) - 1)
    classes = 1 + len(config.labels)
    network: nn.Module = UNet(
        3, len(config.channels), classes, UNET_CHANNELS, strides, num_res_units=2
    )
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    step, began = 0, time.process_time()
    while (progress := (time.process_time() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = UNET_LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * progress))
        batch = crops.draw(step)
        value = loss(network(torch.from_numpy(batch.images)), torch.from_numpy(batch.labels))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
    return network.eval()


def segment(network: nn.Module, config: AdaptConfig, scan: Path, folder: Path) -> None:
    """Writes the label map of a scan on its native grid."""
    from fseft.learn.sampling.patch_sampler import network_input
    from fseft.learn.sliding_window import sliding_window_logits
    from fseft.volume.image import read_volume, write_labels
    from fseft.volume.preprocessing import LabelMerger, preprocess_volume

    preprocessing, values = config.plan.preprocessing, [0, *config.labels.values()]
    volume = read_volume(scan, channels=len(config.channels), case=scan.name)
    prepared = preprocess_volume(volume, None, preprocessing)
    patch_size = preprocessing.patch_size
    image, inside = network_input(prepared.image, preprocessing, prepared.statistics(), patch_size)
    logits = sliding_window_logits(network, image, patch_size=patch_size)
    logits = logits[(slice(None), *inside)]
    merger = LabelMerger.empty(volume.geometry, max(values), np.uint8)
    merger.adder(prepared, values, 1)(logits)
    name = scan.name.removesuffix(".nii.gz").removesuffix("_0000")
    write_labels(folder / f"{name}.nii.gz", merger.labels, volume.geometry, scan=scan)


def phantom(_: Path, unseen: int, *, validate: bool = False, work: Path) -> Task:
    """Returns the task on phantoms of another scanner, and structures new to the model."""
    from fseft.phantom import LEFT_OUT

    return _phantoms(work / "phantom", LEFT_OUT, unseen, validate=validate)


def phantom_known(_: Path, unseen: int, *, validate: bool = False, work: Path) -> Task:
    """Returns the task on phantoms of another scanner, and structures that the model knows."""
    folder = work / "phantom-known"
    return _phantoms(folder, KNOWN_TO_MODEL, unseen, validate=validate)


def _phantoms(folder: Path, structures: tuple[str, ...], unseen: int, *, validate: bool) -> Task:
    from fseft.phantom import PhantomSet, write_phantoms

    phantoms = PhantomSet(folder.name, "ct", structures, cases=30, seed=7)
    write = partial(write_phantoms, phantoms=phantoms, test_cases=2 * unseen, shift=1.0)
    _write_once(folder, write)
    scans = sorted((folder / "imagesTs").iterdir())
    chosen = scans[:unseen] if validate else scans[unseen : 2 * unseen]
    pool = tuple(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())
    name, labels = f"{folder.name} (CT)", folder / "labelsTs"
    return Task(name, folder, pool, tuple(chosen), labels, "", validate)


def _write_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Writes a dataset unless it is there; one that was interrupted is written again."""
    if not folder.is_dir():
        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        write(draft)
        draft.rename(folder)


def torso(
    data: Path, unseen: int, *, validate: bool = False, work: Path, structures: str = ""
) -> Task:
    """Returns the task on deformed copies of the torso CT, with twelve organs by default."""
    folder = work / "torso"
    _write_once(folder, partial(write_torsos, data / "torso_ct", cases=10 + 2 * unseen))
    scans = sorted((folder / "imagesTr").iterdir())
    pool = tuple(path.name.removesuffix("_0000.nii.gz") for path in scans[:10])
    chosen = scans[10 : 10 + unseen] if validate else scans[10 + unseen :]
    name, labels = f"torso{'-known' if structures else ''} (CT)", folder / "labelsTr"
    return Task(name, folder, pool, tuple(chosen), labels, structures, validate)


def torso_known(data: Path, unseen: int, *, validate: bool = False, work: Path) -> Task:
    """Returns the task on the torso CT with the organs that the model knows."""
    structures = ",".join(KNOWN_TO_MODEL)
    return torso(data, unseen, validate=validate, work=work, structures=structures)


def write_torsos(source: Path, folder: Path, cases: int) -> None:
    """Writes copies of the torso CT that are scaled, sheared, bent, and noisy, at 3 mm."""
    import SimpleITK
    from scipy.ndimage import gaussian_filter, map_coordinates

    scan = SimpleITK.ReadImage(source / "example_ct.nii.gz")
    image = SimpleITK.GetArrayFromImage(scan).astype(np.float32)
    labelled = SimpleITK.ReadImage(source / "example_seg_fast_force_split.nii.gz")
    stored = SimpleITK.GetArrayFromImage(labelled)
    label = np.zeros_like(stored)
    for value, original in enumerate(ORGANS.values(), start=1):
        label[stored == original] = value
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij")).astype(np.float32)
    centre = np.asarray(image.shape)[:, None, None, None] / 2
    for case in range(cases):
        rng = np.random.default_rng(case)
        matrix = np.eye(3) + rng.uniform(-0.12, 0.12, (3, 3))
        moved = np.tensordot(matrix, grid - centre, 1) + centre
        for axis in moved:
            bend = gaussian_filter(rng.standard_normal(image.shape), 8)
            axis += bend * (6 / np.abs(bend).max() * rng.uniform(0.5, 1))
        copy = map_coordinates(image, moved, order=1, cval=-1000)
        noise = gaussian_filter(rng.standard_normal(image.shape), 1) * 100 + rng.normal(0, 15)
        copy = np.where(copy > -300, copy + noise, copy).astype(np.int16)
        copied = map_coordinates(label, moved, order=0).astype(np.uint8)
        for array, place in ((copy, "imagesTr/{}_0000"), (copied, "labelsTr/{}")):
            path = folder / f"{place.format(f'torso_{case:02}')}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            output = SimpleITK.GetImageFromArray(array)
            output.CopyInformation(scan)
            SimpleITK.WriteImage(output, path)
    labels = {"background": 0, **{name: value for value, name in enumerate(ORGANS, start=1)}}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": cases}))


SYNTHETIC = {
    "torso": torso,
    "torso-known": torso_known,
    "phantom": phantom,
    "phantom-known": phantom_known,
}


def make_task(name: str, options: argparse.Namespace) -> Task:
    """Returns a task by its name."""
    data, unseen, validate = Path(os.environ["FSEFT_REAL_DATA"]), options.unseen, options.validate
    if name in TASKS:
        return TASKS[name](data, unseen, validate=validate)
    return SYNTHETIC[name](data, unseen, validate=validate, work=options.work)


def parse_options(description: str, data: Sequence[str], rows: Sequence[str]) -> argparse.Namespace:
    """Returns the options of the command line; with default tasks and rows."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default=",".join(data), help=f"of {', '.join((*TASKS, *SYNTHETIC))}")
    add("--rows", default=",".join(rows), help="methods, each with settings")
    add("--k", default="5")
    add("--seeds", default="0")
    add("--minutes", default="1", help="CPU minutes of each training")
    add("--unseen", type=int, default=8, help="maximum number of unseen cases")
    add("--validate", action="store_true", help="score validation cases, to choose settings")
    add("--work", type=Path, default=Path("benchmark-work"))
    add("--trial", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Prints the table; the process of a trial prints nothing."""
    options = parse_options(__doc__ or "", (*TASKS, "torso", "phantom"), (*ROWS, UNET))
    if options.trial:
        name, row, k, seed, minutes = options.trial
        task = make_task(name, options)
        Trial(name, task, row, int(k), int(seed), float(minutes), options.work).run()
        return
    print("| data | k | CPU min | row | seeds | Dice |\n|---|---|---|---|---|---|", flush=True)
    for name in options.data.split(","):
        task = make_task(name, options)
        for k in map(int, options.k.split(",")):
            for minutes in map(float, options.minutes.split(",")):
                for row in options.rows.split(","):
                    seeds = map(int, options.seeds.split(","))
                    trials = [
                        Trial(name, task, row, k, seed, minutes, options.work) for seed in seeds
                    ]
                    print(_line(trials), flush=True)


def _line(trials: list[Trial]) -> str:
    """Returns the line of trials that differ in their seed."""
    trial, dice = trials[0], [trial.dice() for trial in trials]
    deviation = f" ± {statistics.stdev(dice):.3f}" if len(dice) > 1 else ""
    score = f"{statistics.mean(dice):.3f}{deviation}"
    cells = (trial.task.name, trial.k, f"{trial.minutes:g}", trial.row, len(dice), score)
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
