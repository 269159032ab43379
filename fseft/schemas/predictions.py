"""The index of a folder of segmentations."""

from __future__ import annotations

from fseft.schemas.base import Document, FrozenModel, LabelTable, RelativePath, optional
from fseft.schemas.dataset import MissingLabel


class PredictedCase(FrozenModel):
    """Provenance of a segmentation.

    Attributes:
        key: Digest of all that the segmentation depends on; empty while it is written.
        adapter: sha256 of the first adapter.
        others: sha256 of the other adapters.
        seen: Whether an adapter was trained on the scan.
        sha256: Digest of the label map; empty if it is not written, or by an earlier version.
        files: Paths of all its files in the folder; empty in files of earlier versions.
        missing_label: "unannotated" if the labels of an adapter's training cases were read so.
        scan: Absolute paths of the files of the scan; empty in files of earlier versions.
    """

    key: str
    adapter: str
    others: tuple[str, ...] = ()
    seen: bool = False
    sha256: str = ""
    files: tuple[RelativePath, ...] = ()
    missing_label: MissingLabel = optional("absent")
    scan: tuple[str, ...] = optional(())


class Predictions(Document):
    """Index of a folder of segmentations: label values, adapters (sha256 -> path) and cases."""

    labels: LabelTable
    adapters: dict[str, str] = {}
    cases: dict[str, PredictedCase] = {}
