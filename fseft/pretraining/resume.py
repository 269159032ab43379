"""What lies under the name of a new model before its pre-training: a finished model, checkpoints, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.model_zoo.catalogue import find_model_card, find_weights
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.experiment.checkpoints import CheckpointFolder
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

SETTINGS = "settings"
"""Where a model's provenance and a checkpoint hold what they were made with: option -> value, in words."""

DATA = "data"
"""Where they hold the key of the content of all cases."""

STRUCTURES = "structures"
"""Where they hold what the network has outputs for."""

CROPS = "crops of a step"
"""Setting: over all ranks."""

ADDED = {"loss": "dice_ce", "optimizer": "adamw", "schedule": "cosine"}
"""Settings that earlier versions did not record, with the values that they used."""

MAY_CHANGE = (CROPS, "licence", "half")
"""Settings that a checkpoint may be gone on without."""

MAY_CHANGE_IF_ASKED = ("learning_rate", "patch_size", DATA)
"""With `--resume` these too: what helps a training that a loss of nan or the want of memory has ended."""


@dataclass(frozen=True)
class PreviousRun:
    """An earlier answer to a request of that name.

    Attributes:
        folder: Of the model.
        card: Of the finished model, if there is one.
        finished: What it was made with, as in `SETTINGS`, and the data's key.
        begun: The same of the newest checkpoint; None where there is none.
    """

    folder: Path
    card: ModelCard | None
    finished: Mapping[str, str]
    begun: Mapping[str, str] | None

    @classmethod
    def of(cls, name: str, checkpoints: CheckpointFolder, store: Workspace) -> PreviousRun:
        """Read what there is.

        Raises:
            FseftError: It is damaged.
        """
        card = _whole_model(name, store)
        provenance = card.provenance if card else {}
        structures = ", ".join(card.classes if card else ())
        finished = {
            **ADDED,
            **TrainingConfig.upgrade(provenance.get(SETTINGS, {})),
            DATA: provenance.get(DATA, ""),
            STRUCTURES: structures,
        }
        begun = checkpoints.facts()
        begun = None if begun is None else {**ADDED, **TrainingConfig.upgrade(begun)}
        return cls(checkpoints.folder, card, finished, begun)

    def answers(self, asked: Mapping[str, str]) -> bool:
        """Whether the finished model was made with just this."""
        return self.card is not None and all(
            self.finished.get(key) == value for key, value in asked.items()
        )

    def can_resume(self, asked: Mapping[str, str], *, resume: bool) -> bool:
        """Whether the checkpoint is gone on with; more may have changed if that is asked for."""
        free = (*MAY_CHANGE, *(MAY_CHANGE_IF_ASKED if resume else ()))
        wanted = {key: value for key, value in asked.items() if key not in free}
        return self.begun is not None and all(
            self.begun.get(key) == value for key, value in wanted.items()
        )

    def refuse_other(self, asked: Mapping[str, str], *, resume: bool) -> None:
        """Refuse to lose what was made with other settings.

        Args:
            asked: Settings of the request; with the data's key where it is known already.
            resume: Refuse to start anew, too.

        Raises:
            FseftError: It would be lost, or there is nothing to go on with.
        """
        if self.answers(asked) or self.can_resume(asked, resume=resume):
            return
        if self.card is not None:
            raise FseftError(
                f"the model {self.card.name!r} is there already, made with other settings"
                f"{differences(asked, self.finished)}",
                file=self.folder,
                hint="Give the same settings, another --out, or --overwrite, after which adapters on it are refused.",
            )
        if self.begun is None:
            if resume:
                raise FseftError(
                    "there is no checkpoint to go on with",
                    file=self.folder,
                    hint="Leave out --resume to start anew.",
                )
            return
        others = "another --out, or --overwrite to start anew"
        going_on = (
            "--resume to go on with them"
            if self.can_resume(asked, resume=True)
            else "the same settings to go on"
        )
        raise FseftError(
            f"holds an unfinished training with other settings{differences(asked, self.begun)}",
            file=self.folder,
            hint=f"Give {going_on}, {others}.",
        )


def _whole_model(name: str, store: Workspace) -> ModelCard | None:
    """The card of a finished model; what has lost its weights is none."""
    if name not in store.models():
        return None
    try:
        find_weights(name, store)
    except FseftError:
        return None
    return find_model_card(name, store)


def differences(asked: Mapping[str, str], made: Mapping[str, str]) -> str:
    """` (learning_rate 0.001, not 0.01)`."""
    if not asked.keys() & made.keys():
        return " (an earlier version made it, and did not note which)"
    changed = [key for key, value in asked.items() if key in made and made[key] != value]
    told = (
        "the cases or their labels" if key == DATA else f"{key} {made[key]}, not {asked[key]}"
        for key in changed
    )
    return f" ({'; '.join(told)})" if changed else ""
