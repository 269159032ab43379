"""Checks of dataset readers, as parameters of a test."""

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
    """Returns the checks of a dataset reader, as parameters of a test that calls each.

    ```python
    @pytest.mark.parametrize("check", reader_checks("my-layout", Path(__file__).parent / "sample"))
    def test_my_layout(check):
        check()
    ```

    Args:
        name: Of the reader in the registry.
        folder: A valid dataset in its layout; images may be empty files.
        xfail: Reason for each check that must fail.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    return parameters(name, CHECKS, Layout(name, folder), xfail)


@dataclass(frozen=True)
class Layout:
    """A reader, and a dataset in its layout."""

    name: str
    folder: Path

    @property
    def reader(self) -> Reader:
        """A new instance."""
        reader: Reader = registry().create("reader", self.name)
        return reader

    def read(self) -> Dataset:
        """Reads the dataset."""
        return self.reader.read(self.folder)


def detects_its_layout(layout: Layout) -> None:
    """It detects the dataset, and no dataset in an empty folder."""
    assert layout.reader.detects(layout.folder)
    with TemporaryDirectory() as empty:
        assert not layout.reader.detects(Path(empty))


def lists_cases_in_a_fixed_order(layout: Layout) -> None:
    """Cases are sorted by name and unique, independent of the file system."""
    dataset = layout.read()
    assert layout.read() == dataset
    names = [case.name for case in dataset.cases]
    assert names
    assert names == sorted(set(names))


def lists_existing_files(layout: Layout) -> None:
    """Every image and label file exists."""
    for case in layout.read().cases:
        for path in (*case.images, *label_files(case)):
            assert path.exists(), path


def has_an_image_per_channel(layout: Layout) -> None:
    """Each case has one file per channel, or one file for all channels."""
    dataset = layout.read()
    for case in dataset.cases:
        assert len(case.images) in (0, 1, len(dataset.channels)), case.name


def excludes_the_background(layout: Layout) -> None:
    """Structures have distinct positive label values."""
    values = list(layout.read().labels.values())
    assert len(set(values)) == len(values)
    assert all(value >= 1 for value in values)


def opens_no_image(layout: Layout) -> None:
    """It lists the same cases if images and labels are empty files."""
    dataset = layout.read()
    volumes = {path for case in dataset.cases for path in (*case.images, *label_files(case))}

    def copy(source: str, target: str) -> None:
        if Path(source) in volumes:
            Path(target).touch()
        else:
            shutil.copyfile(source, target)

    with TemporaryDirectory() as parent:
        folder = Path(parent) / layout.folder.name
        shutil.copytree(layout.folder, folder, copy_function=copy)
        emptied = replace(layout, folder=folder).read()
        assert _relative(emptied, folder) == _relative(dataset, layout.folder)


def _relative(dataset: Dataset, folder: Path) -> Any:
    """Returns channels, labels and cases of a dataset with paths relative to its folder."""
    cases = [
        (c.name, *([p.relative_to(folder) for p in files] for files in (c.images, label_files(c))))
        for c in dataset.cases
    ]
    return dataset.channels, dataset.labels, cases


def is_listed_without_torch(layout: Layout) -> None:
    """Listing the plugin that provides the reader does not import torch."""
    assert_listed_without_torch("reader", layout.name)


CHECKS: tuple[Callable[[Layout], None], ...] = (
    detects_its_layout,
    lists_cases_in_a_fixed_order,
    lists_existing_files,
    has_an_image_per_channel,
    excludes_the_background,
    opens_no_image,
    is_listed_without_torch,
)
