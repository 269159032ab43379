"""Pre-train a foundation model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.api._resolve import as_workspace
from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.api._resolve import WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.schemas import ModelCard


def pretrain(
    datasets: str | Path | Sequence[str | Path],
    name: str,
    *,
    init: str = "",
    architecture: str = "",
    hparams: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    workspace: WorkspaceLike = ".",
    callbacks: Callbacks | None = None,
    **options: Any,
) -> ModelCard:
    """Trains a foundation model on partially labelled datasets.

    A structure counts only in the cases that annotate it. Under torchrun, all ranks call this
    function.

    Args:
        datasets: Folders of datasets.
        name: Name of the new model, which is stored in the workspace.
        init: A foundation model, or a file of weights, to start from; empty for random weights.
        architecture: Name of the architecture; empty for that of `init`, or a small one.
        hparams: Hyper-parameters of the architecture.
        labels: The classes of the model; empty for all.
        settings: Training settings that differ from those of pre-training, such as `epochs`.
        workspace: Folder for fingerprints, caches and models.
        callbacks: Observe the progress and the epochs.
        **options: Other fields of `fseft.pretraining.configure.PretrainRequest`, such as
            `patch_size`, `seed` or `minutes`.

    Returns:
        The card of the new model. An interrupted run is resumed, and a finished one is not
        repeated.

    Raises:
        FseftError: Unknown options, a broken dataset, or a loss that is not finite.

    Examples:
        >>> card = pretrain(["livers", "kidneys"], "abdomen", steps_per_epoch=250)  # doctest: +SKIP
    """
    from fseft.experiment.settings import training_config
    from fseft.pretraining.configure import DEFAULT_TRAINING, PretrainRequest
    from fseft.pretraining.run import pretrain as run_pretraining

    names = [field.name for field in fields(PretrainRequest)]
    for option in options:
        if option not in names:
            hint = did_you_mean(option, names)
            raise FseftError(f"pre-training has no option {option!r}", hint=hint)
    folders = [datasets] if isinstance(datasets, str | Path) else datasets
    request = PretrainRequest(
        folders=tuple(map(Path, folders)),
        name=name,
        init=init,
        architecture=architecture,
        hparams=dict(hparams or {}),
        labels=tuple(labels),
        training=training_config(DEFAULT_TRAINING, settings or {}),
        **options,
    )
    return run_pretraining(request, as_workspace(workspace), callbacks)
