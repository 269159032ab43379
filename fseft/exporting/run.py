"""`fseft export`: writes an adapted network in the format of another tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.evaluation.run import Evaluation
from fseft.exporting.model_card import model_card
from fseft.model_zoo.tensor_checks import require_finite
from fseft.registry import registry
from fseft.temporaries import remove_leftovers
from fseft.version import __version__
from fseft.workspace import atomic_write, file_digest, read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.inference.adapter import Adapter
    from fseft.schemas import FrozenModel, Manifest

PLUGINS = {"nnunet": "fseft-nnunet"}
"""Format -> the package of this project that adds it."""
PREPROCESSING, MODEL_CARD = "preprocessing.json", "model_card.md"
_DECISION_BY_ORDER = (
    "the last channel of writing_order whose logit exceeds that of channel 0; if there is none, "
    "channel 0"
)


def export(
    adapter: Adapter,
    exporter: str,
    output: Path,
    *,
    scores: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the merged network of an adapter, its preprocessing and a model card to a folder.

    The folder appears when it is complete.

    Args:
        adapter: The adapter.
        exporter: Name of the format.
        output: The folder.
        scores: A `metrics.json` of `fseft evaluate`, for the model card.
        overwrite: Replace the folder if it exists.

    Returns:
        The folder.

    Raises:
        FseftError: The format cannot express the network, a package is missing, the folder exists,
            or the scores are those of another adapter.
    """
    _require_plugin(exporter)
    spec = registry().file_format("exporter", exporter)
    remove_leftovers(output.parent)
    _require_replaceable(output, overwrite=overwrite)
    evaluation = None if scores is None else _read_scores(scores, adapter)
    network, manifest = adapter.network.cpu(), adapter.manifest
    require_finite(network.state_dict(), adapter.path)
    write = registry().factory("exporter", exporter)
    card = model_card(manifest, evaluation, format_name=f"{spec.name}, by fseft {__version__}")
    with atomic_write(output) as folder:
        folder.mkdir()
        write(network, manifest, folder)
        description = json.dumps(describe_interface(manifest), indent=2, ensure_ascii=False)
        (folder / PREPROCESSING).write_text(f"{description}\n", encoding="utf-8")
        (folder / MODEL_CARD).write_text(card, encoding="utf-8")
    return output


def _require_plugin(exporter: str) -> None:
    """Names the package of a format of this project that is not installed."""
    package = PLUGINS.get(exporter)
    if package and exporter not in registry().names("exporter"):
        hint = f"Run `pip install {package}`."
        raise FseftError(f"the format {exporter!r} needs the package {package}", hint=hint)


def _require_replaceable(output: Path, *, overwrite: bool) -> None:
    """Checks that the output is new, or an earlier export that may be replaced."""
    if not output.exists():
        return
    if not overwrite:
        raise FseftError("exists already", file=output, hint="Pass `overwrite`, or choose another.")
    if not (output / PREPROCESSING).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise FseftError("is not an export", file=output, hint="Choose another folder.")


def _read_scores(path: Path, adapter: Adapter) -> Evaluation:
    """Reads the scores of an adapter.

    Raises:
        FseftError: The file is invalid, or has the scores of another adapter.
    """
    evaluation = read_document(path, Evaluation)
    if file_digest(adapter.path) not in evaluation.adapters:
        raise FseftError(
            "has the scores of another adapter",
            file=path,
            hint=f"Evaluate the segmentations of {adapter.path}.",
        )
    return evaluation


def describe_interface(manifest: Manifest) -> dict[str, Any]:
    """Describes input and output of a network for programs that run it without fseft.

    Args:
        manifest: Manifest of the adapter.

    Returns:
        Data that JSON can represent: `input` is the image (B, C, i, j, k) with its preprocessing,
        `output` the logits (B, classes, i, j, k), the background first.
    """
    preprocessing = _complete(manifest.preprocessing)
    preprocessing["intensity"] = [_complete(item) for item in manifest.preprocessing.intensity]
    classes = [{"channel": 0, "name": "background", "label": 0}]
    for channel, (name, value) in enumerate(manifest.labels.items(), start=1):
        classes.append({"channel": channel, "name": name, "label": value})
    output: dict[str, Any] = {"classes": classes, "decision": "the channel with the largest logit"}
    if manifest.writing_order:
        output["writing_order"] = list(manifest.writing_channels)
        output["decision"] = _DECISION_BY_ORDER
    return {"input": {"channels": list(manifest.channels), **preprocessing}, "output": output}


def _complete(document: FrozenModel) -> dict[str, Any]:
    """Returns all fields, also those that files omit while they have their default."""
    written = document.model_dump(mode="json")
    return {
        name: written.get(name, getattr(document, name)) for name in type(document).model_fields
    }
