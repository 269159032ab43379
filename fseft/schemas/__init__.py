"""Schemas of JSON documents: immutable, validated and versioned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from fseft.schemas.base import ChannelMode as ChannelMode
from fseft.schemas.base import Config as Config
from fseft.schemas.base import Document as Document
from fseft.schemas.base import FrozenModel as FrozenModel
from fseft.schemas.base import LabelTable as LabelTable
from fseft.schemas.base import Millimetres as Millimetres
from fseft.schemas.base import Modality as Modality
from fseft.schemas.base import Orientation as Orientation
from fseft.schemas.base import Range as Range
from fseft.schemas.base import RelativePath as RelativePath
from fseft.schemas.base import Triple as Triple
from fseft.schemas.base import WholeNumber as WholeNumber
from fseft.schemas.base import optional
from fseft.schemas.contract import Contract as Contract
from fseft.schemas.contract import Intensity as Intensity
from fseft.schemas.contract import Preprocessing as Preprocessing
from fseft.schemas.contract import ScanRange as ScanRange
from fseft.schemas.cross_validation import (
    CrossValidation as CrossValidation,  # noqa: TC001 - pydantic reads it
)
from fseft.schemas.cross_validation import ExpectedDice as ExpectedDice
from fseft.schemas.dataset import FULLY_ANNOTATED as FULLY_ANNOTATED
from fseft.schemas.dataset import Annotation as Annotation
from fseft.schemas.dataset import Case as Case
from fseft.schemas.dataset import Dataset as Dataset
from fseft.schemas.dataset import MissingLabel as MissingLabel  # noqa: TC001 - pydantic reads it
from fseft.schemas.dataset import Unlabelled as Unlabelled  # noqa: TC001 - pydantic reads it
from fseft.schemas.predictions import PredictedCase as PredictedCase
from fseft.schemas.predictions import Predictions as Predictions
from fseft.schemas.selection import Candidate as Candidate
from fseft.schemas.selection import MethodTrials as MethodTrials
from fseft.schemas.selection import Origin as Origin  # noqa: TC001 - pydantic reads it
from fseft.schemas.selection import Selection as Selection  # noqa: TC001 - pydantic reads it
from fseft.schemas.selection import Soup as Soup  # noqa: TC001 - pydantic reads it
from fseft.schemas.selection import Strength as Strength  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from typing_extensions import Self

PartMode = Literal["frozen", "fine-tuned", "new", "low-rank"]


class CaseFingerprint(FrozenModel):
    """Measurements of one case; shapes and extents along the axes as stored in the file."""

    name: str
    content: str
    shape: Triple
    shape_after_crop: Triple
    spacing_mm: Millimetres
    orientation: Orientation
    voxels: str = ""
    """A key of the image's voxels, equal for the same scan in another file."""
    labelled: bool = False
    annotated: float = 1.0
    """Fraction of the voxels that count as annotated."""
    slices: tuple[int, int] | None = None
    """Drawn slices, and all, of a case that is drawn in single slices."""
    volumes_mm3: dict[str, float] = {}
    extents_mm: dict[str, Millimetres] = {}

    @property
    def annotation(self) -> str:
        """The part of the case that is annotated, in words; empty if all of it is."""
        if not self.labelled or self.annotated == 1:
            return ""
        if self.slices:
            drawn, total = self.slices
            return f"{drawn} of {total} slices annotated"
        return f"{self.annotated:.1%} of the voxels annotated"


class IntensityStats(FrozenModel):
    """Foreground intensities of one channel, with equal weights of all cases."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class ClassFingerprint(FrozenModel):
    """One structure over all cases that have it; extents along the axes RAS."""

    id: int
    cases: int
    median_volume_mm3: float | None = None
    maximum_extent_mm: Millimetres | None = None

    @model_validator(mode="before")
    @classmethod
    def _ignore_minimum_volume(cls, values: Any) -> Any:
        """Reads fingerprints of earlier versions, which also contain `minimum_volume_mm3`."""
        if isinstance(values, Mapping):
            return {key: value for key, value in values.items() if key != "minimum_volume_mm3"}
        return values


class Fingerprint(Document):
    """Measurements of a dataset, from which plans are made."""

    dataset: str
    reader: str
    content: str
    channels: tuple[str, ...]
    modality: Modality
    integer: bool
    labels: LabelTable
    meanings: dict[str, str] = {}
    cases: tuple[CaseFingerprint, ...]
    classes: dict[str, ClassFingerprint]
    intensities: tuple[IntensityStats, ...]
    warnings: tuple[str, ...] = ()

    def partly_annotated(self, cases: Collection[str] | None = None) -> dict[str, str]:
        """Returns the annotated part, in words, of the cases that are not annotated in full.

        Args:
            cases: Names of the cases; None for all.
        """
        parts = {}
        for case in self.cases:
            is_chosen = cases is None or case.name in cases
            if is_chosen and case.annotation:
                parts[case.name] = case.annotation
        return parts


class Decision(FrozenModel):
    """One decision of a plan: its name, the chosen value, the reason, and what was rejected."""

    name: str
    value: str
    reason: str
    rejected: tuple[str, ...] = ()


class PlanOptions(FrozenModel):
    """Values of a plan that the user sets; those that are None are planned.

    Attributes:
        spacing_mm: Spacing along the axes of the model.
        patch_size: Voxels of a patch along the same axes.
        crops_per_step: Crops per training step.
        minutes: Training time budget; None for a default on a CPU, and no limit on a GPU.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        planner: Name of the planner of spacing and patch.
        channels: How several channels reach a model that takes one.
        unlabelled: Whether each step has crops of scans without labels as well.
    """

    spacing_mm: Millimetres | None = None
    patch_size: Triple | None = None
    crops_per_step: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    memory_bytes: int | None = None
    device: str = "auto"
    planner: str = "field-of-view"
    channels: ChannelMode | None = optional()
    unlabelled: bool = optional(False)


class Plan(Document):
    """How a dataset is processed for a model: from contract, fingerprint and resources.

    Attributes:
        annotated: Case -> structures that it annotates; empty if every case annotates all.
        minutes: Training time for which it was made; None for no limit.
        options: What the user had set.
    """

    dataset: str
    model: str
    card: str = ""
    fingerprint: str
    architecture: str
    hparams: dict[str, Any] = {}
    preprocessing: Preprocessing
    crops_per_step: int
    memory_bytes: int
    device: Literal["cpu", "cuda"]
    minutes: float | None = None
    options: PlanOptions = PlanOptions()
    decisions: tuple[Decision, ...]
    annotated: dict[str, tuple[str, ...]] = {}
    warnings: tuple[str, ...] = ()


class ModelCard(Document):
    """A foundation model: architecture, classes, preprocessing contract, licence and provenance."""

    name: str
    summary: str = ""
    architecture: str
    hparams: dict[str, Any] = {}
    parameters: int | None = None
    classes: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid"] = "sigmoid"
    writing_order: tuple[str, ...] = optional(
        (),
        "classes that overlap, in the order in which the owner writes them to a label map: later "
        "ones replace earlier ones; empty: the class of the highest logit",
    )
    contract: Contract = Contract()
    licence: str = ""
    shareable: bool | None = Field(
        default=None, description="whether derived weights may be shared; None: unclear"
    )
    home: str = Field(default="", description="page of the owner")
    datasets: tuple[str, ...] = ()
    reference: str = ""
    scope: Literal["network", "body", "encoder"] = Field(
        default="network",
        description="part of the network in the weights; other parts are initialised randomly",
    )
    sha256: str = ""
    provenance: dict[str, Any] = {}


class Provenance(FrozenModel):
    """The package and version that provide a component."""

    name: str
    distribution: str
    version: str


class TrainingSet(Document):
    """The k labelled training cases; for one seed, smaller sets are subsets of larger ones.

    Attributes:
        cases: Names, in the order in which they were drawn.
        pool: Names of the cases that they were drawn from; empty in earlier versions.
    """

    dataset: str
    k: int
    seed: int
    cases: tuple[str, ...]
    pool: tuple[str, ...] = ()


class Manifest(Document):
    """Description of an adapter, in the header of its safetensors file."""

    method: Provenance
    config: dict[str, Any]
    model: str
    backbone_sha256: str
    architecture: str
    hparams: dict[str, Any]
    decoder: PartMode
    bottleneck: PartMode = "frozen"
    preprocessing: Preprocessing
    channels: tuple[str, ...]
    labels: LabelTable
    writing_order: tuple[str, ...] = optional(
        (),
        "structures that overlap, in the order of writing to the label map, each where its logit "
        "exceeds that of the background; empty: the class of the highest logit",
    )
    support: tuple[str, ...]
    support_images: tuple[str, ...] = Field(default=(), description="keys of the training scans")
    scans: ScanRange | None = Field(
        default=None, description="range of the training scans; None in earlier versions"
    )
    missing_label: MissingLabel = optional("absent", "meaning of structures that labels lack")
    dataset: str
    k: int | None = Field(
        default=None, description="number of training cases; None in earlier versions"
    )
    seed: int | None = Field(
        default=None, description="seed of the run; None for several, and in earlier versions"
    )
    init_seed: int = Field(description="seed of the initial weights, derived from that of the run")
    mirror: bool = Field(default=False, description="whether it was trained with mirrored images")
    trained_parameters: int
    licence: str = ""
    versions: dict[str, str] = {}
    plugins: tuple[Provenance, ...] = Field(
        default=(), description="packages of the method, the model, the loss and so on"
    )
    selection: Selection | None = None
    strength: Strength | None = None
    soup: Soup | None = None
    origin: Origin | None = None
    unlabelled: Unlabelled | None = optional()
    cross_validation: CrossValidation | None = None

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any) -> Any:
        """Reads manifests of earlier versions, whose `seed` is that of the initial weights."""
        if isinstance(data, dict) and "init_seed" not in data and "seed" in data:
            return {**data, "init_seed": data["seed"], "seed": None}
        return data

    @model_validator(mode="after")
    def _check_writing_order(self) -> Self:
        if self.writing_order and sorted(self.writing_order) != sorted(self.labels):
            raise ValueError("writing_order does not name each label once")
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        is_first = self.preprocessing.channel_mode == "first"
        count = len(self.preprocessing.intensity)
        if not self.channels or (count != len(self.channels) and not is_first):
            raise ValueError(f"channels: {count} have intensities, {len(self.channels)} have names")
        return self

    @property
    def required_channels(self) -> tuple[str, ...]:
        """Names of the channels that a scan must have, the first of `channels` or all of them."""
        is_first = self.preprocessing.channel_mode == "first"
        return self.channels[:1] if is_first else self.channels

    @property
    def writing_channels(self) -> tuple[int, ...]:
        """Output channels in the order of writing; empty: the class of the highest logit."""
        names = list(self.labels)
        return tuple(1 + names.index(name) for name in self.writing_order)

    @property
    def part_modes(self) -> dict[str, PartMode]:
        """How decoder and bottleneck were trained, in addition to the method."""
        return {"decoder": self.decoder, "bottleneck": self.bottleneck}


class Run(Document):
    """One execution of `adapt`: its settings and its outcome."""

    dataset: str
    model: str
    method: str
    config: dict[str, Any]
    recipe: dict[str, Any]
    labels: LabelTable
    decoder: str
    bottleneck: str = "frozen"
    k: int
    seed: int
    sources: dict[str, str] = Field(
        default={},
        description="training cases, and digests of their data, the plan and the weights",
    )
    trained_parameters: int
    learning_rate: float | None = Field(
        default=None, description="initial learning rate that was used, requested or not"
    )
    backbone: dict[str, Any] = Field(
        default={}, description="sha256 of the weights, and their load report"
    )
    head_rows: dict[str, str] = Field(
        default={}, description="structure -> class of the model that initialised its output"
    )
    outcome: Literal["running", "finished", "failed", "interrupted"] = "running"
    epochs: int = 0
    stopped_by: str = ""
    final_loss: float | None = None
    training_dice: dict[str, float] = Field(
        default={}, description="structure -> Dice on crops of the training cases, at the end"
    )
    diverged: bool = Field(default=False, description="whether the training led nowhere")
    seconds: float = 0.0
    plugins: tuple[Provenance, ...] = ()
    decisions: tuple[Decision, ...] = Field(
        default=(), description="what the user left to the tool, with reasons"
    )
    selection: Selection | None = None
    strength: Strength | None = None
    soup: Soup | None = None
    origin: Origin | None = None
    unlabelled: Unlabelled | None = optional()
    cross_validation: CrossValidation | None = None
    notes: tuple[str, ...] = Field(default=(), description="remarks of the method on its result")

    @model_validator(mode="after")
    def _upgrade(self) -> Self:
        """Reads several trainings of earlier versions, whose recipe is that of the first."""
        if self.soup and "seeds" not in self.recipe:
            seeds, minutes = len(self.soup.members), self.recipe.get("minutes")
            self.recipe["seeds"] = seeds
            if isinstance(minutes, float):
                self.recipe["minutes"] = round(seeds * minutes, 3)
        return self
