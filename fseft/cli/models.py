"""`fseft models`: lists, shows, imports, downloads and verifies foundation models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli import completion, console
from fseft.cli.help import HelpGroup
from fseft.cli.listing import SHAREABLE, show_model
from fseft.cli.options import MODEL, OUTPUT, Json, Workspace, accept_former_options
from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.model_zoo.conversion import ImportedModel

models = typer.Typer(cls=HelpGroup, help="List, download, verify and show foundation models.")
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Model (`fseft models` lists them).",
        autocompletion=completion.models,
    ),
]


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, workspace: Workspace = Path(), as_json: Json = False) -> None:
    """Lists the foundation models of plugins and of the workspace.

    For example:

    `fseft models`

    `fseft models pull suprem_unet`
    """
    if context.invoked_subcommand is None:
        list_models(workspace, as_json)


@models.command("list")
def list_models(workspace: Workspace = Path(), as_json: Json = False) -> None:
    """List the models, and whether their weights are installed.

    For example:

    `fseft models list`

    `fseft models list --json`
    """
    from fseft import api

    installed = []
    for name in api.list_models(workspace):
        if name != "none":
            try:
                installed.append(api.get_model(name, workspace))
            except FseftError as error:  # the others are listed all the same
                console.warn(str(error))
    if as_json:
        cards = [
            {
                **model.card.model_dump(mode="json"),
                "present": model.has_weights,
                "recommended_for": model.spec.recommended_for if model.spec else "",
            }
            for model in installed
        ]
        console.show_json(cards)
        return
    recommended = [
        (model.name, model.spec.recommended_for, "yes" if model.has_weights else "-")
        for model in installed
        if model.spec and model.spec.recommended_for
    ]
    console.show_table(("model", "recommended for", "installed"), recommended)
    columns = ("all models", "trained on", "M", "classes", "licence", "installed")
    console.show_table(columns, [_row(model) for model in installed], right=["M", "classes"])
    console.note(
        "M: million parameters. phantom-tiny was trained on synthetic scans, to try the commands. "
        "For scans of patients choose a model of the same modality and body part: `fseft models "
        "show NAME` lists its classes, `fseft models pull NAME` or `import NAME FILE` installs its "
        "weights. Without --model, `fseft adapt` takes the installed model that suits the dataset."
    )


def _row(model: FoundationModel) -> tuple[str, ...]:
    card = model.card
    return (
        card.name,
        ", ".join(sorted(modality.upper() for modality in card.contract.intensity)),
        f"{card.parameters / 1e6:.1f}" if card.parameters else "",
        str(len(card.classes) or ""),
        card.licence,
        "yes" if model.has_weights else "-",
    )


@models.command()
def show(name: Name, workspace: Workspace = Path(), as_json: Json = False) -> None:
    """Show classes, preprocessing, licence and origin of a model.

    For example:

    `fseft models show phantom-tiny`

    `fseft models show clipdriven --json`
    """
    show_model(name, workspace, as_json)


@models.command(
    "import", context_settings=accept_former_options({"as": "name", "trust": "allow-pickle"})
)
def import_(
    model: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Public checkpoint, as its owner provides it.")
    ],
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Allow the file to execute code; only if you trust its source.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Store it under this name, in this workspace only.",
            rich_help_panel=OUTPUT,
        ),
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            metavar="SET",
            help="Set of weights in a file with several, such as ema.",
            rich_help_panel=MODEL,
        ),
    ] = "",
    orientation: Annotated[
        str,
        typer.Option(
            metavar="CODE",
            help="Axes x, y, z of the scans that the model was trained on, such as LPS, if the "
            "file does not contain them.",
            rich_help_panel=MODEL,
        ),
    ] = "",
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="SCAN",
            help="One of the scans that the model was trained on, to read their axes from.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Convert a public checkpoint, and store it in the model cache (FSEFT_MODELS).

    For example:

    `fseft models import clipdriven swinunetr.pth`

    `fseft models import nnunet checkpoint_final.pth --name our-nnunet --like a_0000.nii.gz`
    """
    from fseft import api

    if allow_pickle:
        console.warn(f"{file} may execute any code on this machine, as --allow-pickle permits")
    with console.working(f"reading {file}"):
        imported = api.import_model(
            model,
            file,
            workspace,
            name=name,
            allow_pickle=allow_pickle,
            weights=weights,
            orientation=orientation,
            like=like,
        )
    _show_imported(imported, workspace if name else Path(), as_json=as_json)


@models.command()
def pull(
    name: Name,
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence",
            help="Accept the licence of the weights, which you have read.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Download the public checkpoint of a model from its owner, and import it.

    An interrupted download continues.

    For example:

    `fseft models pull suprem_unet`

    `fseft models pull clipdriven --accept-licence`
    """
    from fseft import api

    with console.download(name) as on_bytes:
        imported = api.pull_model(
            name,
            workspace,
            accept_licence=accept_licence,
            callbacks=_DownloadCallbacks(on_bytes),
        )
    _show_imported(imported, Path(), as_json=as_json)


class _DownloadCallbacks(console.ConsoleCallbacks):
    """Progress of a download."""

    def __init__(self, on_bytes: Callable[[int, int], None]) -> None:
        self._on_bytes = on_bytes

    def on_download(self, name: str, received: int, total: int) -> None:
        """Updates the bar."""
        del name
        self._on_bytes(received, total)


@models.command()
def verify(name: Name, workspace: Workspace = Path(), as_json: Json = False) -> None:
    """Verify the weights of a model, and the output of its network.

    For example:

    `fseft models verify clipdriven`

    `fseft models verify my-model --workspace work --json`
    """
    from fseft import api

    with console.working(f"verifying {name}"):
        verified = api.verify_model(name, workspace)
    card, report = verified.card, verified.report
    if as_json:
        load_report = report.model_dump(mode="json") if report else None
        console.show_json(
            {"name": name, "verified": True, "sha256": card.sha256, "load_report": load_report}
        )
        return
    origin = "import" if report else "pre-training"
    digest = f"sha256 {card.sha256[:12]}"
    lines = [f"{name}: weights ({digest}) and output are the same as after the {origin}"]
    if report:
        lines += report.describe()
    console.show_lines(lines)


def _show_imported(imported: ImportedModel, workspace: Path, *, as_json: bool) -> None:
    card = imported.card
    if as_json:
        console.show_json(
            {
                "card": card.model_dump(mode="json"),
                "load_report": imported.report.model_dump(mode="json"),
                "folder": str(imported.folder),
                "is_new": imported.is_new,
                "replaced_sha256": imported.replaced or None,
            }
        )
        return
    lines = [] if imported.is_new else [f"{card.name} is installed already; nothing to download"]
    lines += imported.report.describe()
    lines.append(f"licence: {card.licence or '(not stated)'}; {SHAREABLE[card.shareable]}")
    if imported.replaced:
        lines.append(
            f"replaced other weights (sha256 {imported.replaced[:12]}); adapters that were trained "
            "on them still need those"
        )
    option = f" --workspace {workspace}" if workspace != Path() else ""
    shown = f"`fseft models show {card.name}{option}`"
    lines.append(f"{card.name} is ready, in {imported.folder}; {shown} describes it")
    console.show_lines(lines)
