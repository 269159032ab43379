"""Where the segmentations of one or several adapters go, and what their voxel values mean."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from typing import TYPE_CHECKING, Literal

from fseft.schemas import PredictedCase
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fseft.inference.adapter_groups import OpenAdapter

MergeRule = Literal["probability", "first", "separate"]
"""Which of several adapters a voxel belongs to: the one that is surest of its structure, the first that has one, or
each in a folder of its own. A background gives way to any structure."""


@dataclass(frozen=True)
class PredictionFolder:
    """A folder of segmentations.

    Attributes:
        folder: An absolute path.
        adapters: Whose structures they hold, in the order of the command line.
        overlap: What happens where several adapters find a structure.
        probabilities: Whether those are written too.
    """

    folder: Path
    adapters: tuple[OpenAdapter, ...]
    overlap: MergeRule
    probabilities: bool

    @property
    def labels(self) -> dict[str, int]:
        """Structure -> voxel value."""
        return merge_labels([adapter.manifest.labels for adapter in self.adapters])

    def segmentation(self, case: str) -> Path:
        """The label map of a case."""
        return self.folder / f"{case}.nii.gz"

    def probabilities_of(self, case: str, adapter: OpenAdapter) -> Path:
        """One channel for the background and for each structure of the adapter; its own folder where there are more."""
        folder = self.folder / "probabilities"
        return (folder / adapter.name if len(self.adapters) > 1 else folder) / f"{case}.nii.gz"

    def files(self, case: str) -> list[Path]:
        """All that the prediction of a case consists of."""
        more = (
            [self.probabilities_of(case, adapter) for adapter in self.adapters]
            if self.probabilities
            else []
        )
        return [self.segmentation(case), *more]

    def leftovers(self, case: str) -> Iterator[Path]:
        """Probabilities of an earlier prediction."""
        wanted = self.files(case)
        found = (self.folder / "probabilities").rglob(f"{escape(case)}.nii.gz")
        return (path for path in found if path not in wanted)

    def entry(self, contents: Sequence[str], scan: str, *, tta: bool) -> PredictedCase:
        """What the index tells of a case.

        Args:
            contents: Keys of its files.
            scan: Key of all of them together.
            tta: Whether mirrored copies are averaged.
        """
        first, *others = (adapter.sha256 for adapter in self.adapters)
        whose = [first, *others, self.overlap] if others else first
        return PredictedCase(
            key=digest(whose, tta, self.probabilities, list(contents)),
            adapter=first,
            others=tuple(others),
            seen=any(scan in adapter.manifest.support_images for adapter in self.adapters),
        )


def arrange_outputs(
    folder: Path, adapters: Sequence[OpenAdapter], overlap: MergeRule, *, probabilities: bool
) -> tuple[PredictionFolder, ...]:
    """One folder for all adapters, or one below it for each."""
    folder = folder.absolute()
    if overlap != "separate":
        return (PredictionFolder(folder, tuple(adapters), overlap, probabilities),)
    return tuple(
        PredictionFolder(folder / adapter.name, (adapter,), overlap, probabilities)
        for adapter in adapters
    )


def merge_labels(several: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Structure -> voxel value for all; the same name in two of them is the same structure.

    Values stay as they are where each means one structure and each structure has one value; otherwise structures are
    numbered from 1 in order.
    """
    pairs = list(dict.fromkeys(pair for labels in several for pair in labels.items()))
    merged = dict(pairs)
    if len(merged) == len(pairs) == len(set(merged.values())):
        return merged
    return {name: value for value, name in enumerate(merged, start=1)}
