"""`fseft adapters`: show, merge, combine and scale adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli import completion, console
from fseft.cli.help import HelpGroup
from fseft.cli.options import MODEL, OUTPUT, Json, Workspace
from fseft.cli.parsing import numbers
from fseft.schemas import Manifest

adapters = typer.Typer(
    cls=HelpGroup, help="Show, merge, combine and scale adapters.", no_args_is_help=True
)
AdapterPath = Annotated[
    Path,
    typer.Argument(
        metavar="ADAPTER",
        help="adapter.safetensors, or the folder of its run.",
        autocompletion=completion.adapters,
    ),
]
AdapterFile = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE", help="File to write.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel=OUTPUT)
]


@adapters.callback()
def _adapters() -> None:
    """Shows, merges, combines and scales adapters."""


@adapters.command()
def show(adapter: AdapterPath, as_json: Json = False) -> None:
    """Show method, model, structures, training cases and licence of an adapter.

    For example:

    fseft adapters show runs/livers/phantom-tiny/lora-k5-s0

    fseft adapters show liver.safetensors --json
    """
    from fseft import api

    manifest = api.Adapter.load(adapter).manifest
    if as_json:
        console.show_json(manifest.model_dump(mode="json"))
        return
    console.show_table(("field", "value"), [*_origin(manifest), *_interface(manifest)])


def _origin(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows on how the adapter was made."""
    settings = ", ".join(f"{key}={value}" for key, value in manifest.config.items())
    versions = ", ".join(f"{name} {text}" for name, text in manifest.versions.items())
    scans = manifest.unlabelled.scans if manifest.unlabelled else ()
    return [
        ("method", f"{manifest.method.name} ({manifest.method.distribution})"),
        ("settings", settings),
        ("decoder", manifest.decoder),
        ("bottleneck", manifest.bottleneck),
        ("model", f"{manifest.model} ({manifest.architecture})"),
        ("weights", manifest.backbone_sha256 or "random"),
        ("trained on", f"{', '.join(manifest.support)} of {manifest.dataset}"),
        ("started from", _start(manifest)),
        ("scans without labels", ", ".join(scans) or "none"),
        ("trained parameters", f"{manifest.trained_parameters:,}"),
        ("licence", manifest.licence or "unknown"),
        ("versions", versions),
    ]


def _start(manifest: Manifest) -> str:
    """Describes what the training started from."""
    origin = manifest.origin
    if origin is None:
        return "the model"
    return f"the adapter {origin.sha256[:12]}, trained on {', '.join(origin.cases)}"


def _interface(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows on input and output."""
    preprocessing = manifest.preprocessing
    spacing = "×".join(f"{side:g}" for side in preprocessing.spacing_mm)
    labels = ", ".join(f"{name} ({value})" for name, value in manifest.labels.items())
    return [
        ("channels", ", ".join(manifest.channels)),
        ("spacing", f"{spacing} mm, {preprocessing.orientation}"),
        ("structures", labels),
    ]


@adapters.command()
def merge(
    adapter: AdapterPath,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder to write.", rich_help_panel=OUTPUT
        ),
    ],
    overwrite: Overwrite = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Write the merged network: the same as `fseft export --to safetensors`.

    For example:

    fseft adapters merge liver.safetensors -o liver-network

    fseft adapters merge runs/livers/phantom-tiny/lora-k5-s0 -o liver-network --overwrite
    """
    from fseft import api

    folder = api.export(adapter, "safetensors", output, overwrite=overwrite, workspace=workspace)
    if as_json:
        console.show_json({"output": str(folder)})
        return
    console.show_lines([f"merged network: {folder}"])


@adapters.command()
def combine(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="ADAPTERS...",
            help="Adapters of one model for the same structures, such as several seeds.",
            autocompletion=completion.adapters,
        ),
    ],
    output: AdapterFile,
    weights: Annotated[
        str,
        typer.Option(
            metavar="W,W,...",
            help="Weight of each adapter. Default: equal weights.",
            rich_help_panel=MODEL,
        ),
    ] = "",
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rank of the result, for LoRA; a smaller one than the sum of the ranks is an "
            "approximation. Default: the sum.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    overwrite: Overwrite = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Combine adapters to their weighted mean, which predicts as fast as one of them.

    For example:

    fseft adapters combine seed0.safetensors seed1.safetensors -o mean.safetensors

    fseft adapters combine a.safetensors b.safetensors --weights 0.7,0.3 --rank 8 -o c.safetensors
    """
    from fseft import api

    example = ",".join(["1"] * len(paths))
    parts = numbers("--weights", weights, float, example=example) or ()
    adapter, error = api.combine_adapters(
        paths, output, weights=parts, rank=rank, overwrite=overwrite, workspace=workspace
    )
    method = adapter.manifest.method.name.rpartition(":")[2]
    if as_json:
        console.show_json({"output": str(output), "method": method, "relative_error": error})
        return
    remark = f"relative error of the deltas {error:.2g}" if error > 1e-4 else "exact"
    console.show_lines([f"{method} adapter, {remark}: {output}"])


@adapters.command()
def scale(
    adapter: AdapterPath,
    output: AdapterFile,
    strength: Annotated[
        float,
        typer.Option(help="From 0, the foundation model, to 1.", rich_help_panel=MODEL),
    ],
    overwrite: Overwrite = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Write an adapter with a part of its effect.

    For example:

    fseft adapters scale liver.safetensors --strength 0.5 -o half.safetensors

    fseft adapters scale runs/livers/phantom-tiny/lora-k5-s0 --strength 0.75 -o liver.safetensors
    """
    from fseft import api

    api.scale_adapter(adapter, output, strength=strength, overwrite=overwrite, workspace=workspace)
    if as_json:
        console.show_json({"output": str(output), "strength": strength})
        return
    console.show_lines([f"strength {strength:g}: {output}"])
