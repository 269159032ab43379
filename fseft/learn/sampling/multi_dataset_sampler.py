"""Batches of crops from several datasets that each annotate other structures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.learn.sampling.augmentation import NO_AUGMENTATION
from fseft.learn.sampling.patch_sampler import Crops
from fseft.learn.training.prefetch import derived_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from fseft.learn.sampling.augmentation import AugmentationPipeline
    from fseft.learn.sampling.patch_sampler import CropSource
    from fseft.schemas import Triple
    from fseft.volume.cache import CachedCase


@dataclass(frozen=True)
class PartiallyLabelledCase:
    """A case whose label map annotates some of the structures, which are numbered from 1.

    Attributes:
        name: Dataset and case, for messages.
        cached: The arrays.
        drawn: Structures with voxels in the label map.
        annotated: Structures that are annotated: drawn, or known to be absent.
    """

    name: str
    cached: CachedCase
    drawn: tuple[int, ...]
    annotated: tuple[int, ...]


@dataclass(frozen=True)
class DatasetSource:
    """The cases of a dataset, and the source of crops from them.

    Attributes:
        name: Name of the dataset.
        crops: Source of the crops.
        cases: The cases, with the structures that are annotated in each.
    """

    name: str
    crops: CropSource
    cases: tuple[PartiallyLabelledCase, ...]

    @cached_property
    def cases_with(self) -> dict[int, tuple[PartiallyLabelledCase, ...]]:
        """Structure -> the cases in whose label maps it has voxels."""
        cases: dict[int, tuple[PartiallyLabelledCase, ...]] = {}
        for structure in sorted({index for case in self.cases for index in case.drawn}):
            cases[structure] = tuple(case for case in self.cases if structure in case.drawn)
        return cases


@dataclass(frozen=True)
class CropRequest:
    """A crop to read: near a structure, or anywhere if `structure` is None.

    Small, so that it can be sent to another process.

    Attributes:
        crops: Source of the crop.
        case: The case to read.
        structure: Number of the structure; None for a crop from anywhere.
        seed: Seed of the place and of the augmentations.
    """

    crops: CropSource
    case: PartiallyLabelledCase
    structure: int | None
    seed: int


@dataclass(frozen=True)
class BatchRequest:
    """A batch to read.

    Attributes:
        crops: The crops.
        size: Size of a crop (i, j, k) in voxels.
        structures: Number of structures of the label space.
        augmentations: Applied to each crop with its own seed.
    """

    crops: tuple[CropRequest, ...]
    size: Triple
    structures: int
    augmentations: AugmentationPipeline = NO_AUGMENTATION


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Attributes:
        images: (B, C, i, j, k), float32.
        labels: (B, i, j, k), int16; 0 background, 1.. structures.
        annotated: (B, structures), float32, 1 where the structure is annotated in the crop.
        origins: Case and place of each crop, for messages.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    annotated: npt.NDArray[Any]
    origins: tuple[str, ...]


def sampling_probabilities(counts: Sequence[int], temperature: float) -> npt.NDArray[np.float64]:
    """Returns the probability of each dataset: its number of cases to the power 1 / temperature.

    Conneau et al. 2020 (arXiv:1911.02116), for languages.

    Args:
        counts: Number of cases of each dataset.
        temperature: 1 samples all cases with equal probability, infinity all datasets.

    Returns:
        Probabilities (datasets,), which add up to 1.

    Examples:
        >>> sampling_probabilities([30, 10], 1.0).tolist()
        [0.75, 0.25]
    """
    weights = (np.asarray(counts, np.float64) / max(counts)) ** (1 / temperature)
    total = weights.sum()
    return np.asarray(weights / total)


def draw_crop_request(
    sources: Sequence[DatasetSource],
    probabilities: npt.NDArray[np.float64],
    foreground_fraction: float,
    seed: int,
) -> CropRequest:
    """Draws a dataset, then a structure, then a case with it; or any place of any case.

    Args:
        sources: The datasets.
        probabilities: (datasets,), which add up to 1, see `sampling_probabilities`.
        foreground_fraction: Fraction of crops near a structure.
        seed: Seed of this crop.
    """
    rng = np.random.default_rng(seed)
    source = sources[rng.choice(len(sources), p=probabilities)]
    structure, cases = None, source.cases
    if source.cases_with and rng.random() < foreground_fraction:
        structure = int(rng.choice(list(source.cases_with)))
        cases = source.cases_with[structure]
    return CropRequest(source.crops, cases[rng.integers(len(cases))], structure, seed)


def read_batch(request: BatchRequest) -> Batch:
    """Reads the crops of a batch.

    Each crop has its own generator, so that the batch is the same in any process.
    """
    images, labels, origins = [], [], []
    annotated = np.zeros((len(request.crops), request.structures), np.float32)
    for row, crop_request in zip(annotated, request.crops, strict=True):
        crops, origin = _read(crop_request, request)
        images.append(crops.images)
        labels.append(crops.labels[:, 0])
        origins.append(origin)
        row[np.subtract(crop_request.case.annotated, 1).astype(int)] = 1
    return Batch(np.concatenate(images), np.concatenate(labels), annotated, tuple(origins))


def _read(crop: CropRequest, request: BatchRequest) -> tuple[Crops, str]:
    """Reads and augment a crop; return it as a batch of one, with its origin."""
    # A new object each time: with thousands of cases, too many files would stay open.
    case = replace(crop.case.cached)
    rng = np.random.default_rng(derived_seed(crop.seed, "place"))
    margin = request.augmentations.margin(request.size)
    source = replace(crop.crops, size=request.size, margin=margin)
    start = source.start_near(case, crop.structure, rng)
    image, label = source.read(case, start)
    seed = derived_seed(crop.seed, "augmentation")
    crops = request.augmentations.augment(Crops(image[None], label[None]), request.size, seed)
    size = "×".join(map(str, source.size))
    return crops, f"{crop.case.name}, crop of {size} voxels from {start}"
