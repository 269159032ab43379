"""Proposes a `dataset.json` for a folder of scans and labels that has none."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft import dataset_json
from fseft.errors import FseftError
from fseft.planning.dataset_reading import LEAST_SPECIFIC_READER, detected_reader, read_dataset
from fseft.planning.file_pairing import PairedCase, pair_files
from fseft.temporaries import remove_leftovers
from fseft.volume.image import read_labels, read_volume
from fseft.volume.image_files import suffix_of
from fseft.volume.intensity import guess_modality
from fseft.volume.label_values import present_values
from fseft.workspace import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from fseft.experiment.callbacks import Callbacks

_MAX_SCANS = 3  # of which the intensities are read


@dataclass(frozen=True)
class DatasetDescription:
    """A proposed `dataset.json`.

    Attributes:
        path: The file, which is not written yet.
        content: Its content, as of nnU-Net v2; `dataset` lists the files unless they are in
            `imagesTr` and `labelsTr`.
        channels: Names of the channels.
        cases: Number of cases.
        labelled: Number of cases with a label.
        structures: Structure -> number of cases that have it.
        modality_reason: Why the modality was chosen.
    """

    path: Path
    content: dict[str, JsonValue]
    channels: tuple[str, ...]
    cases: int
    labelled: int
    structures: dict[str, int]
    modality_reason: str

    def write(self) -> None:
        """Writes the file.

        Raises:
            FseftError: The file exists meanwhile, or the folder cannot be written.
        """
        if self.path.exists():
            raise FseftError("exists already", file=self.path, hint="Change it, or remove it.")
        write_text(self.path, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")


def describe_dataset(
    folder: Path,
    *,
    modality: str = "",
    labels: Mapping[int, str] | None = None,
    callbacks: Callbacks | None = None,
) -> DatasetDescription | None:
    """Reads the files of a folder, and proposes a `dataset.json` for them.

    Args:
        folder: Folder of scans and labels; see `pair_files` for the names that are understood.
        modality: "ct" or "mr"; empty to guess it from the intensities.
        labels: Voxel value -> name of the structure; others are called `class_<value>`.
        callbacks: Observe the progress.

    Returns:
        The proposal; None if the folder needs none.

    Raises:
        FseftError: The folder has no image, its files cannot be paired, a file is damaged, or a
            named value occurs in no label.
    """
    reader = detected_reader(folder)
    if reader and reader != LEAST_SPECIFIC_READER:
        if modality or labels:
            cause = f"is described already, in the layout of the reader {reader!r}"
            raise FseftError(cause, file=folder, hint="Change its dataset.json instead.")
        remove_leftovers(folder)  # of a process that was killed when it had written dataset.json
        return None
    cases = _read_cases(folder) if reader else pair_files(folder)
    channels = _channels(cases)
    counts = _count_structures(cases, callbacks)
    names = _named(counts, labels or {}, folder)
    modality, reason = (modality, "given") if modality else _guess_modality(cases, channels)
    shown = tuple(name or modality.upper() for name in channels)
    content = _content(shown, names, cases)
    if not reader:
        content["dataset"] = {name: _listed(case, folder) for name, case in cases.items()}
    return DatasetDescription(
        path=folder / dataset_json.NAME,
        content=content,
        channels=shown,
        cases=len(cases),
        labelled=_count_labelled(cases),
        structures={names[value]: count for value, count in counts.items()},
        modality_reason=reason,
    )


def _content(
    channels: Sequence[str], names: Mapping[int, str], cases: Mapping[str, PairedCase]
) -> dict[str, JsonValue]:
    """Returns the content of `dataset.json`, without a list of files."""
    table: dict[str, JsonValue] = {name: value for value, name in names.items()}
    return {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {"background": 0, **table},
        "numTraining": _count_labelled(cases),
        "file_ending": _common_suffix(cases),
    }


def _count_labelled(cases: Mapping[str, PairedCase]) -> int:
    return sum(case.label is not None for case in cases.values())


def _read_cases(folder: Path) -> dict[str, PairedCase]:
    """Returns the cases of a folder with `imagesTr` and `labelsTr`."""
    cases = {}
    for case in read_dataset(folder, reader=LEAST_SPECIFIC_READER).cases:
        channels = [""] if len(case.images) == 1 else [f"{i:04d}" for i in range(len(case.images))]
        label = case.label if not isinstance(case.label, dict) else None
        cases[case.name] = PairedCase(dict(zip(channels, case.images, strict=True)), label)
    return cases


def _channels(cases: Mapping[str, PairedCase]) -> list[str]:
    """Returns the channels, which all cases must have; numbers are called `channel_0`.

    Raises:
        FseftError: The cases differ.
    """
    first, *others = cases
    channels = list(cases[first].images)
    for name in others:
        if list(cases[name].images) != channels:
            own, expected = _show(cases[name]), _show(cases[first])
            cause = f"has {own}, unlike the case {first}, which has {expected}"
            hint = "Give all cases the same images, or write a dataset.json that lists them."
            raise FseftError(cause, case=name, hint=hint)
    return [f"channel_{int(name)}" if name.isdigit() else name for name in channels]


def _show(case: PairedCase) -> str:
    return ", ".join(path.name for path in case.images.values())


def _count_structures(
    cases: Mapping[str, PairedCase], callbacks: Callbacks | None
) -> dict[int, int]:
    """Returns label value -> number of cases, ascending."""
    labelled = {name: case.label for name, case in cases.items() if case.label is not None}
    counts: Counter[int] = Counter()
    stage = (
        callbacks.progress("labels", len(labelled)) if callbacks else nullcontext(lambda _: None)
    )
    with stage as advance:
        for name, path in labelled.items():
            counts.update(present_values(read_labels(path, case=name).array))
            advance(name)
    return dict(sorted(counts.items()))


def _named(counts: Mapping[int, int], labels: Mapping[int, str], folder: Path) -> dict[int, str]:
    """Returns label value -> name."""
    for value, name in labels.items():
        if value not in counts:
            present = ", ".join(map(str, counts)) or "none"
            cause = f"no label has the value {value} ({name}); present: {present}"
            raise FseftError(cause, file=folder, hint="Name a value that is present.")
    return {value: labels.get(value, f"class_{value}") for value in counts}


def _guess_modality(cases: Mapping[str, PairedCase], channels: list[str]) -> tuple[str, str]:
    """Returns the modality, and why."""
    by_name = guess_modality(channels, 0)
    if by_name != "other":
        return by_name, f"by the channel names {', '.join(channels)}"
    minimum = min(
        float(read_volume(next(iter(case.images.values())), case=name).array.min())
        for name, case in list(cases.items())[:_MAX_SCANS]
    )
    is_ct = guess_modality(channels, minimum) == "ct"
    return ("ct" if is_ct else "mr"), f"the smallest value is {minimum:g}"


def _common_suffix(cases: Mapping[str, PairedCase]) -> str:
    """Returns the suffix of all images, or nothing if they differ."""
    suffixes = set()
    for case in cases.values():
        suffixes |= {suffix_of(path) for path in case.images.values()}
    return suffixes.pop() if len(suffixes) == 1 else ""


def _listed(case: PairedCase, folder: Path) -> JsonValue:
    """Returns the paths of a case relative to the folder."""
    images: list[JsonValue] = []
    images += [path.relative_to(folder).as_posix() for path in case.images.values()]
    label = None
    if case.label is not None:
        label = case.label.relative_to(folder).as_posix()
    return {"images": images, "label": label}
