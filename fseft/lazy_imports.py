"""Imports only those modules of a large package that are used.

`import monai.networks.nets.unet` imports all of MONAI, and with it transformers, scikit-learn and
pandas where they are installed: eight seconds of CPU time for a network that needs a quarter.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def import_lazily(root: str) -> None:
    """From now on, packages of a distribution do not import what they re-export until it is used.

    `from monai.networks.nets import UNet` then imports the one module of `UNet`, and imports
    anywhere else in the process still find everything. If the distribution is imported already,
    nothing changes.

    Args:
        root: Name of the top-level package, which is also the name of the distribution.

    Examples:
        >>> import_lazily("monai")
        >>> from monai.networks.nets import UNet
        >>> UNet.__module__
        'monai.networks.nets.unet'
    """
    finder = _Finder(root)
    if root not in sys.modules and finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)


class _LazyPackage(ModuleType):
    """A package that finds a name on first use, where its `__init__.py` would have."""

    def __getattr__(self, name: str) -> Any:
        exports: dict[str, str] = self.__dict__.get("_exports", {})
        if name == "__all__" and exports:
            return list(exports)
        if exports.get(name):
            module, _, exported = exports[name].partition(":")
            value = import_module(module)
            setattr(self, name, getattr(value, exported) if exported else value)
        elif name in exports:
            self._run()
        elif not name.startswith("_") and self._has_submodule(name):
            import_module(f"{self.__name__}.{name}")  # sets the attribute
        if name not in self.__dict__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return self.__dict__[name]

    def _has_submodule(self, name: str) -> bool:
        return PathFinder.find_spec(f"{self.__name__}.{name}", self.__path__) is not None

    def _run(self) -> None:
        """Runs `__init__.py`."""
        del self._exports
        if self.__spec__ and isinstance(self.__spec__.loader, _LazyLoader):
            self.__spec__.loader.original.exec_module(self)


class _LazyLoader(Loader):
    """Makes a package that knows what its `__init__.py` defines, without running it."""

    def __init__(self, original: Loader, source: Path) -> None:
        self.original, self.source = original, source

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LazyPackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.parse(self.source.read_text(encoding="utf-8"))
        module.__dict__["_exports"] = dict(_exports(tree, module.__name__))
        if "." not in module.__name__:  # its modules ask for it, and `__init__.py` computes it
            module.__dict__["__version__"] = version(module.__name__)


def _exports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Yields the names that an `__init__.py` defines, and where they come from if re-exported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            module = f"{package}.{node.module}:" if node.module else f"{package}."
            for alias in node.names:
                yield alias.asname or alias.name, f"{module}{alias.name}"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, ""
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, ""


@dataclass(frozen=True)
class _Finder(MetaPathFinder):
    """Finds the packages of a distribution, for `_LazyLoader`."""

    root: str

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.split(".")[0] != self.root:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader and spec.origin and spec.submodule_search_locations is not None:
            spec.loader = _LazyLoader(spec.loader, Path(spec.origin))
        return spec
