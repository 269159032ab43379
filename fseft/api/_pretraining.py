"""Pre-train a foundation model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.api._resolve import as_dataset, as_initial_weights, as_selection, as_workspace
from fseft.errors import FseftError, did_you_mean
from fseft.schemas import Dataset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.api._resolve import DatasetLike, WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import ModelCard


def pretrain(
    datasets: DatasetLike | Sequence[DatasetLike],
    name: str,
    *,
    init: str | Path | FoundationModel = "",
    architecture: str = "",
    hparams: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    missing_label: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    device: str = "auto",
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
        labels: The classes of the model; None for all.
        missing_label: Dataset -> what a structure means that its labels do not contain: "absent",
            or "unannotated"; the empty name stands for all other datasets.
        settings: Training settings that differ from those of pre-training, such as `epochs`, and
            hyper-parameters of the architecture.
        strict: Refuse images without a label, labels without an image, and unused files.
        reader: Name of the reader of all datasets; empty for the ones that detect their layouts.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        device: "auto", "cpu" or "cuda".
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
    from fseft.experiment.devices import select_device
    from fseft.experiment.settings import training_config
    from fseft.learn.training.distributed import init_process_group
    from fseft.planning.label_presence import check_missing_label
    from fseft.pretraining.configure import DEFAULT_TRAINING, PretrainRequest, split_settings
    from fseft.pretraining.run import pretrain as run_pretraining

    names = [field.name for field in fields(PretrainRequest)]
    for option in options:
        if option not in names:
            hint = did_you_mean(option, names)
            raise FseftError(f"pre-training has no option {option!r}", hint=hint)
    place = as_workspace(workspace)
    entries = [datasets] if isinstance(datasets, str | Path | Dataset) else datasets

    training, network = split_settings(settings or {})

    def resolve() -> PretrainRequest:
        return PretrainRequest(
            datasets=tuple(
                as_dataset(
                    entry,
                    strict=strict,
                    reader=reader,
                    ignore_label=ignore_label,
                    annotated_slices=annotated_slices,
                )
                for entry in entries
            ),
            name=name,
            init=as_initial_weights(init, place),
            architecture=architecture,
            hparams={**network, **(hparams or {})},
            labels=as_selection("labels", labels),
            missing_label=check_missing_label(missing_label or {}),
            training=training_config(DEFAULT_TRAINING, training),
            device=world.device,
            **options,
        )

    with init_process_group(select_device(device)) as world:
        request = world.run_on_rank_zero(resolve)
        return run_pretraining(request, place, callbacks, world)
