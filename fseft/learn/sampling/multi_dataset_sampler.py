"""Which crop next, of several datasets that each annotate other structures, and the batch that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.learn.sampling.augmentation import augment_crops, augmentation_margin
from fseft.learn.sampling.patch_sampler import Crops
from fseft.learn.training.prefetch import derived_seed
from fseft.volume.cache import CachedCase

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from fseft.learn.sampling.patch_sampler import CropSource
    from fseft.schemas import Triple
    from fseft.training_config import Augment


@dataclass(frozen=True)
class PartiallyLabelledCase:
    """A case, and what is known of it; structures are counted from 1.

    Attributes:
        name: Dataset and case, for messages.
        cached: Its arrays.
        drawn: Structures of which there are voxels.
        annotated: Structures that count in it: drawn, or known to be absent.
    """

    name: str
    cached: CachedCase
    drawn: tuple[int, ...]
    annotated: tuple[int, ...]


@dataclass(frozen=True)
class DatasetSource:
    """The cases of one dataset, and how crops are read from them."""

    name: str
    crops: CropSource
    cases: tuple[PartiallyLabelledCase, ...]

    @cached_property
    def cases_with(self) -> dict[int, tuple[PartiallyLabelledCase, ...]]:
        """Structure -> the cases in which it is drawn."""
        drawn = sorted({index for case in self.cases for index in case.drawn})
        return {index: tuple(case for case in self.cases if index in case.drawn) for index in drawn}


@dataclass(frozen=True)
class CropRequest:
    """One crop that is to be read: around a structure or, without one, anywhere. Small enough to send elsewhere."""

    crops: CropSource
    case: PartiallyLabelledCase
    around: int | None
    seed: int


@dataclass(frozen=True)
class BatchRequest:
    """The crops of a batch, their size, and the number of structures."""

    picks: tuple[CropRequest, ...]
    size: Triple
    structures: int
    augmented: Augment


@dataclass(frozen=True)
class Batch:
    """What a training step learns from.

    Attributes:
        images: (B, C, i, j, k) float32.
        labels: (B, i, j, k) int16; 0 background, 1.. structures.
        annotated: (B, structures) float32, 1 where a structure counts in a crop.
        origins: Where each crop comes from, for messages.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    annotated: npt.NDArray[Any]
    origins: tuple[str, ...]


def sampling_probabilities(counts: Sequence[int], temperature: float) -> npt.NDArray[np.float64]:
    """How often each dataset is drawn: its number of cases to the power of 1 / temperature, normalised.

    1 draws every case alike, infinity every dataset alike (Conneau et al. 2020, arXiv:1911.02116, for languages).
    """
    weights = (np.asarray(counts, np.float64) / max(counts)) ** (1 / temperature)
    return np.asarray(weights / weights.sum())


def draw_crop_request(
    sources: Sequence[DatasetSource], odds: npt.NDArray[np.float64], foreground: float, seed: int
) -> CropRequest:
    """Draw a dataset, then a structure, then a case that has it; or a case and any place in it.

    Args:
        sources: The datasets.
        odds: Of each, see `sampling_probabilities`.
        foreground: Share of crops around a structure.
        seed: Of this crop alone.
    """
    rng = np.random.default_rng(seed)
    source = sources[rng.choice(len(sources), p=odds)]
    around = (
        int(rng.choice(list(source.cases_with)))
        if source.cases_with and rng.random() < foreground
        else None
    )
    cases = source.cases if around is None else source.cases_with[around]
    return CropRequest(source.crops, cases[rng.integers(len(cases))], around, seed)


def read_batch(order: BatchRequest) -> Batch:
    """Read the crops of a batch, each from a generator of its own, so that it does not matter who reads it."""
    crops, origins = zip(*(_read(pick, order) for pick in order.picks), strict=True)
    annotated = np.zeros((len(crops), order.structures), np.float32)
    for row, one in zip(annotated, order.picks, strict=True):
        row[[index - 1 for index in one.case.annotated]] = 1
    return Batch(
        np.concatenate([crop.images for crop in crops]),
        np.concatenate([crop.labels[:, 0] for crop in crops]),
        annotated,
        origins,
    )


def _read(one: CropRequest, order: BatchRequest) -> tuple[Crops, str]:
    # A fresh one each time: with thousands of cases, files that stay open would be too many.
    case = CachedCase(one.case.cached.root, one.case.cached.case)
    rng = np.random.default_rng(derived_seed(one.seed, "place"))
    source = replace(
        one.crops, size=order.size, margin=augmentation_margin(order.size, order.augmented)
    )
    start = (
        source.anywhere(case, rng) if one.around is None else source.around(case, one.around, rng)
    )
    image, label = source.read(case, start)
    crops = Crops(image[None], label[None])
    crops = augment_crops(
        crops,
        order.size,
        order.augmented,
        mirror_axes=(),
        seed=derived_seed(one.seed, "augmentation"),
    )
    return crops, f"{one.case.name}, crop of {'×'.join(map(str, source.size))} voxels from {start}"
