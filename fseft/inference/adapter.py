"""An adapter as an object: the merged network, and the segmentation of arrays."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.model_zoo.adapter_path import adapter_path
from fseft.schemas import Run
from fseft.workspace import Workspace, read_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import nn

    from fseft.schemas import Manifest
    from fseft.volume.image import Volume

    Array = npt.NDArray[Any]

logger = logging.getLogger(__name__)

_LPS_FROM_RAS = (-1.0, -1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Adapter:
    """An adapter file: the trained tensors of a method and a head, for one foundation model.

    Attributes:
        path: The file `adapter.safetensors`.
        workspace: Where models of the user are stored; the adapter requires the model that it was
            trained on.

    Examples:
        >>> adapter = Adapter.load("runs/livers/phantom-tiny/lora-k5-s0")  # doctest: +SKIP
        >>> labels = adapter.segment(image, affine=affine)  # doctest: +SKIP
        >>> liver = labels == adapter.labels["liver"]  # doctest: +SKIP
    """

    path: Path
    workspace: Workspace = Workspace(Path())  # noqa: RUF009 - frozen

    @classmethod
    def load(cls, path: str | Path, workspace: str | Path | Workspace = ".") -> Adapter:
        """Opens an adapter.

        Args:
            path: The adapter file, or the folder of its run.
            workspace: Where models of the user are stored.

        Raises:
            FseftError: The file is missing, or is not an adapter of fseft.
        """
        path = Path(path)
        workspace = workspace if isinstance(workspace, Workspace) else Workspace(Path(workspace))
        adapter = cls(adapter_path(path), workspace)
        _ = adapter.manifest
        return adapter

    @cached_property
    def manifest(self) -> Manifest:
        """The description in the header of the file: method, model, preprocessing, structures."""
        from fseft.model_zoo.adapter_file import read_manifest

        return read_manifest(self.path)

    @property
    def labels(self) -> dict[str, int]:
        """Structure -> label value, as in the training data."""
        return dict(self.manifest.labels)

    @property
    def run(self) -> Run | None:
        """The document of the finished run in the folder of the adapter; None without one."""
        path = self.path.with_name("run.json")
        run = read_document(path, Run) if path.is_file() else None
        return run if run and run.outcome == "finished" else None

    @cached_property
    def network(self) -> nn.Module:
        """The adapted network in evaluation mode, with the adapter merged into its weights.

        Its input is (B, C, i, j, k) in float32, preprocessed as `manifest.preprocessing` describes;
        its output is logits (B, 1 + structures, i, j, k), the background first.

        Raises:
            FseftError: The method or the model of the adapter is not installed, or the model has
                other weights.
        """
        from fseft.inference.adapter_groups import open_adapters
        from fseft.model_zoo.adapter_file import load_adapter

        (adapter,) = open_adapters((self.path,), self.workspace)
        return load_adapter(adapter).eval()

    def segment(
        self,
        image: Array,
        *,
        affine: Array | None = None,
        spacing_mm: Sequence[float] | None = None,
        device: str = "auto",
        tta: bool = False,
    ) -> Array:
        """Segments an image in memory, on its own grid.

        Args:
            image: (i, j, k) or (channel, i, j, k); Hounsfield units for CT.
            affine: (4, 4), maps voxel indices (i, j, k, 1) to RAS millimetres, as in nibabel and
                MONAI.
            spacing_mm: Voxel spacing along i, j and k, instead of an affine, for an image in RAS
                orientation.
            device: "auto", "cpu" or "cuda".
            tta: Average over mirrored copies of the image.

        Returns:
            Labels (i, j, k), uint8 unless a label value exceeds 255; `labels` maps structures to
            values.

        Raises:
            FseftError: The image has other dimensions or channels, neither affine nor spacing is
                passed, or `tta` is set for an adapter that was trained without mirroring.
        """
        import numpy as np

        from fseft.experiment.devices import select_device
        from fseft.inference.segment_case import predict_slabs
        from fseft.volume.intensity import modality_warnings
        from fseft.volume.preprocessing import LabelMerger, preprocess_volume
        from fseft.volume.scan_range import differences
        from fseft.volume.shear import from_perpendicular

        if tta and not self.manifest.mirror:
            cause = "test-time augmentation needs an adapter that was trained with mirroring"
            raise FseftError(cause, hint="Leave it out, or adapt with mirror=true.")
        volume = _volume(image, affine, spacing_mm, self.manifest)
        preprocessing, values = self.manifest.preprocessing, list(self.labels.values())
        unusual = modality_warnings(volume.array, preprocessing.modality)
        for warning in (*unusual, *differences(volume.geometry, self.manifest.scans)):
            logger.warning("the image is unusual: %s", warning)
        prepared = preprocess_volume(volume, None, preprocessing)
        selected = select_device(device)
        merger = LabelMerger.empty(prepared.native, max(values), np.uint8)
        add = merger.adder(prepared, [0, *values], 1, self.manifest.writing_channels)
        for slab in predict_slabs(
            self.network.to(selected), prepared, self.manifest, device=selected, tta=tta
        ):
            add(slab)
        return from_perpendicular(merger.labels, volume.geometry, labels=True)


def _volume(
    image: Array, affine: Array | None, spacing_mm: Sequence[float] | None, manifest: Manifest
) -> Volume:
    """Builds a volume from an array and its position in RAS millimetres."""
    import numpy as np

    from fseft.volume.geometry import Geometry
    from fseft.volume.image import Volume

    image = np.asarray(image)
    array = image[None] if image.ndim == 3 else image
    expected = len(manifest.channels), len(manifest.required_channels)
    if array.ndim != 4 or len(array) not in expected:
        raise FseftError(
            f"an image of shape {image.shape} does not fit an adapter of {expected[1]} channel(s)",
            hint="Pass an array (i, j, k) or (channel, i, j, k).",
        )
    if (affine is None) == (spacing_mm is None):
        raise FseftError(
            "the position of the image is not defined", hint="Pass either affine or spacing_mm."
        )
    ras = np.diag([*spacing_mm, 1.0]) if spacing_mm is not None else np.asarray(affine, np.float64)
    if ras.shape != (4, 4) or not abs(np.linalg.det(ras)) > 0:
        raise FseftError("the affine is not an invertible 4x4 matrix", hint="Check it.")
    i, j, k = array.shape[1:]
    return Volume(array, Geometry((i, j, k), np.diag(_LPS_FROM_RAS) @ ras))
