"""Few-shot efficient fine-tuning of foundation models for volumetric medical image segmentation.

Example:
    >>> import fseft
    >>> adapter = fseft.adapt("livers", "phantom-tiny", "lora", k=5, rank=4)  # doctest: +SKIP
    >>> fseft.predict(["scan.nii.gz"], adapter, output="segmented")  # doctest: +SKIP

The names of `fseft.api` are available here. Importing the package is fast: PyTorch, NumPy and MONAI
are imported by the calls that need them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fseft.version import __version__ as __version__

if TYPE_CHECKING:
    from fseft.api import *  # noqa: F403 - for type checkers and editors


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    # Submodules are not looked for in the interface, whose import takes longer than theirs.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:
        interface = import_module("fseft.api")
        if name in interface.__all__:
            return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *import_module("fseft.api").__all__]
