"""Logs records of the library: capture them, and replay those of worker processes."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIBRARY = "fseft"
"""The logger from which those of all modules descend."""


class _Collector(logging.Handler):
    """Appends records to a list, with their messages formatted, so that they can be pickled."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None  # tracebacks cannot be pickled
        self.records.append(record)


@contextmanager
def captured_records() -> Iterator[list[logging.LogRecord]]:
    """Collects the records of the library's loggers, of any level, instead of emitting them.

    Yields:
        The list that grows with each record; tracebacks are in `exc_text`.

    Examples:
        >>> with captured_records() as records:
        ...     logging.getLogger("fseft.planning").warning("2 voxels thick")
        >>> records[0].getMessage()
        '2 voxels thick'
    """
    logger = logging.getLogger(LIBRARY)
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    records: list[logging.LogRecord] = []
    logger.handlers, logger.propagate = [_Collector(records)], False
    logger.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def replay(records: Iterable[logging.LogRecord]) -> None:
    """Logs captured records, such as those of a worker process, if their level is enabled."""
    for record in records:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
