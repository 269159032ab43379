"""Imports Hugging Face PEFT, even if torchvision is installed and cannot be loaded.

PEFT requires transformers, which imports torchvision if it is installed, and fails if torchvision
was built for another torch, such as PyPI's torchvision with a CPU build of torch. PEFT's tuners do
not use it.
"""

from __future__ import annotations

import sys


def _hide_torchvision() -> None:
    """Marks torchvision as not installed, and clear what transformers has cached about it."""
    # None makes Python raise ImportError. MONAI may have imported transformers already.
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers.utils import import_utils

    for check in (import_utils.is_torchvision_available, import_utils.is_torchvision_v2_available):
        check.cache_clear()


try:
    import torchvision  # noqa: F401
except (ImportError, OSError, RuntimeError):
    _hide_torchvision()

# Only after torchvision was imported or hidden.
import peft  # noqa: E402
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING  # noqa: E402
from peft.tuners.adalora import RankAllocator  # noqa: E402
from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: E402

__all__ = ["PEFT_TYPE_TO_TUNER_MAPPING", "BaseTunerLayer", "RankAllocator", "peft"]
