"""`fseft predict`: segments scans on their native grid with one or several adapters."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.devices import select_device
from fseft.inference.adapter_groups import group_adapters
from fseft.inference.index import is_described
from fseft.inference.outputs import PredictionFolder
from fseft.inference.products import write_statistics_table
from fseft.inference.remarks import RemarkLog, listed
from fseft.inference.report import CaseReport, RunClock, digests, write_run_report
from fseft.inference.request import PredictRequest, arrange_folders, checked
from fseft.inference.scan_files import gather_scans
from fseft.inference.segment_case import (
    InferenceConfig,
    Remarks,
    Scan,
    load_networks,
    segment_in_worker,
    segment_scan,
)
from fseft.parallel import default_workers, each_case
from fseft.volume.image import content_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fseft.inference.index import PredictionIndex
    from fseft.parallel import Workers
    from fseft.schemas import PredictedCase

    MakeEntry = Callable[[PredictionFolder, Sequence[str], str], PredictedCase]

logger = logging.getLogger(__name__)


@dataclass
class PredictResult:
    """Scans by outcome.

    Attributes:
        segmented: Scans that this call has segmented.
        skipped: Scans whose segmentation by the same adapters existed already.
        failed: Scan -> error.
    """

    segmented: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, FseftError] = field(default_factory=dict)


def predict(request: PredictRequest, callbacks: Callbacks | None = None) -> PredictResult:
    """Segments every scan, except those that were segmented by the same adapters before.

    Each label map appears atomically as `<output>/<case>.nii.gz`, on the native grid of the scan.
    Voxel values are those of the training data where the adapters agree on them. The index
    `predictions.json` lists the structures, and the adapters of every case. With the rule
    `separate` each adapter has a folder in `<output>`.

    Args:
        request: Scans, adapters and options.
        callbacks: Observer of the progress over scans, and over windows within this process.

    Raises:
        FseftError: A scan cannot be read, or an adapter does not fit. All other scans are segmented
            first.
    """
    callbacks, clock = callbacks or Callbacks(), RunClock()
    request = checked(request)
    manifests = [adapter.manifest for adapter in request.adapters]
    required = max(len(manifest.required_channels) for manifest in manifests)
    scans = request.scans or gather_scans(request.inputs, manifests[0].channels, required)
    request.products.check(scans)
    outputs = arrange_folders(request, scans)
    remarks = RemarkLog()
    segment, workers, load = _segmenter(request, callbacks, remarks)
    indexes = _open_indexes(outputs, scans)
    with callbacks.progress("predict", len(scans)) as advance:
        prediction = _Prediction(
            scans, indexes, remarks, clock, entry=_entry(request), advance=advance
        )
        pending = _loaded_first(prediction.pending(), load)
        for name, outcome in each_case(segment, pending, workers=workers):
            prediction.finish(name, outcome)
    _conclude(request, prediction)
    _raise_failures(prediction.result, len(scans))
    return prediction.result


def _conclude(request: PredictRequest, prediction: _Prediction) -> None:
    """Logs remarks on all scans, and writes the files about all of them."""
    prediction.remarks.summarise()
    _warn_training_cases(prediction.indexes.values(), prediction.scans)
    for output, index in prediction.indexes.items() if request.products.statistics else ():
        write_statistics_table(output.folder, index.cases)
    if request.report:
        _write_report(request.report, request, prediction)


def _entry(request: PredictRequest) -> MakeEntry:
    """Returns what makes the entry of a case in the index of a folder."""
    return partial(PredictionFolder.entry, tta=request.tta, window_overlap=request.window_overlap)


def _config(request: PredictRequest) -> InferenceConfig:
    return InferenceConfig(
        group_adapters(request.adapters),
        request.device,
        request.tta,
        request.window_overlap,
        any_modality=request.any_modality,
    )


def _segmenter(
    request: PredictRequest, callbacks: Callbacks, remarks: RemarkLog
) -> tuple[Callable[[Scan], Remarks], Workers, Callable[[], object]]:
    """Function that segments a scan, the workers that run it, and what loads networks here."""
    config, workers = _config(request), request.workers
    if isinstance(workers, str):  # machines of a cluster choose their device themselves
        return partial(segment_in_worker, config=config), workers, tuple
    config = replace(config, device=select_device(config.device))
    for group in config.groups:
        paths = ", ".join(str(adapter.path) for adapter in group)
        logger.debug("device %s, model %s: %s", config.device, group[0].manifest.model, paths)
    if workers > 1 and config.device != "cuda":
        num_threads = max(1, default_workers() // workers)
        config = replace(config, num_threads=num_threads)
        return partial(segment_in_worker, config=config), workers, tuple
    if workers > 1:
        logger.warning("a GPU segments one scan at a time: using one worker")
    networks = cache(partial(load_networks, config))
    on_window = callbacks.on_window
    segment = partial(
        segment_scan, config=config, networks=networks, on_window=on_window, on_read=remarks.log
    )
    return segment, 1, networks


def _loaded_first(
    scans: Iterable[tuple[str, Scan]], load: Callable[[], object]
) -> Iterator[tuple[str, Scan]]:
    """Loads the networks before the first scan that needs them: their errors are not the scan's."""
    for name, scan in scans:
        if scan.adapters:
            load()
        yield name, scan


def _open_indexes(
    outputs: Iterable[PredictionFolder], scans: Iterable[str]
) -> dict[PredictionFolder, PredictionIndex]:
    """Indexes of the folders; a folder that cannot be written fails before any work."""
    indexes = {output: output.index for output in outputs}
    for output, index in indexes.items():
        index.open({name: output.files(name) for name in scans})
    return indexes


class _Prediction:
    """State of a prediction: scans that are missing in an output folder, and their outcome."""

    def __init__(
        self,
        scans: Mapping[str, tuple[Path, ...]],
        indexes: Mapping[PredictionFolder, PredictionIndex],
        remarks: RemarkLog,
        clock: RunClock,
        *,
        entry: MakeEntry,
        advance: Callable[[str], None],
    ) -> None:
        self.scans, self.indexes, self.entry = scans, indexes, entry
        self.remarks, self.clock, self.advance = remarks, clock, advance
        self.result = PredictResult()
        self.entries: dict[str, dict[PredictionFolder, PredictedCase]] = {}

    def pending(self) -> Iterator[tuple[str, Scan]]:
        """Scans without a segmentation; skips the others."""
        for name, files in self.scans.items():
            try:
                missing = self._missing_entries(name, files)
            except FseftError as error:
                self.finish(name, error)
                continue
            if not missing:
                self.result.skipped.append(name)
                self.advance(name)
                continue
            self.entries[name] = missing
            yield name, Scan(name, files, missing)

    def _missing_entries(
        self, name: str, files: tuple[Path, ...]
    ) -> dict[PredictionFolder, PredictedCase]:
        contents, scan = [content_digest(file) for file in files], content_digest(files)
        paths = {"scan": tuple(str(file.absolute()) for file in files)}
        missing = {}
        for output in self.indexes:
            entry = self.entry(output, contents, scan).model_copy(update=paths)
            previous = self._previous_entry(name, output, entry)
            if previous is None:
                missing[output] = entry
            elif not all(path.exists() for path in output.files(name)):
                # Other files can be made from the label map, if there is one.
                has_labels = output.segmentation(name).is_file()
                missing[output] = previous if has_labels and previous.sha256 else entry
        return missing

    def _previous_entry(
        self, name: str, output: PredictionFolder, entry: PredictedCase
    ) -> PredictedCase | None:
        """Returns the previous entry if it has the same key, and its maps are unchanged."""
        previous = self.indexes[output].cases.get(name)
        blank = {"sha256": "", "files": (), "scan": entry.scan}
        if previous is None or previous.model_copy(update=blank) != entry:
            return None
        path = output.segmentation(name)
        maps_exist = all(path.is_file() for path in output.probability_maps(name))
        is_same = maps_exist and (not path.is_file() or is_described(previous, path))
        return previous if is_same else None

    def finish(self, name: str, outcome: Remarks | FseftError) -> None:
        """Records the outcome of a scan: remarks, or an error."""
        if isinstance(outcome, FseftError):
            error = self.result.failed[name] = outcome.located(case=name)
            if len(self.scans) > 1:
                logger.warning("%s", error)
        else:
            self.remarks.log(name, outcome)
            for output, entry in self.entries[name].items():
                self.indexes[output].cases[name] = entry
            self.clock.record(name, outcome.seconds, outcome.device)
            self.result.segmented.append(name)
        self.advance(name)


def _write_report(path: Path, request: PredictRequest, prediction: _Prediction) -> None:
    """Writes the report of the run; scans that failed are named with their error."""
    cases = {}
    for name, files in prediction.scans.items():
        error = prediction.result.failed.get(name)
        is_new = name in prediction.result.segmented
        outcome = "failed" if error else "segmented" if is_new else "existed"
        written = [file for output in prediction.indexes for file in output.files(name)]
        cases[name] = CaseReport(
            outcome=outcome,
            seconds=prediction.clock.cases.get(name),
            error=str(error or ""),
            inputs=digests(files),
            outputs={} if error else digests(written),
        )
    names = ("overlap", "probabilities", "tta", "structures", "window_overlap", "any_modality")
    options = {name: getattr(request, name) for name in (*names, "workers")}
    options |= {"inputs": list(map(str, request.inputs)), "output": str(request.output)}
    options |= {**asdict(request.cleaning), **asdict(request.products)}
    write_run_report(
        path,
        prediction.clock,
        device=", ".join(sorted(prediction.clock.devices)),
        options=options,
        adapters=request.adapters,
        cases=cases,
    )


def _raise_failures(result: PredictResult, num_scans: int) -> None:
    if not result.failed:
        return
    first = next(iter(result.failed.values()))
    if num_scans == 1:
        raise first
    names = list(result.failed)
    others = "" if len(names) == num_scans else ", the others are segmented"
    raise FseftError(
        f"{len(names)} of {num_scans} scans failed ({listed(names)}){others}; the first: "
        f"{first.cause}",
        hint=first.hint,
        file=first.file,
    )


def _warn_training_cases(indexes: Iterable[PredictionIndex], scans: Iterable[str]) -> None:
    entries = [index.cases for index in indexes]
    seen = [name for name in scans if any(cases[name].seen for cases in entries if name in cases)]
    if seen:
        logger.warning(
            "the adapter was trained on %s: scores on it say nothing about new scans",
            listed(seen),
        )
