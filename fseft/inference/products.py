"""Files that a prediction writes for a case, apart from probability maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.terminology import structure_colours
from fseft.errors import FseftError
from fseft.plugin import FormatSpec
from fseft.registry import registry
from fseft.reporting.figures import WINDOW_HU
from fseft.reporting.preview import LegendEntry, draw_preview, volume_notes
from fseft.volume.geometry import reorient
from fseft.volume.structure_statistics import (
    CaseStatistics,
    measure_structures,
    statistics_csv,
)
from fseft.workspace import file_lock, read_document, write_document, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from fseft.schemas import Modality
    from fseft.volume.image import Volume
    from fseft.volume.segmentation import Segmentation

NIFTI = "nifti"
STATISTICS, PREVIEWS = "statistics", "previews"


@dataclass(frozen=True)
class Products:
    """The files that are written for a case.

    Attributes:
        formats: Formats of the segmentation.
        statistics: Whether the structures are measured.
        preview: Whether a picture is drawn.
    """

    formats: tuple[str, ...] = (NIFTI,)
    statistics: bool = False
    preview: bool = False

    def files(self, folder: Path, case: str) -> dict[str, Path]:
        """Returns the path of each product, by the name of its format or kind."""
        files = {name: folder / f"{case}{_spec(name).suffix}" for name in self.formats}
        if self.statistics:
            files[STATISTICS] = folder / STATISTICS / f"{case}.json"
        if self.preview:
            files[PREVIEWS] = folder / PREVIEWS / f"{case}.png"
        return files

    def check(self, scans: Mapping[str, tuple[Path, ...]]) -> None:
        """Checks that all formats can be written.

        Args:
            scans: Case -> its files.

        Raises:
            FseftError: A format is unknown, its package is missing, or it needs a DICOM series and
                a scan is none.
        """
        if not self.formats:
            raise FseftError("no format was passed", hint="Pass nifti, for example.")
        for name in self.formats:
            registry().file_format("format", name)
            others = [case for case, files in scans.items() if not files[0].is_dir()]
            if _spec(name).needs_series and others:
                cause = f"the format {name!r} refers to a DICOM series, and the scan is none"
                hint = "Pass the folder of the series, or choose another format, such as seg.nrrd."
                raise FseftError(cause, case=others[0], file=scans[others[0]][0], hint=hint)

    def write(
        self,
        segmentation: Segmentation,
        volume: Volume,
        modality: Modality,
        target: Callable[[str], Path],
    ) -> None:
        """Writes all products of a case.

        Args:
            segmentation: The segmentation.
            volume: Its scan, as read.
            modality: Modality of the scan.
            target: Returns the path to write for the name of a product; its folder is created.

        Raises:
            FseftError: A format cannot express the segmentation, or a file cannot be written.
        """
        for name in self.formats:
            write = registry().factory("format", name)
            write(segmentation, _made(target(name)))
        if self.statistics:
            write_document(target(STATISTICS), measure_structures(segmentation, volume))
        if self.preview:
            path = _made(target(PREVIEWS))
            path.write_bytes(_preview(segmentation, volume, modality))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _spec(name: str) -> FormatSpec:
    spec = registry().resolve("format", name).spec
    assert isinstance(spec, FormatSpec)  # noqa: S101 - checked when it was collected
    return spec


def _preview(segmentation: Segmentation, volume: Volume, modality: Modality) -> bytes:
    geometry = segmentation.geometry
    labels, turned = reorient(segmentation.labels, geometry, "RAS")
    image, _ = reorient(volume.array[0], geometry, "RAS")
    notes = volume_notes(labels, geometry.voxel_volume_mm3)
    colours = structure_colours(segmentation.structures)
    legend = [
        LegendEntry(name, value, colours[name], notes.get(value, ""))
        for name, value in segmentation.structures.items()
    ]
    window = WINDOW_HU if modality == "ct" else None
    title = f"{segmentation.case}: {segmentation.algorithm}"
    return draw_preview(image, labels, turned, legend, title=title, window=window)


def write_statistics_table(folder: Path, cases: Iterable[str]) -> None:
    """Writes `statistics.csv` from the statistics of all cases that have some.

    Args:
        folder: Folder of the prediction.
        cases: Names of the cases.

    Raises:
        FseftError: A file of statistics is damaged, or the table cannot be written.
    """
    table = folder / f"{STATISTICS}.csv"
    with file_lock(table):
        files = [folder / STATISTICS / f"{case}.json" for case in sorted(cases)]
        found = [read_document(file, CaseStatistics) for file in files if file.is_file()]
        write_text(table, statistics_csv(found))
