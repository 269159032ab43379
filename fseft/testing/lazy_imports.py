"""Checks that listing a plugin does not import torch."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

from fseft.registry import KINDS, registry


def assert_listed_without_torch(kind: str, name: str) -> None:
    """Asserts that the plugin of a component returns its specs without importing torch.

    Args:
        kind: Kind of component, a key of `KINDS`.
        name: Name of the component in the registry.
    """
    hook, _ = KINDS[kind]
    assert not _loads_torch(registry().resolve(kind, name).source.module.__name__, hook)


@lru_cache
def _loads_torch(plugin: str, hook: str) -> bool:
    code = (
        f"import sys, {plugin} as plugin; list(plugin.{hook}()); sys.exit('torch' in sys.modules)"
    )
    return subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
