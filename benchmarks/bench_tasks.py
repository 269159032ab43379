"""One task of `benchmarks/bench.py`, ours or the peer's, in a separate process.

Run: `python benchmarks/bench_tasks.py TASK ours|peer RESULT.npy [DATA]`. It writes the result that
`bench.py` compares, and prints the CPU seconds of the task, without those of imports, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Array = npt.NDArray[Any]

OLD, NEW = (61, 97, 112), (122, 194, 224)
"""Grids of a torso, before and after the export."""


def scores(classes: int) -> Array:
    """Returns logits (C, i, j, k) of balls of random size in a background."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((classes, *OLD), dtype=np.float32)
    logits: Array = 0.1 * noise - 4
    logits[0] = 0
    grid = np.indices(OLD, np.float32)
    for logit in logits[1:]:
        centre, radius = random.uniform(0.15, 0.85, 3) * OLD, random.uniform(4, 14)
        distance = np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(0))
        logit += np.clip(12 - 12 * distance / radius, 0, 12).astype(np.float32)
    return logits


def export(side: str, classes: int) -> Callable[[], Array]:
    """Logits to labels on a grid of twice the resolution; the peer is nnU-Net's default."""
    logits = scores(classes)
    if side == "ours":
        from fseft.volume.streamed_classes import StreamedClasses

        def ours() -> Array:
            labels = np.zeros(NEW, np.uint8)
            for region, classes, _ in StreamedClasses(OLD, NEW).add(logits):
                labels[region] = classes
            return labels

        return ours
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    def peer() -> Array:
        fine = resample_data_or_seg_to_shape(
            logits,
            NEW,
            (2, 2, 2),
            (1, 1, 1),
            is_seg=False,
            order=1,
            order_z=0,
            force_separate_z=None,
        )
        labels: Array = np.asarray(fine).argmax(0).astype(np.uint8)
        return labels

    return peer


def window(side: str) -> Callable[[], Array]:
    """Sliding window over 96 x 128 x 128 voxels; the peer is MONAI's, four windows per batch."""
    import torch

    from fseft.learn.networks.backbone import build_network, get_architecture
    from fseft.learn.sliding_window import sliding_window_logits
    from fseft.learn.training.memory_format import to_device

    network = build_network(
        get_architecture("resunet"), in_channels=1, out_channels=5, hparams={}, seed=0
    )
    network = to_device(network, "cpu").eval()
    image = np.random.default_rng(0).standard_normal((1, 96, 128, 128), dtype=np.float32)
    if side == "ours":
        return lambda: sliding_window_logits(network, image, patch_size=(64, 64, 64))
    from monai.inferers import sliding_window_inference

    def peer() -> Array:
        with torch.inference_mode():
            tensor = torch.from_numpy(image[None])
            logits = sliding_window_inference(
                tensor, (64, 64, 64), 4, network, overlap=0.5, mode="gaussian"
            )
        result: Array = logits[0].numpy()
        return result

    return peer


def lora(side: str, channels: int, length: int) -> Callable[[], Array]:
    """Forward and backward pass of LoRA on a convolution, 5 times; the peer is PEFT's layer."""
    import torch
    from lora_convolution import layers

    layer = layers(8, channels)["ours" if side == "ours" else "peft"]
    torch.manual_seed(1)
    x, gradient = torch.randn(2, 1, channels, length, length, length)
    x.requires_grad_()

    def run() -> Array:
        for _ in range(5):
            x.grad = None
            layer(x).backward(gradient)
        result: Array = x.grad.numpy()
        return result

    return run


def evaluate(side: str, data: Path) -> Callable[[], Array]:
    """Dice and NSD of pairs of labels; the peer is surface-distance. Imports count."""

    def ours() -> Array:
        from fseft.api import evaluate

        metrics = ("dice", "nsd", "hd95")
        scores = evaluate(data / "predictions", data / "references", metrics=metrics, workers=1)
        rows = [
            [values.metrics["dice"], values.metrics["nsd"]]
            for _, case in sorted(scores.cases.items())
            for _, values in sorted(case.items())
        ]
        return np.array(rows)

    def peer() -> Array:
        import SimpleITK
        import surface_distance as sd

        rows = []
        for path in sorted((data / "references").glob("*.nii.gz")):
            reference = SimpleITK.ReadImage(str(path))
            prediction = SimpleITK.ReadImage(str(data / "predictions" / path.name))
            spacing = reference.GetSpacing()[::-1]
            arrays = [SimpleITK.GetArrayFromImage(image) for image in (reference, prediction)]
            for value in np.unique(arrays[0])[1:]:
                masks = [array == value for array in arrays]
                distances = sd.compute_surface_distances(*masks, spacing)
                sd.compute_robust_hausdorff(distances, 95)
                nsd = sd.compute_surface_dice_at_tolerance(distances, 2.0)
                rows.append((path.name, value, sd.compute_dice_coefficient(*masks), nsd))
        return np.array([row[2:] for row in sorted(rows)])

    return ours if side == "ours" else peer


TASKS: dict[str, Callable[[str], Callable[[], Array]]] = {
    "export-5": lambda side: export(side, 5),
    "export-25": lambda side: export(side, 25),
    "export-118": lambda side: export(side, 118),
    "window": window,
    "lora-32": lambda side: lora(side, 32, 48),
    "lora-128": lambda side: lora(side, 128, 20),
}


def main() -> None:
    """Runs the task once."""
    name, side, file, *data = sys.argv[1:]
    run = evaluate(side, Path(data[0])) if data else TASKS[name](side)
    began = 0.0 if data else time.process_time()
    result = run()
    seconds = time.process_time() - began
    np.save(Path(file), result)
    print(json.dumps({"cpu_seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
