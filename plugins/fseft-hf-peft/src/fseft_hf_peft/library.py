"""Hugging Face PEFT, imported so that a torchvision which cannot be loaded does no harm.

transformers, which PEFT needs, takes torchvision where it is installed, and fails with one that was built for another
torch, such as PyPI's beside a torch for CPUs. PEFT's tuners have no use for it.
"""

from __future__ import annotations

import sys


def _hide_torchvision() -> None:
    """Let it count as not installed, also for a transformers that has looked already, when MONAI asked for it."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # Python's own sign for what cannot be imported
    from transformers.utils import import_utils

    for answer in (import_utils.is_torchvision_available, import_utils.is_torchvision_v2_available):
        answer.cache_clear()


try:
    import torchvision  # noqa: F401
except (ImportError, OSError, RuntimeError):
    _hide_torchvision()

# After torchvision is known to be there or hidden.
import peft  # noqa: E402
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING  # noqa: E402
from peft.tuners.adalora import RankAllocator  # noqa: E402
from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: E402

__all__ = ["PEFT_TYPE_TO_TUNER_MAPPING", "BaseTunerLayer", "RankAllocator", "peft"]
