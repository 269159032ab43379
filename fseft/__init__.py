"""Few-shot efficient fine-tuning of foundation models for volumetric medical image segmentation.

Example:
    >>> import fseft
    >>> adapter = fseft.adapt("livers", "phantom-tiny", "lora", k=5, rank=4)  # doctest: +SKIP
    >>> fseft.predict(["scan.nii.gz"], adapter, output="segmented")  # doctest: +SKIP

Importing the package is fast: PyTorch, NumPy and MONAI are imported by the calls that need them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fseft.version import __version__

if TYPE_CHECKING:
    from fseft.api import (
        Adapter,
        Callbacks,
        Workspace,
        adapt,
        benchmark,
        evaluate,
        export,
        list_methods,
        list_models,
        load_model,
        plan,
        predict,
        preprocess,
        pretrain,
    )

__all__ = [
    "Adapter",
    "Callbacks",
    "Workspace",
    "__version__",
    "adapt",
    "benchmark",
    "evaluate",
    "export",
    "list_methods",
    "list_models",
    "load_model",
    "plan",
    "predict",
    "preprocess",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("fseft.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
