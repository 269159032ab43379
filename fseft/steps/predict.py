"""`fseft predict`: segment scans on their own grid with an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fseft.documents import PredictedCase
from fseft.errors import FseftError
from fseft.learn.infer import segment
from fseft.learn.patches import pad_to
from fseft.learn.vocabulary import has_sides
from fseft.steps.adapters import NAME, read_manifest, restore
from fseft.steps.devices import choose_device
from fseft.steps.prediction_index import INDEX, open_index
from fseft.store import digest, file_digest, write_document
from fseft.volume.image import (
    case_name,
    content_digest,
    is_image,
    read_volume,
    write_labels,
    write_volume,
)
from fseft.volume.intensity import doubts, normalise
from fseft.volume.prepare import prepare, restore_labels, restore_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from fseft.documents import Manifest, Predictions
    from fseft.store import Store
    from fseft.volume.prepare import Prepared


@dataclass(frozen=True)
class PredictRequest:
    """What `fseft predict` was asked for."""

    inputs: tuple[Path, ...]
    output: Path
    adapter: Path
    probabilities: bool = False
    tta: bool = False
    device: str = "cpu"


@dataclass
class Predicted:
    """The scans that were segmented now, those that had been before, and what went wrong with others."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, FseftError] = field(default_factory=dict)


@dataclass(frozen=True)
class _Listener:
    warn: Callable[[str], None]
    windows: Callable[[str, int, int], None]


def gather_scans(
    inputs: Sequence[Path], channels: int, warn: Callable[[str], None] = lambda _: None
) -> dict[str, tuple[Path, ...]]:
    """Case name -> its files, one per channel; files, folders of files, and DICOM series folders.

    Args:
        inputs: As the user gives them.
        channels: Of each scan.
        warn: Told which folders inside a folder were passed over.

    Raises:
        FseftError: Nothing found, two scans of one name, or a scan without one of its channels.
    """
    files = [scan for path in inputs for scan in _expand(path, warn)]
    # `_0001` is a channel only where there are so many: single-channel scans may well be called scan_0001, scan_0002.
    suffixed = all(_channel(path) in range(channels) for path in files)
    scans: dict[str, list[Path]] = {}
    for path in sorted(files, key=case_name):
        name = case_name(path)
        scans.setdefault(name[:-5] if suffixed else name, []).append(path)
    for name, paths in scans.items():
        expected = list(range(channels)) if suffixed else [_channel(paths[0])]
        if [_channel(path) for path in paths] != expected:
            raise FseftError(
                f"{len(paths)} file(s) of one name, expected {len(expected)}",
                case=name,
                file=paths[0],
                hint="Give each scan a name of its own.",
            )
    if not scans:
        raise _no_scan(inputs)
    return {name: tuple(paths) for name, paths in scans.items()}


def _expand(path: Path, warn: Callable[[str], None]) -> list[Path]:
    if not path.exists():
        raise FseftError("there is no such file or folder", file=path, hint="Check the path.")
    path = path.absolute()  # so that "." has a name
    if not path.is_dir() or is_image(path):
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if is_image(entry)]
    passed = [entry.name for entry in entries if entry.is_dir() and entry not in images]
    if images and passed:
        warn(f"{path}: passed over the folders {', '.join(passed)}; give them by themselves if they hold scans")
    return images


def _no_scan(inputs: Sequence[Path]) -> FseftError:
    """Images may lie deeper than one folder, as in patient/study/series."""
    below = (path for folder in inputs for path in sorted(folder.rglob("*")) if is_image(path))
    first = next(below, None)
    hint = f"Give {first.parent if first.is_file() else first}." if first else "Give image files or folders."
    return FseftError("there is no scan", file=inputs[0] if inputs else None, hint=hint)


def _channel(path: Path) -> int | None:
    tail = case_name(path)[-5:]
    return int(tail[1:]) if tail[:1] == "_" and tail[1:].isdigit() and len(tail) == 5 else None


def predict(
    request: PredictRequest,
    store: Store,
    done: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    windows: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> Predicted:
    """Segment every scan; what an earlier run with this adapter did is skipped.

    Each result appears atomically as `<output>/<case>.nii.gz`, on the scan's own grid, with the label values of the
    training data; `predictions.json` beside them says which structures they hold, and whose they are.

    Args:
        request: What was asked for.
        store: Where models of the workspace lie.
        done: Told the name of each scan that was tried.
        warn: Told what is odd about a scan or the output folder, and each failure where there are other scans.

        windows: Told a scan's name, and how many of its windows are done, of how many.

    Raises:
        FseftError: A scan cannot be read, or the adapter does not fit. The other scans are segmented first.
    """
    manifest = read_manifest(request.adapter)
    _check_mirroring(request, manifest)
    scans = gather_scans(request.inputs, len(manifest.channels), warn)
    _check_output(request, scans)
    request = replace(request, device=choose_device(request.device))
    network, _ = restore(request.adapter, store)
    adapter = file_digest(request.adapter / NAME if request.adapter.is_dir() else request.adapter)
    targets = {name: _results(request, name)[0] for name in scans}
    index = open_index(request.output, manifest.labels, (adapter, request.adapter), targets, warn)
    write_document(request.output / INDEX, index)  # a folder that cannot be written is told before any work
    result = Predicted()
    listener = _Listener(warn, windows)
    for name, files in scans.items():
        try:
            case = _case_entry(request, manifest, adapter, files)
            if index.cases.get(name) == case and all(path.is_file() for path in _results(request, name)):
                result.skipped.append(name)
            else:
                # Announced first: what a killed run has left must not be taken for somebody else's file.
                write_document(request.output / INDEX, _with(index, name, case.model_copy(update={"key": ""})))
                _predict_case(request, network, manifest, name, files, listener)
                index = _with(index, name, case)
                write_document(request.output / INDEX, index)
                result.done.append(name)
        except FseftError as error:
            result.failed[name] = error.located(case=name)
            if len(scans) > 1:
                warn(str(result.failed[name]))
        done(name)
    _tell_seen(index, scans, warn)
    _raise_failures(result, len(scans))
    return result


def _with(index: Predictions, name: str, case: PredictedCase) -> Predictions:
    return index.model_copy(update={"cases": {**index.cases, name: case}})


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


def _tell_seen(index: Predictions, scans: Iterable[str], warn: Callable[[str], None]) -> None:
    if seen := [name for name in scans if name in index.cases and index.cases[name].seen]:
        warn(f"the adapter has learned from {', '.join(seen)}: how well it does there says nothing about new scans")


def _predict_case(
    request: PredictRequest,
    network: nn.Module,
    manifest: Manifest,
    name: str,
    files: tuple[Path, ...],
    listener: _Listener,
) -> None:
    volume = read_volume(files[0] if len(files) == 1 else files, channels=len(manifest.channels), case=name)
    how = manifest.preprocessing
    for doubt in doubts(volume.array, how.modality):
        listener.warn(f"case {name}, {files[0]}: {doubt}")
    prepared = prepare(volume, None, orientation=how.orientation, spacing_mm=how.spacing_mm, modality=how.modality)
    scores = scores_of(
        network,
        prepared,
        manifest,
        device=request.device,
        tta=request.tta,
        progress=lambda done, total: listener.windows(name, done, total),
    )
    ids = [0, *manifest.labels.values()]
    labels, probabilities = request.output / f"{name}.nii.gz", request.output / "probabilities" / f"{name}.nii.gz"
    if request.probabilities:
        write_volume(probabilities, restore_probabilities(_softmax(scores), prepared), prepared.native)
    else:
        probabilities.unlink(missing_ok=True)  # of an earlier prediction
    found = restore_labels(scores, prepared, ids)
    write_labels(labels, found, prepared.native)
    if not found.any():
        listener.warn(f"case {name}: no structure was found")


def _results(request: PredictRequest, name: str) -> list[Path]:
    """The files that a scan's prediction consists of."""
    file = f"{name}.nii.gz"
    return [request.output / file, *([request.output / "probabilities" / file] if request.probabilities else [])]


def _check_mirroring(request: PredictRequest, manifest: Manifest) -> None:
    """A network that has seen no mirrored bodies does not know them: averaging would spoil the result.

    Raises:
        FseftError: Mirrored copies are asked for, and the adapter has not learned from any.
    """
    if request.tta and not manifest.mirror:
        sides = has_sides(tuple(manifest.labels))
        raise FseftError(
            "--tta mirrors the scan, and the adapter has not learned from mirrored images",
            file=request.adapter,
            hint="Leave it out: the structures have a left and a right."
            if sides
            else "Leave it out, or adapt with --set mirror=true.",
        )


def _check_output(request: PredictRequest, scans: dict[str, tuple[Path, ...]]) -> None:
    """A segmentation must not replace a scan, nor be taken for one the next time."""
    folders = {path.resolve() for path in request.inputs}
    replaced = [
        f for name, files in scans.items() for f in files if f.resolve() == _results(request, name)[0].resolve()
    ]
    if request.output.resolve() in folders or replaced:
        raise FseftError(
            "the segmentations would lie among the scans", file=request.output, hint="Give another --output."
        )


def scores_of(
    network: nn.Module,
    prepared: Prepared,
    manifest: Manifest,
    *,
    device: str = "cpu",
    tta: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> npt.NDArray[np.float32]:
    """Logits (1 + structures, i, j, k) on the prepared grid."""
    how = manifest.preprocessing
    padded, inside = pad_to(prepared.image, how.patch_size, how.modality)
    image = normalise(padded, how.intensity, prepared.statistics())
    axes = (0, 1, 2) if tta else ()
    scores = segment(network, image, patch_size=how.patch_size, device=device, mirror_axes=axes, progress=progress)
    return scores[(slice(None), *inside)]


def _softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from scipy.special import softmax

    result: npt.NDArray[np.float32] = softmax(scores, axis=0)
    return result


def _case_entry(request: PredictRequest, manifest: Manifest, adapter: str, files: tuple[Path, ...]) -> PredictedCase:
    key = digest(adapter, request.tta, request.probabilities, [content_digest(file) for file in files])
    return PredictedCase(key=key, adapter=adapter, seen=content_digest(files) in manifest.support_images)
