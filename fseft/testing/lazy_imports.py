"""A plugin must be quick to list: it imports torch with what is chosen, not before."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

from fseft.registry import KINDS, registry


def assert_listed_without_torch(kind: str, name: str) -> None:
    """The plugin that offers it gives its specs without torch."""
    hook, _ = KINDS[kind]
    assert not _loads_torch(registry().resolve(kind, name).source.module.__name__, hook)


@lru_cache
def _loads_torch(plugin: str, hook: str) -> bool:
    code = (
        f"import sys, {plugin} as plugin; list(plugin.{hook}()); sys.exit('torch' in sys.modules)"
    )
    return subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
