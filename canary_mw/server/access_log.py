"""Where the standalone proxy writes its access log."""

import logging
import sys
from collections.abc import Callable

from canary_mw.observability.access_log import AccessLog, access_logger
from canary_mw.observability.logs.batches import BatchWriter


def open_access_log(style: str, on_dropped: Callable[[], object]) -> tuple[AccessLog, BatchWriter | None]:
    """The access log, and what writes it: nothing where loggers have handlers, which get each line then.

    Args:
        style: see `AccessLog`.
        on_dropped: see `BatchWriter`.
    """
    if access_logger.level == logging.NOTSET:
        # Whoever asks for the log wants it, whatever the level of other loggers is.
        access_logger.setLevel(logging.INFO)
    descriptor = None if access_logger.hasHandlers() else _standard_output()
    writer = None if descriptor is None else BatchWriter(descriptor, on_dropped)
    return AccessLog(style, writer), writer


def _standard_output() -> int | None:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        # It is closed, or replaced by what has no descriptor.
        return None
