"""Previous run of a pre-training: a finished model or checkpoints under the requested name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fseft.documents import validate
from fseft.errors import FseftError
from fseft.model_zoo.catalogue import find_model
from fseft.planning.label_presence import FORMER_RULES
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.experiment.checkpoints import CheckpointFolder
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

SETTINGS = "settings"
"""Key in a model's provenance: setting -> value in words."""

DATA = "data"
"""Key in provenance and checkpoints: hash of the content of all cases and of their annotations."""

STRUCTURES = "structures"
"""Key in checkpoints: outputs of the network."""

CROPS = "crops of a step"
"""Setting: number of crops per step, over all ranks."""

MAY_CHANGE = (CROPS, "licence", "fp16")
"""Settings that may differ when a checkpoint is resumed."""

MAY_CHANGE_ON_REQUEST = ("learning_rate", "patch_size", DATA)
"""Settings that may differ, too, if the user requests to resume.

They are what a user changes after a training that ended with a loss of NaN or out of memory.
"""

_UNRECORDED = {
    "loss": "dice_ce",
    "optimizer": "adamw",
    "schedule": "cosine",
    "components": "default",
    "plugins": "default",
}
"""Settings that earlier versions did not record, with the values that they used."""

_FORMER_NAMES = {
    "absent_means": "missing_label",
    "validation_share": "validation_fraction",
    "half": "fp16",
}


def upgrade_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Translates setting names and values that earlier versions stored.

    Examples:
        >>> upgrade_settings({"absent_means": "livers=not-drawn", "clip": "1"})
        {'missing_label': 'livers=unannotated', 'max_grad_norm': '1'}
        >>> upgrade_settings({"augment": "shift"})
        {'augment': 'shift'}
    """
    renamed = {_FORMER_NAMES.get(key, key): value for key, value in settings.items()}
    upgraded = TrainingConfig.upgrade(renamed)
    # The stored settings are text, where a list is separated by commas.
    for key, value in upgraded.items():
        upgraded[key] = value if isinstance(value, str) else ",".join(value)
    for former, rule in FORMER_RULES.items():
        if "missing_label" in upgraded:
            upgraded["missing_label"] = upgraded["missing_label"].replace(former, rule)
    return upgraded


@dataclass(frozen=True)
class PreviousRun:
    """Result of an earlier run under the same name.

    Attributes:
        folder: Folder of the model.
        card: Card of the finished model, if there is one.
        model_settings: Settings of the finished model, with the keys of data and structures.
        checkpoint_settings: The same of the newest checkpoint; None without a checkpoint.
    """

    folder: Path
    card: ModelCard | None
    model_settings: Mapping[str, str]
    checkpoint_settings: Mapping[str, str] | None

    @classmethod
    def read(cls, name: str, checkpoints: CheckpointFolder, workspace: Workspace) -> PreviousRun:
        """Reads the card of a finished model, and the settings of the newest checkpoint.

        Args:
            name: Name of the model.
            checkpoints: Checkpoints of its training.
            workspace: Where finished models are stored.

        Raises:
            FseftError: The card or the checkpoint is damaged.
        """
        card = _finished_model(name, workspace)
        provenance = card.provenance if card else {}
        model_settings = {
            **_UNRECORDED,
            **upgrade_settings(_stored_settings(provenance, checkpoints.folder)),
            DATA: provenance.get(DATA, ""),
            STRUCTURES: ", ".join(card.classes if card else ()),
        }
        stored = checkpoints.facts()
        checkpoint_settings = None
        if stored is not None:
            checkpoint_settings = {**_UNRECORDED, **upgrade_settings(stored)}
        return cls(checkpoints.folder, card, model_settings, checkpoint_settings)

    def is_finished(self, requested: Mapping[str, str]) -> bool:
        """Returns whether the finished model was trained with the requested settings."""
        return self.card is not None and _agree(self.model_settings, requested)

    def can_resume(self, requested: Mapping[str, str], *, resume: bool) -> bool:
        """Returns whether the checkpoint can be resumed with the requested settings.

        Args:
            requested: Settings of the request.
            resume: Whether the user requests to resume, so that more settings may differ.
        """
        if self.checkpoint_settings is None:
            return False
        ignored = (*MAY_CHANGE, *(MAY_CHANGE_ON_REQUEST if resume else ()))
        return _agree(
            self.checkpoint_settings,
            {key: value for key, value in requested.items() if key not in ignored},
        )

    def check_compatible(self, requested: Mapping[str, str], *, resume: bool) -> None:
        """Refuses to replace a result of other settings.

        Args:
            requested: Settings of the request; with the keys of data and structures, if known.
            resume: Whether to refuse a start without a checkpoint, too.

        Raises:
            FseftError: A result would be lost, or there is nothing to resume.
        """
        if self.is_finished(requested) or self.can_resume(requested, resume=resume):
            return
        if self.card is not None:
            differences = describe_differences(requested, self.model_settings)
            raise FseftError(
                f"the model {self.card.name!r} exists already, with other settings{differences}",
                file=self.folder,
                hint="Use the same settings, another `name`, or `overwrite`: adapters of the "
                "existing model are then refused.",
            )
        if self.checkpoint_settings is not None:
            raise self._incompatible_checkpoint(requested, self.checkpoint_settings)
        if resume:
            raise FseftError(
                "no checkpoint to resume from",
                file=self.folder,
                hint="Start without `resume`.",
            )

    def _incompatible_checkpoint(
        self, requested: Mapping[str, str], stored: Mapping[str, str]
    ) -> FseftError:
        differences = describe_differences(requested, stored)
        remedy = "Use the same settings to resume"
        if self.can_resume(requested, resume=True):
            remedy = "Set `resume` to continue with the requested settings"
        return FseftError(
            f"contains an unfinished pre-training with other settings{differences}",
            file=self.folder,
            hint=f"{remedy}, use another `name`, or `overwrite` to start over.",
        )


def _stored_settings(provenance: Mapping[str, Any], folder: Path) -> dict[str, str]:
    hint = "Restore model.json, or use `overwrite`."
    settings: dict[str, str] = validate(
        provenance.get(SETTINGS, {}), dict[str, str], name=SETTINGS, hint=hint, file=folder
    )
    return settings


def _agree(stored: Mapping[str, str], requested: Mapping[str, str]) -> bool:
    return all(stored.get(key) == value for key, value in requested.items())


def _finished_model(name: str, workspace: Workspace) -> ModelCard | None:
    """Card of a finished model; None if its weights are missing or damaged."""
    if name not in workspace.models():
        return None
    try:
        model = find_model(name, workspace)
        _ = model.weights
    except FseftError:
        return None
    return model.card


def describe_differences(requested: Mapping[str, str], stored: Mapping[str, str]) -> str:
    """Lists settings that differ, in parentheses; empty if none does.

    Args:
        requested: Settings of this call, as text by name.
        stored: Settings of the earlier training.

    Examples:
        >>> describe_differences({"seed": "1", "data": "b"}, {"seed": "0", "data": "a"})
        ' (seed: 0, requested 1; the cases or their labels)'
    """
    if not requested.keys() & stored.keys():
        return " (unknown: an earlier version did not store them)"
    differences = [
        "the cases or their labels" if key == DATA else f"{key}: {stored[key]}, requested {value}"
        for key, value in requested.items()
        if key in stored and stored[key] != value
    ]
    return f" ({'; '.join(differences)})" if differences else ""
