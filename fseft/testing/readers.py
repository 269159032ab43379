"""What every dataset reader must keep, and its checks as parameters of a test."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fseft.registry import registry
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters
from fseft.volume.masks import label_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet

    from fseft.plugin import Reader
    from fseft.schemas import Dataset


def reader_checks(
    name: str, folder: Path, *, xfail: Mapping[str, str] | None = None
) -> list[ParameterSet]:
    """The checks of a dataset reader, to be called one by one.

    ```python
    @pytest.mark.parametrize("check", reader_checks("my-layout", Path(__file__).parent / "sample"))
    def test_my_layout(check):
        check()
    ```

    Args:
        name: Its name in the registry.
        folder: A dataset of its layout, without faults; empty files do for images.
        xfail: Check -> why the reader cannot keep it; it must then fail.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    return parameters(name, CHECKS, Layout(name, folder), xfail)


@dataclass(frozen=True)
class Layout:
    """A reader, and a dataset of its layout."""

    name: str
    folder: Path

    @property
    def reader(self) -> Reader:
        """A new one."""
        made: Reader = registry().create("reader", self.name)
        return made

    def read(self) -> Dataset:
        """The dataset."""
        return self.reader.read(self.folder)


def knows_its_layout(layout: Layout) -> None:
    """It detects the dataset, and nothing in an empty folder."""
    assert layout.reader.detects(layout.folder)
    with TemporaryDirectory() as empty:
        assert not layout.reader.detects(Path(empty))


def lists_the_same_each_time(layout: Layout) -> None:
    """Cases come in the order of their names, each once, whatever the order of the disk."""
    found = layout.read()
    assert layout.read() == found
    names = [case.name for case in found.cases]
    assert names
    assert names == sorted(set(names))


def names_files_that_are_there(layout: Layout) -> None:
    """What a case lacks is left out."""
    cases = layout.read().cases
    files = [path for case in cases for path in (*case.images, *label_files(case))]
    assert [path for path in files if not path.exists()] == []


def gives_each_channel_an_image(layout: Layout) -> None:
    """A file each, or one for all."""
    found = layout.read()
    assert [
        case.name for case in found.cases if len(case.images) not in (0, 1, len(found.channels))
    ] == []


def leaves_the_background_out(layout: Layout) -> None:
    """Structures have values of their own, from one on."""
    values = list(layout.read().labels.values())
    assert len(set(values)) == len(values)
    assert [value for value in values if value < 1] == []


def opens_no_image(layout: Layout) -> None:
    """With images and labels that hold nothing it finds the same cases."""
    found = layout.read()
    volumes = {path for case in found.cases for path in (*case.images, *label_files(case))}

    def copy(source: str, target: str) -> None:
        if Path(source) in volumes:
            Path(target).touch()
        else:
            shutil.copyfile(source, target)

    with TemporaryDirectory() as parent:
        folder = Path(parent) / layout.folder.name
        shutil.copytree(layout.folder, folder, copy_function=copy)
        emptied = replace(layout, folder=folder).read()
        assert _relative(emptied, folder) == _relative(found, layout.folder)


def _relative(dataset: Dataset, folder: Path) -> Any:
    """The dataset with its files as seen from the folder."""
    cases = [
        (c.name, *([p.relative_to(folder) for p in files] for files in (c.images, label_files(c))))
        for c in dataset.cases
    ]
    return dataset.channels, dataset.labels, cases


def loads_no_torch_before_it_is_chosen(layout: Layout) -> None:
    """The plugin that offers the reader is listed without torch."""
    assert_listed_without_torch("reader", layout.name)


CHECKS: tuple[Callable[[Layout], None], ...] = (
    knows_its_layout,
    lists_the_same_each_time,
    names_files_that_are_there,
    gives_each_channel_an_image,
    leaves_the_background_out,
    opens_no_image,
    loads_no_torch_before_it_is_chosen,
)
