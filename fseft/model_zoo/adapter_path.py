"""Location of the adapter in the folder of a run, in a module without PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "adapter.safetensors"


def adapter_path(path: Path) -> Path:
    """Returns the adapter file of a run folder, or the file itself.

    Examples:
        >>> from pathlib import Path
        >>> adapter_path(Path("liver.safetensors")).name
        'liver.safetensors'
    """
    return path / NAME if path.is_dir() else path
