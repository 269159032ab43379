"""Output folders of a prediction: files per case, and the label values that they share."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Literal

from fseft.inference.index import PredictionIndex, label_map
from fseft.inference.products import Products
from fseft.schemas import PredictedCase
from fseft.volume.components import Cleaning, clean_labels
from fseft.volume.label_values import translate
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.schemas import Modality
    from fseft.volume.geometry import Array, Geometry

MergeRule = Literal["probability", "first", "separate"]
"""Adapter that a voxel is assigned to where several predict a structure: the one with the highest
probability, the first one, or each in a separate folder. Any structure wins over background."""


WINDOW_OVERLAP = 0.5
"""Fraction of a window that the next window repeats."""


@dataclass(frozen=True)
class PredictionFolder:
    """A folder of segmentations.

    Attributes:
        folder: Absolute path.
        adapters: Adapters whose structures are merged in it, in the order of the call.
        overlap: Rule for voxels that several adapters assign to a structure.
        probabilities: Whether probability maps are written too.
        structures: Structures to write; empty for all.
        cleaning: What is removed from, and added to, the structures.
        products: Files to write for a case, apart from probability maps.
    """

    folder: Path
    adapters: tuple[OpenAdapter, ...]
    overlap: MergeRule
    probabilities: bool
    structures: tuple[str, ...] = ()
    cleaning: Cleaning = Cleaning()  # noqa: RUF009 - frozen
    products: Products = Products()  # noqa: RUF009 - frozen

    @property
    def algorithm(self) -> str:
        """Methods and models of the adapters, for people."""
        names = []
        for adapter in self.adapters:
            manifest = adapter.manifest
            names.append(f"{manifest.method.name} of {manifest.model}")
        return ", ".join(names)

    @property
    def modality(self) -> Modality:
        """Modality of the scans."""
        return self.adapters[0].manifest.preprocessing.modality

    @property
    def predicted_labels(self) -> dict[str, int]:
        """Structure -> voxel value of all structures that the adapters predict."""
        return merge_labels([adapter.manifest.labels for adapter in self.adapters])

    @property
    def labels(self) -> dict[str, int]:
        """Structure -> voxel value of the structures that are written."""
        labels = self.predicted_labels
        return {name: labels[name] for name in labels if name in (self.structures or labels)}

    def finish(self, labels: Array, geometry: Geometry) -> Array:
        """Removes other structures than those that are written, and cleans these.

        Args:
            labels: Merged labels (i, j, k) of all structures of the adapters; they are changed.
            geometry: Their grid.
        """
        if self.structures:
            values = {value: value for value in self.labels.values()}
            labels = translate(labels, values, labels.dtype)
        if self.cleaning:
            clean_labels(labels, self.labels, self.cleaning, geometry.voxel_volume_mm3)
        return labels

    @property
    def index(self) -> PredictionIndex:
        """The index of the folder."""
        paths = {adapter.sha256: str(adapter.path) for adapter in self.adapters}
        return PredictionIndex(self.folder, self.labels, paths)

    def segmentation(self, case: str) -> Path:
        """Path of the label map of a case."""
        return self.folder / label_map(case)

    def probability_map(self, case: str, adapter: OpenAdapter) -> Path:
        """Path of an adapter's probabilities: one channel for background and each structure.

        Args:
            case: Name of the case.
            adapter: The adapter, which names a subfolder if the folder has several.
        """
        folder = self.folder / "probabilities"
        if len(self.adapters) > 1:
            folder = folder / adapter.name
        return folder / f"{case}.nii.gz"

    def probability_maps(self, case: str) -> list[Path]:
        """Paths of the probability maps to write."""
        adapters = self.adapters if self.probabilities else ()
        return [self.probability_map(case, adapter) for adapter in adapters]

    def product_files(self, case: str) -> dict[str, Path]:
        """Paths of the other files to write, by the name of their format or kind."""
        return self.products.files(self.folder, case)

    def files(self, case: str) -> list[Path]:
        """All files that a prediction of the case consists of."""
        return [*self.product_files(case).values(), *self.probability_maps(case)]

    def entry(
        self,
        contents: Sequence[str],
        scan: str,
        *,
        tta: bool,
        window_overlap: float = WINDOW_OVERLAP,
    ) -> PredictedCase:
        """Index entry of a case.

        Args:
            contents: Content key of each file of the scan.
            scan: Content key of all files together.
            tta: Whether mirrored copies are averaged.
            window_overlap: Fraction of a window that the next window repeats.
        """
        first, *others = (adapter.sha256 for adapter in self.adapters)
        source = [first, *others, self.overlap] if others else first
        choices: list[object] = [sorted(self.structures)] if self.structures else []
        choices += [astuple(self.cleaning)] if self.cleaning else []
        rules = {adapter.manifest.missing_label for adapter in self.adapters}
        choices += [] if window_overlap == WINDOW_OVERLAP else [window_overlap]
        return PredictedCase(
            key=digest(source, tta, self.probabilities, list(contents), *choices),
            adapter=first,
            others=tuple(others),
            seen=any(scan in adapter.manifest.support_images for adapter in self.adapters),
            missing_label="unannotated" if "unannotated" in rules else "absent",
        )


def arrange_outputs(output: PredictionFolder) -> tuple[PredictionFolder, ...]:
    """Returns the folder, or with `separate` one subfolder for each of its adapters."""
    if output.overlap != "separate":
        return (output,)
    return tuple(
        replace(output, folder=output.folder / adapter.name, adapters=(adapter,))
        for adapter in output.adapters
    )


def merge_labels(label_maps: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Merges label maps (structure -> voxel value); equal names mean the same structure.

    Values are kept where they are unambiguous; otherwise structures are numbered from 1 in order.

    Examples:
        >>> merge_labels([{"liver": 1}, {"spleen": 2}])
        {'liver': 1, 'spleen': 2}
        >>> merge_labels([{"liver": 1}, {"spleen": 1}])
        {'liver': 1, 'spleen': 2}
    """
    pairs = list(dict.fromkeys(pair for labels in label_maps for pair in labels.items()))
    merged = dict(pairs)
    if len(merged) == len(pairs) == len(set(merged.values())):
        return merged
    return {name: value for value, name in enumerate(merged, start=1)}
