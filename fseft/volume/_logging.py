"""Warnings about image files: a file is read several times, but each warning is logged once."""

from __future__ import annotations

import logging
from functools import cache

logger = logging.getLogger(__name__)


@cache
def warn_once(message: str) -> None:
    """Logs a warning, unless this process has logged the same one before."""
    logger.warning(message)
