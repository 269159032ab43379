"""`fseft phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.options import Seed
from fseft.errors import pluralise


def phantom(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write the dataset.")],
    cases: Annotated[int, typer.Option(min=0, help="Labelled cases.")] = 10,
    test_cases: Annotated[int, typer.Option(min=0, help="Cases in imagesTs and labelsTs.")] = 0,
    modality: Annotated[str, typer.Option(help="ct or mr.")] = "ct",
    structures: Annotated[
        list[str] | None, typer.Option(help="Only these are labelled: a,b,...")
    ] = None,
    shift: Annotated[
        float, typer.Option(min=0, max=1, help="Domain shift: another scanner.")
    ] = 0.0,
    seed: Seed = 0,
    embedded: Annotated[
        bool,
        typer.Option("--embedded", help="Write the datasets that phantom-tiny is pre-trained on."),
    ] = False,
) -> None:
    """Write a dataset of made-up scans in nnU-Net's layout, to try things on."""
    from fseft.cli.console import out, progress
    from fseft.cli.parsing import choice, names
    from fseft.demo.phantom import EMBEDDED, PhantomSet, VariedSet, write_phantoms, write_varied
    from fseft.workspace import require_empty

    chosen = choice("--modality", modality, ("ct", "mr"))
    one = PhantomSet(folder.name, chosen, names(structures), cases, seed)  # type: ignore[arg-type]
    sets = {folder / s.name: s for s in EMBEDDED} if embedded else {folder: one}
    for path in sets:
        require_empty(path)
    with progress(sum(s.cases + test_cases for s in sets.values()), "phantoms") as advance:
        for path, each in sets.items():
            if isinstance(each, VariedSet):
                write_varied(path, each, test_cases=test_cases, done=advance)
            else:
                write_phantoms(path, each, test_cases=test_cases, shift=shift, done=advance)
    for path, each in sets.items():
        out.print(
            f"{pluralise(each.cases, 'labelled case')} and {test_cases} for testing: {path}",
            soft_wrap=True,
        )
