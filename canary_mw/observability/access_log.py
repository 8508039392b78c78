"""Access log: one JSON line per request."""

import json
import logging
from datetime import UTC, datetime

from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer

access_logger = logging.getLogger("canary_mw.access")


class AccessLog(Observer):
    """One JSON object per request on the logger "canary_mw.access", at INFO.

    Keys: time (UTC, ISO 8601), method, path, status, seconds, mapping, service, variant, reason; and sent, answered_by
    and fallback, where they say something.
    """

    def finished(self, record: Finished) -> None:
        """Log the request."""
        if not access_logger.isEnabledFor(logging.INFO):
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = {"time": now, **record._asdict(), "seconds": round(record.seconds, 6)}
        for name in ("release", "drawn", "key", "first_byte"):
            del fields[name]
        for name in ("sent", "answered_by", "fallback"):
            if not fields[name]:
                del fields[name]
        access_logger.info("%s", json.dumps(fields))
