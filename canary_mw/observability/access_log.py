"""Access log: one line per request."""

import logging
from time import time

from canary_mw.exceptions import ConfigError
from canary_mw.observability.events import Finished
from canary_mw.observability.logs.batches import BatchWriter
from canary_mw.observability.logs.lines import FORMATS
from canary_mw.observability.observers import Observer

access_logger = logging.getLogger("canary_mw.access")


class AccessLog(Observer):
    """One line per request on the logger "canary_mw.access", at INFO.

    Keys of the JSON object: time (UTC, ISO 8601), method, path, status, seconds, mapping, service, variant, reason,
    bytes_out; and, where they say something, release, first_byte, client, upstream, tries, request_id, bytes_in, sent,
    answered_by and fallback.

    Args:
        style: "json", or "text" for people.
        writer: gets the lines in place of the logger.

    Raises:
        ConfigError: there is no such style.
    """

    def __init__(self, style: str = "json", writer: BatchWriter | None = None) -> None:
        if style not in FORMATS:
            raise ConfigError(f"the style of the access log is {style!r}", hint="use json or text")
        self._line = FORMATS[style]
        self._writer = writer

    def finished(self, record: Finished) -> None:
        """Log the request."""
        if not access_logger.isEnabledFor(logging.INFO):
            return
        line = self._line(record, time())
        if self._writer is not None:
            self._writer.add(line)
        else:
            access_logger.info("%s", line)
