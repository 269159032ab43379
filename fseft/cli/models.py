"""`fseft models`: list, show, import, pull and verify foundation models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli import console
from fseft.cli.listing import SHAREABLE, show_model
from fseft.cli.options import Json, Workspace
from fseft.errors import FseftError

if TYPE_CHECKING:
    from fseft.model_zoo.conversion import ImportedModel

models = typer.Typer(help="List the foundation models; get, check and show them.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model; `fseft models` lists them.")]


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, workspace: Workspace = Path(), as_json: Json = False) -> None:
    """List the foundation models: those of plugins, those that were imported, and those of the workspace."""
    if context.invoked_subcommand is None:
        list_models(workspace, as_json)


@models.command("list")
def list_models(workspace: Workspace = Path(), as_json: Json = False) -> None:
    """List the models, and whether their weights are here."""
    from fseft.model_zoo.catalogue import SCRATCH, find_model_card, has_weights, model_names
    from fseft.workspace import Workspace

    store, cards = Workspace(workspace), []
    for name in model_names(store):
        if name != SCRATCH:
            try:
                cards.append(find_model_card(name, store))
            except FseftError as error:  # the others are there all the same
                console.warn(str(error))
    present = {card.name: has_weights(card.name, store) for card in cards}
    if as_json:
        console.show_json(
            [{**card.model_dump(mode="json"), "present": present[card.name]} for card in cards]
        )
        return
    rows = [
        (
            card.name,
            card.architecture,
            f"{card.parameters / 1e6:.1f}" if card.parameters else "",
            str(len(card.classes) or ""),
            card.licence,
            "yes" if present[card.name] else "-",
        )
        for card in cards
    ]
    columns = ("model", "architecture", "M", "classes", "licence", "here")
    console.show_table(columns, rows, right=["M", "classes"])
    console.note(
        "M: million parameters. `fseft models pull NAME` or `import NAME FILE` gets the weights of a model."
    )


@models.command()
def show(name: Name, workspace: Workspace = Path(), as_json: Json = False) -> None:
    """Show a model: classes, contract, licence, where it comes from."""
    show_model(name, workspace, as_json)


@models.command("import")
def import_(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The public checkpoint, as its owner hosts it.")
    ],
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Let the file run code of its own; only if you trust whoever made it."
        ),
    ] = False,
    rename: Annotated[
        str,
        typer.Option(
            "--as", metavar="NAME", help="Keep it in this workspace only, as a model of this name."
        ),
    ] = "",
    workspace: Workspace = Path(),
) -> None:
    """Convert a public checkpoint once, and keep it in the cache (FSEFT_MODELS) for all workspaces."""
    from fseft.model_zoo.conversion import import_model
    from fseft.workspace import Workspace

    if trust:
        console.warn(f"{file} may run any code on this machine, as --trust allows")
    with console.working(f"reading {file}"):
        imported = import_model(name, file, Workspace(workspace), allow_pickle=trust, rename=rename)
    _tell(imported, workspace if rename else Path())


@models.command()
def pull(
    name: Name,
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence", help="You have read the licence of the weights, and accept it."
        ),
    ] = False,
    workspace: Workspace = Path(),
) -> None:
    """Download a model's public checkpoint from its owner, or the rest of it, and import it."""
    from fseft.model_zoo.download import pull_model
    from fseft.workspace import Workspace

    with console.download(name) as progress:
        imported = pull_model(
            name, Workspace(workspace), accept_licence=accept_licence, progress=progress
        )
    _tell(imported, Path())


@models.command()
def verify(name: Name, workspace: Workspace = Path()) -> None:
    """Check that a model's weights are those that were imported, and still compute the same."""
    from fseft.learn.networks.state_dict_mapping import LoadReport
    from fseft.model_zoo.conversion import verify_model
    from fseft.workspace import Workspace

    with console.working(f"trying {name}"):
        card = verify_model(name, Workspace(workspace))
    report = card.provenance.get("load_report")
    whose = "imported" if report else "made"
    console.show_lines(
        [
            f"{name}: the weights are those that were {whose} (sha256 {card.sha256[:12]}), and compute the same",
            *(LoadReport.model_validate(report).describe() if report else ()),
        ]
    )


def _tell(imported: ImportedModel, workspace: Path) -> None:
    card = imported.card
    old = f"it replaces other weights (sha256 {imported.replaced[:12]}), which adapters made on them still need"
    where = f" --workspace {workspace}" if workspace != Path() else ""
    console.show_lines(
        [
            *([] if imported.fresh else [f"{card.name} was here before; nothing to download"]),
            *imported.report.describe(),
            f"licence: {card.licence or 'none is told'}; {SHAREABLE[card.shareable]}",
            *([old] if imported.replaced else []),
            f"{card.name} is ready, in {imported.folder}; `fseft models show {card.name}{where}` tells what it knows",
        ]
    )
