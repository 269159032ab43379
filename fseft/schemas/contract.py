"""The input that a network expects: grid and intensities of the scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, model_validator

from fseft.schemas.base import (
    ChannelMode,
    FrozenModel,
    Millimetres,
    Modality,
    Orientation,
    Range,
    Triple,
    optional,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self


_Percentile = Annotated[float, Field(ge=0, le=100)]
_REGION = {"crop": "", "nonzero": " over nonzero voxels", "resampled": " after resampling"}


class Intensity(FrozenModel):
    """Normalisation of the intensities of one channel.

    Attributes:
        scheme: `window` clips to [low, high] and maps to [0, 1]; `clip-zscore` clips to [low,
            high], subtracts `mean` and divides by `std` (nnU-Net's rule for CT); `zscore` uses mean
            and standard deviation of each case; `minmax` maps the extremes of each case to -1 and
            1; `percentiles` maps two percentiles of each case to 0 and 1, without clipping.
        low: Lower limit, in stored units.
        high: Upper limit, in stored units.
        mean: Mean of the foreground of the dataset.
        std: Standard deviation of the foreground of the dataset.
        region: Voxels from which `zscore` and `minmax` take the statistics of a case: `crop` (for
            `minmax` the whole scan); `nonzero`, the nonzero voxels of the crop, while the others
            become 0; or `resampled`, the crop after resampling.
        percentiles: The two of the scheme `percentiles`, of the whole scan; 0 and 100 are its
            extremes.
        cube_mm: Side of the cube in which percentiles are counted: beyond a smaller scan there is
            air, and of a larger one the lowest values are left out. None for the scan as it is.
    """

    scheme: Literal["window", "clip-zscore", "zscore", "minmax", "percentiles"]
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    mean: FiniteFloat | None = None
    std: FiniteFloat | None = None
    region: Literal["crop", "nonzero", "resampled"] = optional("crop")
    percentiles: tuple[_Percentile, _Percentile] | None = optional()
    cube_mm: PositiveFloat | None = optional()

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        needed = {
            "window": ("low", "high"),
            "clip-zscore": ("low", "high", "mean", "std"),
            "percentiles": ("percentiles",),
        }
        for name in needed.get(self.scheme, ()):
            if getattr(self, name) is None:
                raise ValueError(f"the intensity scheme {self.scheme!r} has no {name!r}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.percentiles and self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("the first percentile is not below the second one")
        if self.scheme == "percentiles" and self.region != "crop":
            raise ValueError("percentiles are those of the whole scan, without a region")
        return self

    @property
    def maps_extremes(self) -> bool:
        """Whether the two percentiles are smallest and largest value of a scan."""
        return self.percentiles is not None and list(self.percentiles) == [0, 100]

    def describe(self) -> str:
        """Returns the scheme in a few words."""
        if self.scheme == "zscore":
            return f"z-score per case{_REGION[self.region]}"
        if self.scheme == "minmax":
            return f"each case's extremes{_REGION[self.region]} to [-1, 1]"
        if self.percentiles:
            lowest, highest = self.percentiles
            if self.maps_extremes:
                return "each case's extremes to [0, 1]"
            return f"each case's percentiles {lowest:g} and {highest:g} to 0 and 1"
        clip = f"clip to [{self.low:g}, {self.high:g}]"
        return f"{clip}, scale to [0, 1]" if self.scheme == "window" else f"{clip}, z-score"


class Conventions(FrozenModel):
    """How scans are cropped, resampled and padded, apart from orientation and spacing.

    Attributes:
        crop: `body` keeps the bounding box of all voxels above air, which is -500 HU in CT and the
            minimum otherwise; `nonzero` that of nonzero voxels, as nnU-Net does; `head` that of
            voxels whose normalised intensity exceeds `crop_threshold`; `none` the scan.
        crop_threshold: Normalised intensity for the crop `head`.
        crop_margin_voxels: Added to each side of the crop `head`, within the scan.
        clip_first: Whether intensities are clipped before resampling, as nnU-Net does, instead of
            afterwards.
        interpolation: `cubic` splines; `linear`, as in MONAI; or `nnunet`: cubic, but nearest
            neighbour along an axis with more than three times the spacing of the others.
        alignment: `edges` keeps the field of view, as PyTorch and scikit-image do, so that spacing
            is rounded; `first-voxel` keeps the centre of the first voxel and the exact spacing, as
            `Spacing` of MONAI does.
        padding: Value beyond the edge of a scan: `air`, as stored, which is -1024 HU in CT and 0
            otherwise; or `zero`, after normalisation.
        window_size: Largest part of a scan that the network sees at once in inference, for networks
            of any input size; smaller scans are seen as a whole, without padding. None for windows
            of the patch size, to which smaller scans are padded.
    """

    crop: Literal["body", "nonzero", "head", "none"] = optional("body")
    crop_threshold: FiniteFloat = optional(0.0)
    crop_margin_voxels: int = optional(0)
    clip_first: bool = optional(default=False)
    interpolation: Literal["cubic", "linear", "nnunet"] = optional("cubic")
    alignment: Literal["edges", "first-voxel"] = optional("edges")
    padding: Literal["air", "zero"] = optional("air")
    window_size: Triple | None = optional()

    @property
    def conventions(self) -> dict[str, Any]:
        """The fields of this class that differ from the default, for another document."""
        return self.model_dump(include=set(Conventions.model_fields))


class Contract(Conventions):
    """Preprocessing contract: the input that a foundation model expects.

    What is left at None or {} is decided by the fingerprint of the dataset. Spacing and patch size
    are along the axes of `orientation`, a three-letter code.

    Attributes:
        spacing_range_mm: Range of the voxel sides seen in training, where `spacing_mm` is None.
        structure_range_voxels: Range of the sizes of structures seen in training: the cube root of
            their volume, in voxels of the network's grid.
        assumed_orientation: Whether the axes of the training scans are unknown, so that
            `orientation` may be wrong.
    """

    orientation: Orientation = "RAS"
    spacing_mm: Millimetres | None = None
    intensity: dict[Modality, Intensity] = {}
    channels: int = Field(default=1, gt=0)
    patch_size: Triple | None = None
    spacing_range_mm: Range | None = optional()
    structure_range_voxels: Range | None = optional()
    assumed_orientation: bool = optional(default=False)


class Preprocessing(Conventions):
    """Complete preprocessing of scans for a network; stored in the plan and in the adapter.

    Spacing and patch size are along the axes of `orientation`; `intensity` has one entry per
    channel.

    Attributes:
        channel_mode: How the channels of a scan reach a network that takes one: `first` leaves out
            the others, `mean` averages them after normalisation, and `all` passes them to a first
            layer that was repeated over channels. None if the network takes them as they are.
    """

    orientation: Orientation
    spacing_mm: Millimetres
    modality: Modality
    intensity: tuple[Intensity, ...] = Field(min_length=1)
    patch_size: Triple
    channel_mode: ChannelMode | None = optional()

    @property
    def network_channels(self) -> int:
        """Channels of the network's input."""
        return 1 if self.channel_mode == "mean" else len(self.intensity)

    def window(self, shape: Sequence[int]) -> Triple:
        """Returns the window of inference on a scan, in voxels.

        Args:
            shape: Of the scan on the network's grid (i, j, k), in voxels.
        """
        if self.window_size is None:
            return self.patch_size
        i, j, k = map(min, self.window_size, shape)
        return i, j, k


class ScanRange(FrozenModel):
    """Smallest and largest value over the training scans and their axes.

    Attributes:
        spacing_mm: Sides of voxels.
        extent_mm: Sides of images.
    """

    spacing_mm: Range
    extent_mm: Range
