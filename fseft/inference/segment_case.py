"""One scan, from its files to its segmentations by one or several adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.experiment.devices import select_device
from fseft.inference.adapter_groups import load_adapter_group
from fseft.learn.sampling.patch_sampler import pad_to
from fseft.learn.sliding_window import sliding_window_logits
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.volume.image import read_volume, write_labels, write_volume
from fseft.volume.intensity import modality_warnings, normalise
from fseft.volume.preprocessing import LabelMerger, preprocess_volume, restore_probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import nn

    from fseft.inference.adapter_groups import AdapterGroup, OpenAdapter
    from fseft.inference.outputs import PredictionFolder
    from fseft.schemas import Manifest
    from fseft.volume.geometry import Geometry
    from fseft.volume.image import Volume
    from fseft.volume.preprocessing import PreparedVolume
    from fseft.workspace import Workspace

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class InferenceConfig:
    """What is the same for all scans.

    Attributes:
        passes: Over each scan.
        store: Where models of the workspace lie.
        device: `auto`, `cpu` or `cuda`; chosen where the work is done.
        tta: Average over mirrored copies.
        threads: Of torch in a worker process; 0 leaves it alone.
    """

    passes: tuple[AdapterGroup, ...]
    store: Workspace
    device: str = "cpu"
    tta: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Scan:
    """A scan to segment: its files, one per channel or one for all, and the folders that lack its segmentation."""

    name: str
    files: tuple[Path, ...]
    outputs: tuple[PredictionFolder, ...]


def load_networks(work: InferenceConfig) -> tuple[nn.Module, ...]:
    """One for each pass."""
    return tuple(load_adapter_group(one, work.store) for one in work.passes)


_kept_networks = lru_cache(maxsize=1)(load_networks)


def segment_in_worker(scan: Scan, *, work: InferenceConfig) -> tuple[str, ...]:
    """`segment_scan` in a process of its own, which keeps the networks for its next scan."""
    import torch

    if work.threads:
        torch.set_num_threads(work.threads)
    return segment_scan(scan, work=work, networks=_kept_networks(work))


def segment_scan(
    scan: Scan,
    *,
    work: InferenceConfig,
    networks: Sequence[nn.Module],
    windows: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> tuple[str, ...]:
    """Segment one scan and write the results; gives what is odd about it and them.

    Args:
        scan: Which, and for which folders.
        work: How.
        networks: Of the passes.
        windows: Told the scan's name, and how many windows of a pass are done, of how many.

    Raises:
        FseftError: A file cannot be read or written, or the memory is too small.
    """
    files = scan.files[0] if len(scan.files) == 1 else scan.files
    wanted = {adapter for output in scan.outputs for adapter in output.adapters}
    channels = len(work.passes[0][0].manifest.channels)
    with report_out_of_memory(
        "the scan", "Free some, use fewer --workers or --device cpu, or crop the scan."
    ):
        volume = read_volume(files, channels=channels, case=scan.name)
        modalities = {adapter.manifest.preprocessing.modality for adapter in wanted}
        odd = [
            f", {scan.files[0]}: {doubt}"
            for one in sorted(modalities)
            for doubt in modality_warnings(volume.array, one)
        ]
        results = [_Result(scan.name, output, volume.geometry) for output in scan.outputs]
        for number, (adapters, network) in enumerate(
            zip(work.passes, networks, strict=True), start=1
        ):
            if wanted.isdisjoint(adapters):
                continue
            name = (
                f"{scan.name}, pass {number} of {len(networks)}" if len(networks) > 1 else scan.name
            )
            _one_pass(volume, adapters, network, work, results, partial(windows, name))
        odd += [
            f": no structure was found{result.whose}" for result in results if not result.write()
        ]
    return tuple(f"case {scan.name}{what}" for what in odd)


def _one_pass(
    volume: Volume,
    adapters: AdapterGroup,
    network: nn.Module,
    work: InferenceConfig,
    results: Sequence[_Result],
    progress: Callable[[int, int], None],
) -> None:
    """Run a network once, and give each adapter's part of its logits to the results that it belongs to."""
    manifest = adapters[0].manifest
    how = manifest.preprocessing
    prepared = preprocess_volume(
        volume, None, orientation=how.orientation, spacing_mm=how.spacing_mm, modality=how.modality
    )
    device = select_device(work.device)
    scores = predict_logits(
        network, prepared, manifest, device=device, tta=work.tta, progress=progress
    )
    ends = np.cumsum([1 + len(adapter.manifest.labels) for adapter in adapters])
    for adapter, own in zip(adapters, np.split(scores, ends[:-1]), strict=True):
        for result in results:
            if adapter in result.output.adapters:
                result.add(adapter, own, prepared)


def predict_logits(
    network: nn.Module,
    prepared: PreparedVolume,
    manifest: Manifest,
    *,
    device: str = "cpu",
    tta: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> npt.NDArray[np.float32]:
    """Logits (channels of the network, i, j, k) on the prepared grid."""
    how = manifest.preprocessing
    padded, inside = pad_to(prepared.image, how.patch_size, how.modality)
    image = normalise(padded, how.intensity, prepared.statistics())
    axes = (0, 1, 2) if tta else ()
    scores = sliding_window_logits(
        network,
        image,
        patch_size=how.patch_size,
        device=device,
        mirror_axes=axes,
        progress=progress,
    )
    return scores[(slice(None), *inside)]


class _Result:
    """The segmentation of a scan for one folder, as adapters add to it."""

    def __init__(self, case: str, output: PredictionFolder, native: Geometry) -> None:
        self.case, self.output, self.native = case, output, native
        self.values = output.labels
        self.by_probability = output.overlap == "probability" and len(output.adapters) > 1
        strength = np.float32 if self.by_probability else np.min_scalar_type(len(output.adapters))
        self.claims = LabelMerger.none(native, max(self.values.values()), strength)

    @property
    def whose(self) -> str:
        """Said where each adapter has a folder of its own."""
        return f" by {self.output.adapters[0].name}" if self.output.overlap == "separate" else ""

    def add(self, adapter: OpenAdapter, scores: Array, prepared: PreparedVolume) -> None:
        """Keep the labels of an adapter, and write its probabilities if they are wanted."""
        if self.output.probabilities:
            path = self.output.probabilities_of(self.case, adapter)
            write_volume(path, restore_probabilities(_softmax(scores), prepared), self.native)
        ids = [0, *(self.values[name] for name in adapter.manifest.labels)]
        left = len(self.output.adapters) - self.output.adapters.index(adapter)
        self.claims.add(scores, prepared, ids, None if self.by_probability else left)

    def write(self) -> bool:
        """Write the label map; False where it is empty."""
        for path in self.output.leftovers(self.case):
            path.unlink(missing_ok=True)
        write_labels(self.output.segmentation(self.case), self.claims.labels, self.native)
        return bool(self.claims.labels.any())


def _softmax(scores: Array) -> Array:
    from scipy.special import softmax

    result: Array = softmax(scores, axis=0)
    return result
