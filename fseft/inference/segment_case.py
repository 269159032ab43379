"""Segmentation of one scan, from its files to the label maps of one or several adapters."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.experiment.devices import select_device
from fseft.inference.adapter_groups import load_adapter_group
from fseft.inference.case_segmentation import CaseSegmentation
from fseft.inference.model import for_scan
from fseft.inference.outputs import WINDOW_OVERLAP
from fseft.inference.scan_modality import known_modality, modality_difference
from fseft.learn.sampling.patch_sampler import network_input
from fseft.learn.sliding_window import sliding_window_slabs
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.volume.image import read_volume
from fseft.volume.intensity import modality_warnings
from fseft.volume.preprocessing import preprocess_volume
from fseft.volume.scan_range import differences
from fseft.workspace import staging_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from fseft.inference.adapter_groups import AdapterGroup
    from fseft.inference.outputs import PredictionFolder
    from fseft.inference.scan_modality import KnownModality
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.schemas import Manifest, PredictedCase
    from fseft.volume.image import Volume
    from fseft.volume.preprocessing import PreparedVolume

    Logits = npt.NDArray[Any]
    """(1 + structures, i, j, k)."""


@dataclass(frozen=True)
class InferenceConfig:
    """Settings that all scans share.

    Attributes:
        groups: Adapters, grouped by forward pass.
        device: `auto`, `cpu` or `cuda`; resolved in the process that segments.
        tta: Whether logits are averaged over mirrored copies.
        window_overlap: Fraction of a window that the next window repeats.
        num_threads: Threads of PyTorch in a worker process; 0 keeps PyTorch's default.
        any_modality: Whether scans of another modality than the training scans are segmented.
    """

    groups: tuple[AdapterGroup, ...]
    device: str = "cpu"
    tta: bool = False
    window_overlap: float = WINDOW_OVERLAP
    num_threads: int = 0
    any_modality: bool = False


@dataclass(frozen=True)
class Scan:
    """A scan to segment.

    Attributes:
        name: Name of the case.
        files: One file per channel, or one with all channels.
        entries: Folders in which its segmentation is missing -> future entry in their index.
        known: Its modality, once it is read; None if nothing states it.
    """

    name: str
    files: tuple[Path, ...]
    entries: Mapping[PredictionFolder, PredictedCase]
    known: KnownModality | None = None

    @property
    def adapters(self) -> set[OpenAdapter]:
        """Adapters whose segmentation is missing."""
        outputs = [output for output in self.entries if not self.has_labels(output)]
        return {adapter for output in outputs for adapter in output.adapters}

    def has_labels(self, output: PredictionFolder) -> bool:
        """Returns whether the label map exists already, so that other files can be made from it."""
        return bool(self.entries[output].sha256)


@dataclass(frozen=True)
class Remarks:
    """Remarks on a segmented scan.

    Attributes:
        warnings: About this scan, with its name.
        differences: From the training scans, in words that are the same for all scans.
        seconds: Time that the scan took.
        device: Where its networks ran; empty if none ran.
    """

    warnings: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    seconds: float = 0.0
    device: str = ""


def load_networks(config: InferenceConfig) -> tuple[nn.Module, ...]:
    """Loads the network of every adapter group."""
    return tuple(load_adapter_group(group) for group in config.groups)


_cached_networks = lru_cache(maxsize=1)(load_networks)


def segment_in_worker(scan: Scan, *, config: InferenceConfig) -> Remarks:
    """Runs `segment_scan` in a worker process, which keeps the networks for its next scan.

    Args:
        scan: The scan.
        config: The prediction, of which all scans of the worker are a part.

    Returns:
        Remarks on the scan.

    Raises:
        FseftError: As for `segment_scan`.
    """
    import torch

    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    return segment_scan(scan, config=config, networks=partial(_cached_networks, config))


def segment_scan(
    scan: Scan,
    *,
    config: InferenceConfig,
    networks: Callable[[], Sequence[nn.Module]],
    on_window: Callable[[str, int, int], None] = lambda _name, _finished, _total: None,
    on_read: Callable[[str, Remarks], None] = lambda _name, _remarks: None,
) -> Remarks:
    """Segments a scan, writes the results, and adds them to the indexes of their folders.

    Args:
        scan: The scan and its output folders.
        config: Settings that all scans share.
        networks: Loads one network per adapter group; called only if one of them runs.
        on_window: Called with the name of the pass, the number of finished windows and their total.
        on_read: Called with the name of the scan and the remarks on it, before it is segmented.

    Returns:
        Remarks on the scan and its segmentations.

    Raises:
        FseftError: A file cannot be read or written, the scan is of another modality than the
            training scans, or the memory is too small.
    """
    start = time.monotonic()
    config = replace(config, device=select_device(config.device))
    remedy = "Free some, use fewer `workers` or the CPU, or crop the scan."
    with report_out_of_memory("the scan", remedy), ExitStack() as staging:
        scan, volume = _read(scan, config)
        remarks = _remarks_on_scan(scan, volume, config)
        on_read(scan.name, remarks)
        segmentations = [
            CaseSegmentation(
                scan, output, volume, staging.enter_context(staging_folder(output.folder))
            )
            for output in scan.entries
        ]
        if scan.adapters:
            _segment(scan, volume, config, networks(), segmentations, on_window)
        empty = [segmentation for segmentation in segmentations if not segmentation.write()]
    warnings = [
        f"case {scan.name}: no structure was found{segmentation.description}"
        for segmentation in empty
    ]
    seconds = time.monotonic() - start
    device = config.device if scan.adapters else ""
    return Remarks((*remarks.warnings, *warnings), remarks.differences, seconds, device)


def _read(scan: Scan, config: InferenceConfig) -> tuple[Scan, Volume]:
    """Reads a scan, and decides the preprocessing of its adapters."""
    volume = read_scan(scan.files, [group[0].manifest for group in config.groups], scan.name)
    scan = replace(scan, known=known_modality(scan.files[0], volume.array))
    entries = {
        replace(output, adapters=_for_scan(output.adapters, scan, volume, config.device)): entry
        for output, entry in scan.entries.items()
    }
    return replace(scan, entries=entries), volume


def read_scan(files: Sequence[Path], manifests: Sequence[Manifest], case: str) -> Volume:
    """Reads the channels of a scan that adapters need.

    Args:
        files: One file per channel, or one with all channels.
        manifests: Manifests of the adapters, with the same channels.
        case: Name of the case, for errors.

    Raises:
        FseftError: A file cannot be read, or the scan has other channels.
    """
    count = len(manifests[0].channels)
    required = max(len(manifest.required_channels) for manifest in manifests)
    if required == count:
        source = files[0] if len(files) == 1 else files
        return read_volume(source, channels=count, case=case)
    volume = read_volume(files[0], case=case)
    return replace(volume, array=volume.array[:required])


def _for_scan(
    adapters: Sequence[OpenAdapter], scan: Scan, volume: Volume, device: str
) -> tuple[OpenAdapter, ...]:
    modality = scan.known.modality if scan.known else None
    return tuple(for_scan(adapter, volume, device, modality) for adapter in adapters)


def _segment(
    scan: Scan,
    volume: Volume,
    config: InferenceConfig,
    networks: Sequence[nn.Module],
    segmentations: Sequence[CaseSegmentation],
    on_window: Callable[[str, int, int], None],
) -> None:
    """Segments a volume for every output folder; adapters of a group share a forward pass."""
    for number, (group, network) in enumerate(zip(config.groups, networks, strict=True), start=1):
        if scan.adapters.isdisjoint(group):
            continue
        adapters = _for_scan(group, scan, volume, config.device)
        suffix = f", pass {number} of {len(networks)}" if len(networks) > 1 else ""
        progress = partial(on_window, scan.name + suffix)
        _segment_with_group(volume, adapters, network, config, segmentations, progress)


def _remarks_on_scan(scan: Scan, volume: Volume, config: InferenceConfig) -> Remarks:
    """Describes how a scan differs from the training scans of the adapters, each text once.

    Raises:
        FseftError: The scan is of another modality than theirs.
    """
    manifests = [adapter.manifest for adapter in scan.adapters]
    modalities = sorted({manifest.preprocessing.modality for manifest in manifests})
    difference = modality_difference(scan.known, modalities)
    if difference and not config.any_modality:
        hint = "Use an adapter for this modality, or set `any_modality` to segment it anyway."
        raise FseftError(difference, hint=hint, case=scan.name, file=scan.files[0])
    texts = [difference] if difference else []
    for modality in () if difference else modalities:
        texts += modality_warnings(volume.array, modality)
    warnings = [f"case {scan.name}, {scan.files[0]}: {text}" for text in texts]
    ranges = dict.fromkeys(manifest.scans for manifest in manifests)
    unlike = [text for expected in ranges for text in differences(volume.geometry, expected)]
    return Remarks(tuple(warnings), tuple(dict.fromkeys(unlike)))


def _segment_with_group(
    volume: Volume,
    group: AdapterGroup,
    network: nn.Module,
    config: InferenceConfig,
    segmentations: Sequence[CaseSegmentation],
    progress: Callable[[int, int], None],
) -> None:
    """Runs a network once, and adds the logits of each adapter to its segmentations."""
    manifest = group[0].manifest
    prepared = preprocess_volume(volume, None, manifest.preprocessing)
    slabs = predict_slabs(
        network,
        prepared,
        manifest,
        device=config.device,
        tta=config.tta,
        window_overlap=config.window_overlap,
        progress=progress,
    )
    receivers = list(_receivers(group, segmentations, prepared))
    for slab in slabs:
        for channels, receive in receivers:
            receive(slab[channels])


def _receivers(
    group: AdapterGroup, segmentations: Sequence[CaseSegmentation], prepared: PreparedVolume
) -> Iterator[tuple[slice, Callable[[Logits], None]]]:
    """Yields the channels of each adapter, and what takes them."""
    first = 0
    for adapter in group:
        channels = slice(first, first + adapter.num_channels)
        first = channels.stop
        for segmentation in segmentations:
            if adapter in segmentation.adapters:
                yield channels, segmentation.adder(adapter, prepared)
                if segmentation.output.probabilities:
                    yield channels, segmentation.probability_writer(adapter, prepared)


def predict_slabs(
    network: nn.Module,
    prepared: PreparedVolume,
    manifest: Manifest,
    *,
    device: str = "cpu",
    tta: bool = False,
    window_overlap: float = WINDOW_OVERLAP,
    progress: Callable[[int, int], None] = lambda _finished, _total: None,
) -> Iterator[npt.NDArray[np.float32]]:
    """Computes logits of a preprocessed volume by sliding windows, in slabs along the first axis.

    Args:
        network: Module from (B, C, i, j, k) to logits.
        prepared: Volume on the network's grid, intensities not yet normalised.
        manifest: Manifest of the adapter, with the preprocessing.
        device: `cpu` or `cuda`.
        tta: Whether logits are averaged over copies mirrored along all axes.
        window_overlap: Fraction of a window that the next window repeats.
        progress: Called with the number of finished windows and their total.

    Yields:
        Logits (output channels of the network, rows, j, k) on the grid of `prepared`, in order.
    """
    window = manifest.preprocessing.window(prepared.image.shape[1:])
    image, inside = network_input(
        prepared.image, manifest.preprocessing, prepared.statistics(), window
    )
    rows, *in_plane = inside
    slabs = sliding_window_slabs(
        network,
        image,
        patch_size=window,
        device=device,
        overlap=window_overlap,
        mirror_axes=(0, 1, 2) if tta else (),
        progress=progress,
    )
    first = 0
    for slab in slabs:
        kept = slice(max(0, rows.start - first), max(0, rows.stop - first))
        first += slab.shape[1]
        if slab[:, kept].size:
            yield slab[(slice(None), kept, *in_plane)]
