"""Options that several commands share, and the panels of the help that they are listed in."""

from __future__ import annotations

import inspect
import logging
import math
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from fseft.cli import completion, console
from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DATA, MODEL, PLAN, TRAINING = "Data", "Model and method", "Plan", "Training"
SCORING, CLEANING = "Scoring", "Cleaning"
COMPUTE, OUTPUT = "Compute", "Output"
PANELS = (DATA, MODEL, PLAN, TRAINING, SCORING, CLEANING, COMPUTE, OUTPUT)
"""Panels of the help, in the order of every command."""

DeviceName = Literal["auto", "cpu", "cuda"]

DatasetFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        help="Folder in the layout of nnU-Net, the Medical Segmentation Decathlon, imagesTr + "
        "labelsTr, or another that docs/datasets.md lists; or the nnU-Net id of a dataset in "
        "nnUNet_raw.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse images without a label, labels without an image, and unused files.",
        rich_help_panel=DATA,
    ),
]
Reader = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Reader of the layout (`fseft show reader`). Default: the one that detects it.",
        rich_help_panel=DATA,
    ),
]
IgnoreLabel = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Value of the voxels in label files that do not count, neither as background nor as a "
        'structure. Default: "ignore" in dataset.json.',
        rich_help_panel=DATA,
    ),
]
AnnotatedSlices = Annotated[
    Literal["all", "auto"],
    typer.Option(
        help="auto: in cases that are drawn in single slices, such as every fifth one, slices "
        "without any label do not count; all: they are background.",
        rich_help_panel=DATA,
    ),
]
MissingLabel = Annotated[
    Literal["absent", "unannotated"],
    typer.Option(
        help="Meaning of a structure that the label file of a case does not contain; with "
        "unannotated, it does not count in this case.",
        rich_help_panel=DATA,
    ),
]
Channels = Annotated[
    Literal["first", "mean", "all"] | None,
    typer.Option(
        metavar="MODE",
        help="Several channels (such as T1 and T2) on a model of one: first (only this one), mean "
        "(of the normalised channels) or all (repeat the first layer over the channels, and train "
        "it). Default: all; mean for methods on frozen features, such as linear-probe.",
        rich_help_panel=DATA,
    ),
]
Unlabelled = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Scans without labels to learn from as well, such as DATASET/imagesTs: confident "
        "predictions of a moving average of the weights (a mean teacher) count as their labels. "
        "For methods that train on crops, such as lora. Default: labelled cases only.",
        rich_help_panel=DATA,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Foundation model (`fseft models` lists them), or none for random weights.",
        autocompletion=completion.models,
        rich_help_panel=MODEL,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...",
        help="Structures to segment. Default: all.",
        autocompletion=completion.structures,
        rich_help_panel=DATA,
    ),
]
Spacing = Annotated[
    str,
    typer.Option(
        metavar="MM,MM,MM",
        help="Voxel spacing along the axes of the model, such as 2,2,4. Default: planned.",
        rich_help_panel=PLAN,
    ),
]
Patch = Annotated[
    str,
    typer.Option(
        metavar="N,N,N",
        help="Patch size in voxels, such as 64,64,32. Default: planned.",
        rich_help_panel=PLAN,
    ),
]
Crops = Annotated[
    int | None,
    typer.Option(min=1, help="Crops per training step. Default: planned.", rich_help_panel=PLAN),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.", rich_help_panel=TRAINING)]
Memory = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Memory limit of training, such as 12GB. Default: 80% of the device's memory.",
        rich_help_panel=COMPUTE,
    ),
]
Device = Annotated[DeviceName, typer.Option(help="Device to compute on.", rich_help_panel=COMPUTE)]
Workers = Annotated[
    int,
    typer.Option(
        min=1, help="Number of processes; each takes one case at a time.", rich_help_panel=COMPUTE
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="tcp://HOST:PORT",
        help="Address of a running dask scheduler that processes the cases instead.",
        rich_help_panel=COMPUTE,
    ),
]
OpenPage = Annotated[
    bool,
    typer.Option("--open", help="Show the page in a web browser.", rich_help_panel=OUTPUT),
]
Workspace = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        help="Folder of fingerprints, preprocessed cases, runs and models.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results only.", rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print details.", rich_help_panel=OUTPUT)
]


def output_folder(help_text: str) -> Any:
    """Returns the option `--output FOLDER` of a command."""
    return typer.Option("--output", "-o", metavar="FOLDER", help=help_text, rich_help_panel=OUTPUT)


def positive(
    context: typer.Context, param: typer.CallbackParam, value: float | None
) -> float | None:
    """Refuses 0, negative numbers, infinity and NaN; a range of floats in Typer includes its ends.

    Raises:
        FseftError: The value is not a positive number.
    """
    if context.resilient_parsing or value is None or 0 < value < math.inf:
        return value
    option = str(param.name).replace("_", "-")
    raise FseftError(f"--{option} {value:g}: must be a positive number", hint="Pass another value.")


Minutes = Annotated[
    float | None,
    typer.Option(
        callback=positive,
        metavar="MINUTES",
        help="Time budget of the training, without measuring and preprocessing the data. Feature "
        "extraction of frozen networks always runs to the end.",
        rich_help_panel=TRAINING,
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...",
        help="Metrics, as in dice,hd95 (`fseft show metric` lists them).",
        autocompletion=completion.metrics,
        rich_help_panel=SCORING,
    ),
]
Tolerance = Annotated[
    str,
    typer.Option(
        metavar="LENGTH",
        help="Distance up to which NSD counts surfaces as equal.",
        rich_help_panel=SCORING,
    ),
]
LearningRate = Annotated[
    float, typer.Option(callback=positive, help="Learning rate.", rich_help_panel=TRAINING)
]


def accept_former_options(names: Mapping[str, str]) -> dict[str, Any]:
    """Settings of a command that accept former spellings of its options, which no help lists.

    Args:
        names: Former name -> current name, both without dashes.

    Returns:
        Keyword arguments of the command's context (`context_settings`).
    """
    return {"token_normalize_func": lambda name: names.get(name, name)}


def with_options(
    command: Callable[..., Any],
    options: Mapping[str, tuple[Any, Any]],
    handle: Callable[[Any], None],
) -> Callable[..., Any]:
    """Adds options to a command, which are handled before it runs.

    Args:
        command: The function of a command.
        options: Name -> annotation and default of each new parameter.
        handle: Takes name -> value of the new parameters.

    Returns:
        A function that takes the parameters of both.
    """

    @wraps(command)
    def wrapper(*arguments: Any, **values: Any) -> Any:
        handle({name: values.pop(name) for name in options})
        return command(*arguments, **values)

    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in options.items()
    ]
    signature = inspect.signature(command, eval_str=True)
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *added]
    )
    annotations = {name: annotation for name, (annotation, _) in options.items()}
    wrapper.__annotations__ = {**get_type_hints(command, include_extras=True), **annotations}
    return wrapper


def with_verbosity(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options `--quiet` and `--verbose` to a command."""

    def configure(flags: Mapping[str, bool]) -> None:
        quiet, verbose = flags["quiet"], flags["verbose"]
        if quiet or verbose:
            console.set_log_level(logging.ERROR if quiet else logging.DEBUG)
        if verbose and not quiet:
            _show_installation()

    return with_options(command, {"quiet": (Quiet, False), "verbose": (Verbose, False)}, configure)


def _show_installation() -> None:
    """Prints versions, processors and the loaded plugins."""
    import os
    import platform
    from importlib import metadata

    from fseft import api
    from fseft.version import __version__

    versions = f"fseft {__version__}, Python {platform.python_version()}"
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    processors = f"{os.cpu_count()} processors, OMP_NUM_THREADS {threads}"
    console.note(f"{versions}, torch {metadata.version('torch')}; {processors}")
    for plugin in api.list_plugins():
        count = pluralise(sum(map(len, plugin.provides.values())), "component")
        console.note(f"plugin {plugin.name} ({plugin.package}): {plugin.status}, {count}")
