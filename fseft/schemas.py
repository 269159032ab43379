"""The documents: frozen, versioned JSON that travels between steps, and the parts they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Triple = tuple[int, int, int]
Millimetres = tuple[float, float, float]
Modality = Literal["ct", "mr", "other"]
PartMode = Literal["frozen", "fine-tuned", "new", "low-rank"]


class FrozenModel(BaseModel):
    """Immutable data with validated fields; unknown fields are an error.

    A renamed field keeps its old spelling in `former_names`, so that files and commands of earlier versions
    still work. Only the current names are written, listed and documented.

    Example:
        >>> class Training(FrozenModel):
        ...     former_names: ClassVar = {"warm_up": "warmup_fraction"}
        ...     former_values: ClassVar = {"features": {"kept": "cached"}}
        ...     warmup_fraction: float = 0.05
        ...     features: str = "recomputed"
        >>> Training(**{"warm_up": 0.1, "features": "kept"})
        Training(warmup_fraction=0.1, features='cached')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    former_names: ClassVar[Mapping[str, str]] = {}
    """Earlier name of a field -> its current name."""
    former_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {}
    """Current name of a field -> earlier spelling of a value -> its current spelling."""

    @classmethod
    def current_name(cls, key: str) -> str:
        """Return the current name of a field; a name that is current or unknown is returned unchanged."""
        return cls.former_names.get(key, key)

    @classmethod
    def upgrade(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Translate field names and values of earlier versions; unknown keys are kept.

        Args:
            values: Field name -> value, for example the settings in a `run.json`.

        Returns:
            The same settings under the current names, not validated.

        Raises:
            ValueError: A field is present under two of its names.
        """
        upgraded: dict[str, Any] = {}
        for key, value in values.items():
            name = cls.current_name(key)
            if name in upgraded:
                raise ValueError(f"{name} is set twice: {key} is another name of it")
            spellings = cls.former_values.get(name, {})
            upgraded[name] = spellings.get(value, value) if isinstance(value, str) else value
        return upgraded

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Any) -> Any:
        renamed = cls.former_names or cls.former_values
        return cls.upgrade(values) if renamed and isinstance(values, Mapping) else values


class Document(FrozenModel):
    """What lies in a file of its own."""

    schema_version: int = 1


# --- datasets -----------------------------------------------------------------------------------------------


class Case(FrozenModel):
    """One patient's volume: one file per channel (or one with all), and a label map, or masks by their values."""

    name: str
    images: tuple[Path, ...]
    label: Path | dict[int, Path] | None = None


class Dataset(FrozenModel):
    """What a reader found. `labels` maps structure names to voxel values, background left out."""

    name: str
    reader: str
    folder: Path = Field(default=Path(), description="absolute; set by `read_dataset`")
    channels: tuple[str, ...]
    labels: dict[str, int] = {}
    meanings: dict[str, str] = Field(
        default={}, description="of names that do not say of what: cancer -> lung_tumor"
    )
    cases: tuple[Case, ...]
    warnings: tuple[str, ...] = ()

    @property
    def labelled(self) -> tuple[Case, ...]:
        """The cases with a label."""
        return tuple(case for case in self.cases if case.label is not None)


# --- preprocessing --------------------------------------------------------------------------------------------


class Intensity(FrozenModel):
    """How stored intensities become network input.

    `window`: clip to [low, high], map to [0, 1]. `clip-zscore`: clip to [low, high], subtract `mean`, divide by
    `std` (nnU-Net's CT rule). `zscore`: subtract the case's mean, divide by its standard deviation.
    `minmax`: map the case's extremes to -1 and 1.
    """

    scheme: Literal["window", "clip-zscore", "zscore", "minmax"]
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def describe(self) -> str:
        """The scheme in a few words."""
        if self.scheme in ("zscore", "minmax"):
            return (
                "z-score per case" if self.scheme == "zscore" else "each case's extremes to [-1, 1]"
            )
        clip = f"clip to [{self.low:g}, {self.high:g}]"
        return f"{clip}, scale to [0, 1]" if self.scheme == "window" else f"{clip}, z-score"


class Contract(FrozenModel):
    """What a foundation model expects of its input. What it leaves open (None, {}) the fingerprint decides."""

    orientation: str = "RAS"
    spacing_mm: Millimetres | None = None
    intensity: dict[Modality, Intensity] = {}
    channels: int = 1
    patch_size: Triple | None = None


class Preprocessing(FrozenModel):
    """How arrays are made of a scan, fully decided; stored in the plan and in the adapter."""

    orientation: str
    spacing_mm: Millimetres
    modality: Modality
    intensity: tuple[Intensity, ...]
    patch_size: Triple


# --- plan ---------------------------------------------------------------------------------------------------


class CaseFingerprint(FrozenModel):
    """What was measured on one case; axes as stored in the file."""

    name: str
    content: str
    shape: Triple
    shape_after_crop: Triple
    spacing_mm: Millimetres
    orientation: str
    voxels: str = ""
    """A key of the image's voxels: the same scan in another file has the same one."""
    labelled: bool = False
    volumes_mm3: dict[str, float] = {}
    extents_mm: dict[str, Millimetres] = {}


class IntensityStats(FrozenModel):
    """Foreground intensities of one channel, every case with the same weight."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class ClassFingerprint(FrozenModel):
    """One structure over all cases that have it; extents along left-right, back-front, foot-head."""

    id: int
    cases: int
    median_volume_mm3: float | None = None
    maximum_extent_mm: Millimetres | None = None

    @model_validator(mode="before")
    @classmethod
    def _ignore_minimum_volume(cls, values: Any) -> Any:
        """Read fingerprints of earlier versions, which also contain `minimum_volume_mm3`."""
        if isinstance(values, Mapping):
            return {key: value for key, value in values.items() if key != "minimum_volume_mm3"}
        return values


class Fingerprint(Document):
    """What was measured on the dataset."""

    dataset: str
    reader: str
    content: str
    channels: tuple[str, ...]
    modality: Modality
    integer: bool
    labels: dict[str, int]
    meanings: dict[str, str] = {}
    cases: tuple[CaseFingerprint, ...]
    classes: dict[str, ClassFingerprint]
    intensities: tuple[IntensityStats, ...]
    warnings: tuple[str, ...] = ()


class Decision(FrozenModel):
    """One line of the plan: what was chosen, and why."""

    name: str
    value: str
    reason: str


class Plan(Document):
    """Contract + fingerprint + resources -> how this dataset is processed for this model."""

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
    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...] = ()


# --- models and results -----------------------------------------------------------------------------------------


class ModelCard(Document):
    """A foundation model: what it is, what it knows, what it expects, and who may share what it becomes."""

    name: str
    summary: str = ""
    architecture: str
    hparams: dict[str, Any] = {}
    parameters: int | None = None
    classes: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid"] = "sigmoid"
    contract: Contract = Contract()
    licence: str = ""
    shareable: bool | None = Field(
        default=None, description="whether what becomes of it may be shared; None: unclear"
    )
    home: str = Field(default="", description="page of the owner")
    datasets: tuple[str, ...] = ()
    reference: str = ""
    scope: Literal["network", "body", "encoder"] = Field(
        default="network",
        description="what the weights hold: all, all but the head, the encoder; the rest is random",
    )
    sha256: str = ""
    provenance: dict[str, Any] = {}


class Provenance(FrozenModel):
    """Which package, in which version, gave a named thing."""

    name: str
    distribution: str
    version: str


class SupportSet(Document):
    """The k labelled cases, by case id; nested in k for one seed."""

    dataset: str
    k: int
    seed: int
    cases: tuple[str, ...]


class Manifest(Document):
    """The adapter's own description, in the header of its safetensors file: all that `predict` needs to know."""

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
    labels: dict[str, int]
    support: tuple[str, ...]
    support_images: tuple[str, ...] = Field(
        default=(), description="content keys: these scans are no unseen ones"
    )
    dataset: str
    seed: int
    mirror: bool = Field(default=False, description="whether it has learned from mirrored images")
    trained_parameters: int
    licence: str = ""
    versions: dict[str, str] = {}

    @property
    def beside(self) -> dict[str, PartMode]:
        """What became of decoder and bottleneck beside the method."""
        return {"decoder": self.decoder, "bottleneck": self.bottleneck}


class PredictedCase(FrozenModel):
    """One segmentation: what it was made of, the sha256 of its adapters, and whether one had learned from the scan."""

    key: str
    adapter: str
    others: tuple[str, ...] = ()
    seen: bool = False


class Predictions(Document):
    """What a folder of segmentations holds: structures and their voxel values, adapters (sha256: path) and cases."""

    labels: dict[str, int]
    adapters: dict[str, str] = {}
    cases: dict[str, PredictedCase] = {}


class Run(Document):
    """One execution of `adapt`: what was asked for and how it ended."""

    dataset: str
    model: str
    method: str
    config: dict[str, Any]
    recipe: dict[str, Any]
    labels: dict[str, int]
    decoder: str
    bottleneck: str = "frozen"
    k: int
    seed: int
    sources: dict[str, str] = Field(
        default={},
        description="support cases, and digests of their data, of the plan and of the weights",
    )
    trained_parameters: int
    backbone: dict[str, Any] = Field(
        default={}, description="sha256 of the weights, and how they were loaded"
    )
    head_rows: dict[str, str] = Field(
        default={}, description="structure -> the model's class it was started from"
    )
    outcome: Literal["running", "finished"] = "running"
    epochs: int = 0
    stopped_by: str = ""
    final_loss: float | None = None
    seconds: float = 0.0
    plugins: tuple[Provenance, ...] = ()
    notes: tuple[str, ...] = Field(
        default=(), description="what the method has to say of its result"
    )
