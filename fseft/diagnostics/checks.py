"""The checks of `fseft doctor`; each returns what it found and, if needed, a remedy."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from fseft.errors import FseftError, pluralise, summarise_exception
from fseft.learn.training.memory_estimate import installed_bytes
from fseft.model_zoo.catalogue import find_model, model_names
from fseft.model_zoo.conversion import verify_model
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.recommendation import EMBEDDED
from fseft.registry import registry
from fseft.temporaries import temporary_folder
from fseft.version import __version__
from fseft.workspace import Workspace, model_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Status = Literal["ok", "warning", "error"]

EXTRAS = {
    "cluster": "distributed",
    "hub": "huggingface_hub",
    "export": "onnx",
}
"""Extra of the package -> a distribution that it installs."""

_PACKAGES = ("torch", "monai", "numpy", "SimpleITK", "nibabel", "batchgenerators", "pluggy")
_LITTLE_DISK_GB = 10
_LITTLE_MEMORY_GB = 8
_GB = 10**9


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        name: What was checked.
        status: "ok", "warning" or "error".
        detail: What was found.
        remedy: What the user can do; empty if nothing is needed.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def check_installation(workspace: Workspace, dataset: Path | None = None) -> Iterator[Check]:
    """Yields the result of each check; nothing is changed.

    Args:
        workspace: Where results are written.
        dataset: A dataset to look at; None for none.

    Examples:
        >>> from pathlib import Path
        >>> next(check_installation(Workspace(Path()))).name
        'Python'
    """
    yield Check(
        "Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    yield _check_packages()
    yield _check_processors()
    yield _check_gpu()
    yield from _check_plugins()
    yield _check_embedded_model(workspace)
    yield from _check_models(workspace)
    yield _check_folder("workspace", workspace.root)
    yield _check_folder("model cache", model_cache())
    if dataset is not None:
        yield from _check_dataset(dataset)


def _check_packages() -> Check:
    """Lists the versions of packages, and the extras that are installed."""
    listed, missing = [f"fseft {__version__}"], []
    for name in _PACKAGES:
        if version := _version(name):
            listed.append(f"{name} {version}")
        else:
            missing.append(name)
    extras = [extra for extra, package in EXTRAS.items() if _version(package)]
    detail = f"{', '.join(listed)}; extras: {', '.join(extras) or 'none'}"
    if missing:
        return Check("packages", "error", detail, f"Install {', '.join(missing)}.")
    return Check("packages", "ok", detail)


def _version(package: str) -> str:
    """Returns the version of a package; empty if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _check_processors() -> Check:
    """Checks the number of threads and the memory."""
    count, threads = os.cpu_count() or 1, os.environ.get("OMP_NUM_THREADS", "")
    memory = installed_bytes() / _GB
    set_threads = f"OMP_NUM_THREADS {threads or 'not set'}"
    detail = f"{pluralise(count, 'processor')}, {set_threads}, {memory:.0f} GB memory"
    if memory < _LITTLE_MEMORY_GB:
        remedy = "Close other programs, and limit the training by --memory."
        return Check("processors", "warning", detail, remedy)
    return Check("processors", "ok", detail)


def _check_gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        detail = "none that this torch can use; small models train on the processors"
        remedy = (
            "" if torch.version.cuda is None else "Check the driver of the GPU, if there is one."
        )
        return Check("GPU", "ok" if not remedy else "warning", detail, remedy)
    names = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        names.append(f"{name}, {free / _GB:.0f} of {total / _GB:.0f} GB free")
    return Check("GPU", "ok", "; ".join(names))


def _check_plugins() -> Iterator[Check]:
    for plugin in registry().plugins:
        count = pluralise(sum(map(len, plugin.provides.values())), "component")
        name = f"plugin {plugin.name}"
        if plugin.problems:
            remedy = "`fseft plugins --debug` shows the traceback."
            yield Check(name, "error", "; ".join(plugin.problems), remedy)
        else:
            yield Check(name, "ok", f"{plugin.package}, {plugin.status}, {count}")


def _check_embedded_model(workspace: Workspace) -> Check:
    """Checks that the network of the embedded model computes the expected output."""
    name = f"model {EMBEDDED}"
    try:
        verify_model(find_model(EMBEDDED, workspace))
    except FseftError as error:
        return Check(name, "error", error.cause, error.hint or "Install fseft again.")
    except Exception as error:
        remedy = "Install the versions of constraints.txt in a new environment."
        return Check(name, "error", summarise_exception(error), remedy)
    return Check(name, "ok", "weights and output as expected")


def _check_models(workspace: Workspace) -> Iterator[Check]:
    """Lists the models that are installed, and names damaged ones."""
    available, others = [], 0
    for name in model_names(workspace):
        try:
            has_weights = find_model(name, workspace).has_weights
        except FseftError as error:
            yield Check(f"model {name}", "error", f"{error.file}: {error.cause}.", error.hint)
            continue
        if has_weights:
            available.append(name)
        else:
            others += 1
    detail = f"{', '.join(available)}; {others} others can be imported (`fseft models`)"
    yield Check("models", "ok", detail)


def _check_folder(name: str, folder: Path) -> Check:
    """Checks that a folder can be written, and its free space."""
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    try:
        with temporary_folder(place):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        return Check(name, "error", f"{folder}: {reason}", "Choose another folder.")
    free = shutil.disk_usage(place).free / _GB
    detail = f"{folder.absolute()}, {free:.0f} GB free"
    if free < _LITTLE_DISK_GB:
        return Check(name, "warning", detail, "`fseft clean` removes caches; or use another disk.")
    return Check(name, "ok", detail)


def _check_dataset(folder: Path) -> Iterator[Check]:
    try:
        dataset = read_dataset(folder)
    except FseftError as error:
        yield Check("dataset", "error", f"{folder}: {error.cause}.", error.hint)
        return
    labelled = f"{len(dataset.labelled)} with a label"
    detail = (
        f"{dataset.name} ({dataset.reader}): {pluralise(len(dataset.cases), 'case')}, {labelled}"
    )
    remedy = "" if dataset.labelled else "Add labels for training and scores."
    yield Check("dataset", "warning" if remedy else "ok", detail, remedy)
    for warning in dataset.warnings:
        yield Check("dataset", "warning", warning)
