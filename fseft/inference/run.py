"""`fseft predict`: segment scans on their own grid with one or several adapters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import has_sides
from fseft.errors import FseftError
from fseft.experiment.devices import select_device
from fseft.inference.adapter_groups import group_adapters, open_adapters
from fseft.inference.index import PredictionIndex
from fseft.inference.outputs import MergeRule, PredictionFolder, arrange_outputs
from fseft.inference.scan_files import gather_scans
from fseft.inference.segment_case import (
    InferenceConfig,
    Scan,
    load_networks,
    segment_in_worker,
    segment_scan,
)
from fseft.parallel import default_workers, each_case
from fseft.volume.image import content_digest
from fseft.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fseft.inference.adapter_groups import OpenAdapter
    from fseft.parallel import Workers
    from fseft.schemas import PredictedCase


@dataclass(frozen=True)
class PredictRequest:
    """What `fseft predict` was asked for. Where `scans` (case -> files) are known, inputs are not searched for them."""

    inputs: tuple[Path, ...]
    output: Path
    adapters: tuple[Path, ...]
    overlap: MergeRule = "probability"
    probabilities: bool = False
    tta: bool = False
    device: str = "cpu"
    workers: Workers = 1
    scans: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


@dataclass
class Predicted:
    """The scans that were segmented now, those that had been before, and what went wrong with others."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, FseftError] = field(default_factory=dict)


def predict(
    request: PredictRequest,
    store: Workspace,
    done: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    windows: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> Predicted:
    """Segment every scan; what an earlier run with these adapters did is skipped.

    Each result appears atomically as `<output>/<case>.nii.gz`, on the scan's own grid, with the label values of the
    training data where the adapters do not differ in them; `predictions.json` beside them says which structures they
    hold, and whose they are. With the overlap `separate` each adapter has a folder of its own in `<output>`.

    Args:
        request: What was asked for.
        store: Where models of the workspace lie.
        done: Told the name of each scan that was tried.
        warn: Told what is odd about a scan or the output folder, and each failure where there are other scans.
        windows: Told a scan's name, and how many of its windows are done, of how many; not by worker processes.

    Raises:
        FseftError: A scan cannot be read, or an adapter does not fit. The other scans are segmented first.
    """
    adapters = open_adapters(request.adapters, store)
    _check_mirroring(request, adapters)
    scans = request.scans or gather_scans(request.inputs, len(adapters[0].manifest.channels), warn)
    outputs = arrange_outputs(
        request.output, adapters, request.overlap, probabilities=request.probabilities
    )
    _check_outputs(request, outputs, scans)
    work = InferenceConfig(
        group_adapters(adapters), Workspace(store.root.absolute()), request.device, request.tta
    )
    segment, workers = _segmenter(work, request.workers, warn, windows)
    indexes = {output: _open_index(output, scans, warn) for output in outputs}
    run = _Run(scans, indexes, request.tta, done, warn)
    for name, outcome in each_case(segment, run.pending(), workers=workers):
        run.ended(name, outcome)
    _tell_seen(indexes.values(), scans, warn)
    _raise_failures(run.result, len(scans))
    return run.result


def _segmenter(
    work: InferenceConfig,
    workers: Workers,
    warn: Callable[[str], None],
    windows: Callable[[str, int, int], None],
) -> tuple[Callable[[Scan], tuple[str, ...]], Workers]:
    """What segments a scan, and how many do so."""
    if isinstance(workers, str):  # a cluster, whose machines have devices of their own
        return partial(segment_in_worker, work=work), workers
    work = replace(work, device=select_device(work.device))
    if workers > 1 and work.device == "cuda":
        warn("a GPU takes one scan at a time: --workers stays 1")
    elif workers > 1:
        return partial(
            segment_in_worker, work=replace(work, threads=max(1, default_workers() // workers))
        ), workers
    return partial(segment_scan, work=work, networks=load_networks(work), windows=windows), 1


def _open_index(
    output: PredictionFolder, scans: Iterable[str], warn: Callable[[str], None]
) -> PredictionIndex:
    """The index of a folder; one that cannot be written is told before any work."""
    index = PredictionIndex(
        output.folder, output.labels, {one.sha256: str(one.place) for one in output.adapters}
    )
    index.open({name: output.segmentation(name) for name in scans}, warn)
    return index


class _Run:
    """Which scans are left to segment for which folders, and what became of them."""

    def __init__(
        self,
        scans: Mapping[str, tuple[Path, ...]],
        indexes: Mapping[PredictionFolder, PredictionIndex],
        tta: bool,
        done: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.scans, self.indexes, self.tta = scans, indexes, tta
        self.done, self.warn = done, warn
        self.result = Predicted()
        self.entries: dict[str, dict[PredictionFolder, PredictedCase]] = {}

    def pending(self) -> Iterator[tuple[str, Scan]]:
        """Scans that lack a segmentation, announced; the others are done."""
        for name, files in self.scans.items():
            try:
                contents, scan = [content_digest(file) for file in files], content_digest(files)
            except FseftError as error:
                self.ended(name, error)
                continue
            entries = {
                output: output.entry(contents, scan, tta=self.tta) for output in self.indexes
            }
            missing = {
                output: entry
                for output, entry in entries.items()
                if not self._is_there(name, output, entry)
            }
            if not missing:
                self.result.skipped.append(name)
                self.done(name)
                continue
            self.entries[name] = missing
            for output, entry in missing.items():
                # Announced first: what a killed run has left must not be taken for somebody else's file.
                before = self.indexes[output].cases.get(name, entry)
                self.indexes[output].add({name: before.model_copy(update={"key": ""})})
            yield name, Scan(name, files, tuple(missing))

    def _is_there(self, name: str, output: PredictionFolder, entry: PredictedCase) -> bool:
        return self.indexes[output].cases.get(name) == entry and all(
            path.is_file() for path in output.files(name)
        )

    def ended(self, name: str, outcome: tuple[str, ...] | FseftError) -> None:
        """A scan is segmented, with what is odd about it, or has failed."""
        if isinstance(outcome, FseftError):
            error = self.result.failed[name] = outcome.located(case=name)
            outcome = (str(error),) if len(self.scans) > 1 else ()
        else:
            for output, entry in self.entries[name].items():
                self.indexes[output].add({name: entry})
            self.result.done.append(name)
        for line in outcome:
            self.warn(line)
        self.done(name)


def _raise_failures(result: Predicted, scans: int) -> None:
    if not result.failed:
        return
    first = next(iter(result.failed.values()))
    if scans == 1:
        raise first
    names = list(result.failed)
    named = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    others = "" if len(names) == scans else ", the others are segmented"
    raise FseftError(
        f"{len(names)} of {scans} scans failed ({named}){others}; the first: {first.cause}",
        hint=first.hint,
        file=first.file,
    )


def _tell_seen(
    indexes: Iterable[PredictionIndex], scans: Iterable[str], warn: Callable[[str], None]
) -> None:
    cases = [index.cases for index in indexes]
    if seen := [
        name for name in scans if any(name in known and known[name].seen for known in cases)
    ]:
        warn(
            f"the adapter has learned from {', '.join(seen)}: how well it does there says nothing about new scans"
        )


def _check_mirroring(request: PredictRequest, adapters: Sequence[OpenAdapter]) -> None:
    """A network that has seen no mirrored bodies does not know them: averaging would spoil the result.

    Raises:
        FseftError: Mirrored copies are asked for, and an adapter has not learned from any.
    """
    for adapter in adapters if request.tta else ():
        if not adapter.manifest.mirror:
            sides = has_sides(tuple(adapter.manifest.labels))
            raise FseftError(
                "--tta mirrors the scan, and the adapter has not learned from mirrored images",
                file=adapter.place,
                hint="Leave it out: the structures have a left and a right."
                if sides
                else "Leave it out, or adapt with --set mirror=true.",
            )


def _check_outputs(
    request: PredictRequest,
    outputs: Sequence[PredictionFolder],
    scans: Mapping[str, tuple[Path, ...]],
) -> None:
    """A segmentation must not replace a scan, nor be taken for one the next time."""
    given = {path.resolve() for path in request.inputs}
    files = {file.resolve() for several in scans.values() for file in several}
    for output in outputs:
        replaced = files & {output.segmentation(name).resolve() for name in scans}
        if output.folder.resolve() in given or replaced:
            raise FseftError(
                "the segmentations would lie among the scans",
                file=output.folder,
                hint="Give another --output.",
            )
