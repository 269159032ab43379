"""Plans how a dataset is processed for a model, from contract, fingerprints and resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.devices import select_device
from fseft.planning.channels import (
    check_channels,
    choose_channels,
    constant_channels,
)
from fseft.planning.decisions import compute_decisions, data_decisions, stored_plan_decision
from fseft.planning.fingerprinting import fingerprint_dataset, restrict_labels
from fseft.planning.grid import plan_grid
from fseft.planning.label_presence import incomplete_annotations
from fseft.planning.options import NO_OPTIONS
from fseft.planning.rules import (
    check_contract,
    describe_clipping,
    rare_structures,
)
from fseft.planning.training_step import (
    choose_step,
    find_resources,
    for_minutes,
    with_crops,
)
from fseft.schemas import Contract, Fingerprint, Intensity, Plan, PlanOptions, Preprocessing
from fseft.volume.intensity import select_intensity_scheme
from fseft.workspace import digest, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.parallel import Workers
    from fseft.planning.fingerprinting import TrainingLabels
    from fseft.planning.spacing import Grid
    from fseft.planning.training_step import Device
    from fseft.schemas import (
        ChannelMode,
        Dataset,
        IntensityStats,
        ModelCard,
        Triple,
    )
    from fseft.workspace import Workspace

_KEEPING = {"minutes": None, "crops_per_step": None, "unlabelled": False}
"""Options that do not replace a stored plan, and what leaves them out."""


def make_plan(
    dataset: Dataset,
    model: FoundationModel,
    workspace: Workspace,
    options: PlanOptions = NO_OPTIONS,
    *,
    name: str = "",
    workers: Workers = 1,
    callbacks: Callbacks | None = None,
    reuse: bool = False,
) -> tuple[Fingerprint, Plan]:
    """Fingerprints a dataset and plans it for a model; both documents are written to the workspace.

    Args:
        dataset: The dataset.
        model: The foundation model; the one called "none" stands for random weights.
        workspace: Where fingerprint and plan are stored.
        options: What the user sets; the rest is planned.
        name: Name of an alternative plan.
        workers: Processes, or the address of a dask scheduler.
        callbacks: Observe the fingerprinting.
        reuse: Return the stored plan, see `stored_plan`, if there are no options; a plan that is
            made instead is not written.

    Returns:
        The fingerprint and the plan.

    Raises:
        FseftError: A case is broken, the model has other input channels, the device does not exist,
            or the smallest training step exceeds the memory.
    """
    check_channels(model, dataset, options.channels)
    fingerprint = measure(dataset, model, workspace, workers=workers, callbacks=callbacks)
    if reuse and options == NO_OPTIONS:
        stored = stored_plan(dataset, model, workspace, fingerprint, name)
        if stored:
            return fingerprint, stored
    plan = plan_for(model, fingerprint, options, dataset=dataset)
    if not reuse:
        write_document(workspace.plan(dataset.name, model.name, name), plan)
    return fingerprint, plan


def measure(
    dataset: Dataset,
    model: FoundationModel,
    workspace: Workspace,
    *,
    workers: Workers = 1,
    callbacks: Callbacks | None = None,
) -> Fingerprint:
    """Fingerprints a dataset for a model; arguments and errors as for `make_plan`."""
    check_channels(model, dataset)
    callbacks = callbacks or Callbacks()
    with callbacks.progress("measure", len(dataset.cases)) as advance:
        return fingerprint_dataset(dataset, workspace, workers=workers, progress=advance)


def stored_plan(
    dataset: Dataset,
    model: FoundationModel,
    workspace: Workspace,
    fingerprint: Fingerprint,
    name: str = "",
) -> Plan | None:
    """Returns the stored plan, also an edited one, if it is up to date.

    That is: it was made for this model and these files, and its device exists.

    Raises:
        FseftError: A plan of this name does not exist, or is outdated.
    """
    path = workspace.plan(dataset.name, model.name, name)
    plan = read_document(path, Plan) if path.is_file() else None
    if plan and _is_current(plan, model, fingerprint):
        return plan
    if name:
        cause = "does not exist" if plan is None else "is outdated: dataset or model have changed"
        hint = f"Make it: fseft plan {dataset.folder} --model {model.name} --name {name} ..."
        raise FseftError(f"the plan {name!r} {cause}", file=path, hint=hint)
    return None


def plan_adaptation(
    dataset: Dataset,
    model: FoundationModel,
    workspace: Workspace,
    fingerprint: Fingerprint,
    labels: TrainingLabels,
    options: PlanOptions = NO_OPTIONS,
    name: str = "",
    previous: Path | None = None,
    *,
    continued: bool = False,
) -> Plan:
    """Returns the plan for training on some labels: a stored one, or else one made for them.

    A label that is used for any decision counts in k: the sizes of structures, what a spacing costs
    them, and intensity statistics come from the training cases alone. A stored plan was made for
    the whole dataset, by the user's command.

    Args:
        dataset: The dataset.
        model: The foundation model.
        workspace: Where plans are stored.
        fingerprint: Fingerprint of the dataset.
        labels: The training labels.
        options: What the user sets; all but `minutes`, `crops_per_step` and `unlabelled` replaces
            the stored plan.
        name: Name of an alternative plan, which must exist.
        previous: Plan of an earlier run, to be resumed on a machine that would plan differently; it
            is used if it was made with the same options, for this model and these files.
        continued: Whether the earlier run can continue with more minutes, which then do not change
            its plan.

    Raises:
        FseftError: As for `make_plan` and `stored_plan`; the options contradict the plan of this
            name, or its memory is too small for the crops.
    """
    replacing = options.model_copy(update=_KEEPING)
    plan = None
    if name or replacing == NO_OPTIONS:
        plan = stored_plan(dataset, model, workspace, fingerprint, name)
    if plan is None and previous and previous.is_file():
        kept = read_document(previous, Plan)
        options_then = kept.options
        if continued:
            options_then = options_then.model_copy(update={"minutes": options.minutes})
        if options_then == options and _is_current(kept, model, fingerprint):
            update = {"options": options, "minutes": options.minutes or kept.minutes}
            return kept.model_copy(update=update)
    if plan is None:
        plan = plan_for(model, fingerprint, options, dataset=dataset, labels=labels)
    else:
        _check_named(name, plan, replacing)
        plan = with_crops(plan, options, len(fingerprint.labels))
        plan = _for_labels(plan, model.card.contract, fingerprint, labels)
    return _restrict_intensity(
        for_minutes(plan, options.minutes), model.card.contract, dataset, labels.cases
    )


def _check_named(name: str, plan: Plan, options: PlanOptions) -> None:
    """Refuses options that contradict a plan chosen by its name, which they would not change."""
    if options.device != NO_OPTIONS.device and select_device(options.device) == plan.device:
        options = options.model_copy(update={"device": NO_OPTIONS.device})
    if contradicting := options.model_dump(exclude_defaults=True):
        parameters = {"spacing_mm": "spacing", "patch_size": "patch", "memory_bytes": "memory"}
        names = ", ".join(f"`{parameters.get(key, key)}`" for key in contradicting)
        raise FseftError(
            f"the plan {name!r} decides {names}",
            hint="Make another plan with these values, or leave them out.",
        )


def plan_for(
    model: FoundationModel,
    fingerprint: Fingerprint,
    options: PlanOptions = NO_OPTIONS,
    *,
    dataset: Dataset | None = None,
    labels: TrainingLabels | None = None,
) -> Plan:
    """Plans a fingerprinted dataset without writing the plan.

    Args:
        model: The foundation model.
        fingerprint: Fingerprint of the dataset.
        options: What the user sets; the rest is planned.
        dataset: The dataset, to measure what a spacing costs the labels; None not to.
        labels: Labels from which structures are measured; None for all.
    """
    card, contract = model.card, model.card.contract
    resources = find_resources(options)
    known = fingerprint if labels is None else restrict_labels(fingerprint, labels)
    channels = choose_channels(model, fingerprint.channels, options.channels)
    grid = plan_grid(model, known, resources.device, options, dataset)
    step, budget = choose_step(model, fingerprint, grid, resources, options, channels.inputs)
    preprocessing, reason = _preprocessing(contract, fingerprint, grid, step.patch, channels.mode)
    return Plan(
        dataset=fingerprint.dataset,
        model=card.name,
        card=_key(card),
        fingerprint=fingerprint.content,
        architecture=card.architecture,
        hparams=card.hparams,
        preprocessing=preprocessing,
        crops_per_step=step.crops,
        memory_bytes=step.memory_bytes,
        device=resources.device,
        minutes=budget.minutes,
        options=options,
        decisions=(
            *channels.decisions,
            *data_decisions(fingerprint, preprocessing, grid, reason),
            *compute_decisions(model, step, budget, resources),
        ),
        annotated=_annotated(dataset, fingerprint),
        warnings=_warnings(contract, fingerprint, preprocessing, grid, labels),
    )


def _preprocessing(
    contract: Contract,
    fingerprint: Fingerprint,
    grid: Grid,
    patch_size: Triple,
    mode: ChannelMode | None,
) -> tuple[Preprocessing, str]:
    """Returns the preprocessing of a contract with what was decided; why these intensities."""
    intensity, reason = _choose_intensity(contract, fingerprint, mode)
    preprocessing = Preprocessing(
        orientation=contract.orientation,
        spacing_mm=grid.spacing_mm,
        modality=fingerprint.modality,
        intensity=intensity,
        patch_size=patch_size,
        channel_mode=mode,
        **contract.conventions,
    )
    return preprocessing, reason


def _annotated(dataset: Dataset | None, fingerprint: Fingerprint) -> dict[str, tuple[str, ...]]:
    """Returns the structures that each case annotates; nothing if every case annotates all."""
    if dataset is None:
        return {}
    cases = [case.name for case in fingerprint.cases if case.labelled]
    classes = fingerprint.classes
    drawn = [name for name in classes if classes[name].cases]
    annotated = incomplete_annotations(dataset, fingerprint, cases, drawn)
    ordered = {}
    for case, names in annotated.items():
        ordered[case] = tuple(name for name in drawn if name in names)
    return ordered


def _choose_intensity(
    contract: Contract, fingerprint: Fingerprint, mode: ChannelMode | None
) -> tuple[tuple[Intensity, ...], str]:
    """Returns the normalisation of every channel, and the reason with what it clips."""
    schemes, reason = select_intensity_scheme(
        contract, fingerprint.modality, _used(fingerprint.intensities, mode)
    )
    clipping = describe_clipping(contract, fingerprint)
    return schemes, f"{reason}; {clipping}" if clipping else reason


def _used(
    statistics: tuple[IntensityStats, ...], mode: ChannelMode | None
) -> tuple[IntensityStats, ...]:
    """Returns the statistics of the channels that are read."""
    return statistics[:1] if mode == "first" else statistics


def _warnings(
    contract: Contract,
    fingerprint: Fingerprint,
    preprocessing: Preprocessing,
    grid: Grid,
    labels: TrainingLabels | None,
) -> tuple[str, ...]:
    """Returns all warnings of a plan."""
    misfits = _misfits(contract, fingerprint, preprocessing, labels)
    constant = constant_channels(fingerprint)
    return (*fingerprint.warnings, *constant, *misfits, *grid.warnings)


def _misfits(
    contract: Contract,
    fingerprint: Fingerprint,
    preprocessing: Preprocessing,
    labels: TrainingLabels | None,
) -> tuple[str, ...]:
    """Returns warnings of what does not suit the structures of the training labels, or of all."""
    known = fingerprint if labels is None else restrict_labels(fingerprint, labels)
    structures = None if labels is None else labels.structures
    return (
        *check_contract(contract, known, preprocessing),
        *rare_structures(fingerprint, structures),
    )


def _for_labels(
    plan: Plan, contract: Contract, fingerprint: Fingerprint, labels: TrainingLabels
) -> Plan:
    """Returns a stored plan with warnings about the training labels, and a note if it has more."""
    general = _misfits(contract, fingerprint, plan.preprocessing, None)
    others = [warning for warning in plan.warnings if warning not in general]
    restricted = _misfits(contract, fingerprint, plan.preprocessing, labels)
    stored = stored_plan_decision(fingerprint, len(labels.cases))
    return plan.model_copy(
        update={"warnings": (*others, *restricted), "decisions": (*stored, *plan.decisions)}
    )


def _key(card: ModelCard) -> str:
    """Digests what a stored plan depends on of a model.

    The ranges of its training only guide a new plan.
    """
    parts = {"name", "architecture", "hparams", "contract"}
    guides = {"spacing_range_mm", "structure_range_voxels"}
    return digest(card.model_dump(mode="json", include=parts, exclude={"contract": guides}))


def _is_current(plan: Plan, model: FoundationModel, fingerprint: Fingerprint) -> bool:
    """Whether a plan was made for this model and these files, and its device exists."""
    unchanged = (plan.fingerprint, plan.card) == (fingerprint.content, _key(model.card))
    return unchanged and _is_available(plan.device)


def _is_available(device: Device) -> bool:
    return device == "cpu" or select_device("auto") == device


def _restrict_intensity(
    plan: Plan, contract: Contract, dataset: Dataset, support: Collection[str]
) -> Plan:
    """Replaces the intensity statistics of a plan by those of the training cases.

    A label that is used for any decision counts in k, and statistics of the foreground are such a
    decision. An intensity scheme that the model's contract prescribes stays.

    Args:
        plan: The plan of the dataset.
        contract: The preprocessing contract of the model.
        dataset: The dataset.
        support: Names of the training cases.
    """
    from fseft.volume.fingerprint import foreground_statistics

    modality = plan.preprocessing.modality
    uses_statistics = any(
        channel.scheme == "clip-zscore" for channel in plan.preprocessing.intensity
    )
    if modality in contract.intensity or not uses_statistics:
        return plan
    statistics = foreground_statistics(dataset, support)
    statistics = _used(statistics, plan.preprocessing.channel_mode)
    intensity, _ = select_intensity_scheme(contract, modality, statistics)
    preprocessing = plan.preprocessing.model_copy(update={"intensity": intensity})
    return plan.model_copy(update={"preprocessing": preprocessing})
