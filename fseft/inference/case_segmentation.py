"""The segmentation of one scan for one output folder: labels of its adapters, and the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.inference.index import owned_files
from fseft.version import __version__
from fseft.volume.decision import probabilities
from fseft.volume.image import read_labels, write_volume
from fseft.volume.preprocessing import LabelMerger, restore_probabilities
from fseft.volume.segmentation import Segmentation
from fseft.volume.shear import from_perpendicular, perpendicular_grid
from fseft.workspace import file_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from fseft.inference.outputs import PredictionFolder
    from fseft.inference.segment_case import Scan
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.volume.image import Volume
    from fseft.volume.preprocessing import PreparedVolume

    Logits = npt.NDArray[Any]
    """(1 + structures, i, j, k)."""


class CaseSegmentation:
    """The label map of a scan for one output folder, merged from its adapters.

    Its files are written to a staging folder, and moved to the output folder together.
    """

    def __init__(self, scan: Scan, output: PredictionFolder, volume: Volume, staging: Path) -> None:
        self.scan, self.output, self.volume, self.staging = scan, output, volume, staging
        self.geometry = volume.geometry
        self.files: dict[Path, Path] = {}
        self.label_values = output.predicted_labels
        num_adapters = len(output.adapters)
        self.by_probability = output.overlap == "probability" and num_adapters > 1
        # The strength of a voxel's label: a probability, or the priority of its adapter.
        dtype = np.float32 if self.by_probability else np.min_scalar_type(num_adapters)
        grid = perpendicular_grid(self.geometry)
        self.merger = LabelMerger.empty(grid, max(self.label_values.values()), dtype)

    @property
    def adapters(self) -> tuple[OpenAdapter, ...]:
        """Adapters whose labels are to be added."""
        return () if self.scan.has_labels(self.output) else self.output.adapters

    @property
    def description(self) -> str:
        """Suffix for warnings where every adapter has a separate folder."""
        return f" by {self.output.adapters[0].name}" if self.output.overlap == "separate" else ""

    def adder(self, adapter: OpenAdapter, prepared: PreparedVolume) -> Callable[[Logits], None]:
        """Returns a function that merges the labels of an adapter, from slabs of its logits."""
        values = [0, *(self.label_values[name] for name in adapter.manifest.labels)]
        priority = len(self.output.adapters) - self.output.adapters.index(adapter)
        confidence = None if self.by_probability else priority
        return self.merger.adder(prepared, values, confidence, adapter.manifest.writing_channels)

    def probability_writer(
        self, adapter: OpenAdapter, prepared: PreparedVolume
    ) -> Callable[[Logits], None]:
        """Returns a function that writes the probabilities, once it was passed all slabs."""
        path = self._stage(self.output.probability_map(self.scan.name, adapter))
        order = adapter.manifest.writing_channels
        scores = np.empty((adapter.num_channels, *prepared.geometry.shape), np.float32)
        first = 0

        def receive(slab: Logits) -> None:
            nonlocal first
            rows = slice(first, first + slab.shape[1])
            scores[:, rows] = probabilities(slab, order)
            first = rows.stop
            if first < scores.shape[1]:
                return
            restored = restore_probabilities(scores, prepared)
            restored = from_perpendicular(restored, self.geometry, labels=False)
            write_volume(path, restored, self.geometry, scan=self.scan.files[0])

        return receive

    def write(self) -> bool:
        """Writes the files of the case; returns False if no structure was found."""
        name, output, entry = self.scan.name, self.output, self.scan.entries[self.output]
        labels, targets = self._finished_labels(), output.product_files(name)
        segmentation = Segmentation(
            name,
            labels,
            self.geometry,
            output.labels,
            self.scan.files,
            output.algorithm,
            __version__,
        )
        output.products.write(
            segmentation, self.volume, output.modality, lambda kind: self._stage(targets[kind])
        )
        label_map = self.files.get(output.segmentation(name))
        written = [target.relative_to(output.folder).as_posix() for target in self.files]
        kept = () if self.adapters else owned_files(name, entry)
        changes = {
            "sha256": file_digest(label_map) if label_map else entry.sha256,
            "files": tuple(dict.fromkeys([*kept, *written])),
        }
        output.index.replace(name, entry.model_copy(update=changes), self.files)
        return bool(labels.any())

    def _finished_labels(self) -> npt.NDArray[Any]:
        """Returns the label map to write: that of the adapters, or of a previous prediction."""
        labels: npt.NDArray[Any]
        if self.adapters:
            labels = from_perpendicular(self.merger.labels, self.geometry, labels=True)
            labels = self.output.finish(labels, self.geometry)
        else:
            labels = read_labels(self.output.segmentation(self.scan.name)).array[0]
        return labels

    def _stage(self, target: Path) -> Path:
        """Returns the temporary path of a file of the output folder."""
        self.files[target] = self.staging / target.relative_to(self.output.folder)
        return self.files[target]
