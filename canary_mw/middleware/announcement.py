"""What a middleware, or the standalone proxy, writes to the log when it starts."""

import logging
import os
from collections.abc import Callable, Collection, Iterable

from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.store import RuleStore
from canary_mw.host import HostLogger
from canary_mw.inspection.start import start_lines
from canary_mw.middleware.settings import unknown_variables
from canary_mw.rules.service import Service

logger = HostLogger(logging.getLogger("canary_mw.start"))


def warn_of_missing(source: ConfigSource) -> None:
    """Say which paths of a source do not exist yet: a server without a lifespan starts at its first request only."""
    for each in getattr(source, "sources", (source,)):
        for path in getattr(each, "missing", list)():
            logger.warning("rules: %s does not exist; until it does, every request goes to the app, as stable", path)


def announce(
    store: RuleStore,
    upstreams: Collection[str],
    place: Callable[[Service], str],
    unused: Iterable[str],
    *,
    asks: bool = True,
    guard_unmapped: bool = True,
) -> None:
    """Write what is in force, and what is given without an effect.

    Args:
        upstreams: the names that URLs are given for.
        place: where a service is found.
        unused: what to say of variables whose argument is given.
        asks: whether the services of filters are asked.
        guard_unmapped: whether also about requests of an app that no Mapping takes.
    """
    names = [name.lower() for name in upstreams]
    for text, is_warning in start_lines(
        store.table, store.source_name, names, place, asks=asks, guard_unmapped=guard_unmapped
    ):
        logger.log(logging.WARNING if is_warning else logging.INFO, "%s", text)
    for text in unused:
        logger.info("%s", text)
    for text in unknown_variables(os.environ):
        logger.warning("%s", text)
