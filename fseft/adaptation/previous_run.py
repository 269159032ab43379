"""The run that a folder contains: finished, to be resumed or continued, or another one."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from fseft.adaptation.differences import describe_differences
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import is_intact
from fseft.model_zoo.adapter_path import NAME
from fseft.schemas import Plan, Run
from fseft.workspace import read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.adaptation.request import AdaptConfig

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
SEEDS = "seeds"
"""Subfolder of the trainings with several seeds, each with its own checkpoint."""


def checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of the training in a folder, or of its trainings with several seeds.

    Args:
        folder: Folder of the run.
    """
    own = [path for path in (folder / CHECKPOINT,) if path.is_file()]
    of_seeds = folder.glob(f"{SEEDS}/*/{CHECKPOINT}")
    return own + sorted(of_seeds)


def is_usable(adapter: Path) -> bool:
    """Returns whether the adapter of a finished run exists and is intact."""
    if not adapter.is_file():
        return False
    usable = is_intact(adapter)
    if not usable:
        logger.warning("%s: the adapter is damaged: it is trained again", adapter)
    return usable


def previous_run(folder: Path, new: Run, *, overwrite: bool) -> Run | None:
    """Returns the run in the folder if it has the same settings, finished or not.

    With `overwrite`, its checkpoints are removed. A run that can be continued with a longer
    training is not returned, and its checkpoints stay.

    An adapter stays until the new one replaces it.

    Raises:
        FseftError: It has other settings and results, which are not to be overwritten.
    """
    path = folder / "run.json"
    previous = read_document(path, Run) if path.is_file() else None
    differences = describe_differences(previous, new) if previous else "unknown settings"
    if not differences and not overwrite:
        return previous
    if previous and not overwrite and _is_extended(previous, new, folder):
        return None
    saved = checkpoints(folder)
    if (saved or (folder / NAME).is_file()) and not overwrite:
        raise FseftError(
            f"already contains a run with {differences}",
            file=folder,
            hint="Use the same settings to resume it, another `output`, or `overwrite`.",
        )
    for checkpoint in saved:
        checkpoint.unlink()
    return None


def _is_extended(previous: Run, new: Run, folder: Path) -> bool:
    """Returns whether a run in the folder can continue to more minutes or epochs, and else equals.

    The minutes and epochs are those of the whole training, as for `nnUNetv2_train --c`.
    """
    minutes, epochs = new.recipe.get("minutes"), new.recipe.get("epochs", 0)
    recipe = {**previous.recipe, "minutes": minutes, "epochs": epochs}
    same = previous.model_copy(update={"recipe": recipe})
    if not checkpoints(folder) or describe_differences(same, new):
        return False
    if minutes is not None and 60 * minutes <= previous.seconds:
        return False
    return bool(epochs > previous.epochs)


def with_former_crops(config: AdaptConfig, folder: Path) -> AdaptConfig:
    """Keeps the crops per step of the training in a folder, where they follow from the minutes.

    More minutes allow more crops per step, and steps of another size would be another training.
    """
    path, plan = folder / "plan.json", config.plan
    set_by_hand = plan.options.crops_per_step is not None
    if config.request.minutes is None or set_by_hand or not path.is_file():
        return config
    if not checkpoints(folder):
        return config
    former = read_document(path, Plan)
    crops = {"crops_per_step": former.crops_per_step}
    if former.preprocessing != plan.preprocessing:
        return config
    return replace(config, plan=plan.model_copy(update=crops))
