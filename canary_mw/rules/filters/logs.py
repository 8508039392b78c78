"""A LogService as a value: where an entry about each request is sent."""

from dataclasses import dataclass, field
from typing import Literal

from canary_mw.rules.service import Service


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """A LogService.

    Attributes:
        driver: "tcp" tells of bytes alone.
        node: who sends the entries, as Emissary names it.
        request_headers, response_headers: names in lower case of those that an entry has besides.
        flush_interval: seconds that an entry waits for others.
        flush_bytes: entries that are larger together do not wait.
        file, line: where it is written; not part of equality.
    """

    name: str
    service: Service
    driver: Literal["http", "tcp"] = "http"
    node: str = "default-default"
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    flush_interval: float = 1.0
    flush_bytes: int = 16384
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
