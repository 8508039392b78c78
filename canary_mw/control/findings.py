"""Findings about rules, in the log."""

import logging
from collections.abc import Iterable, Sequence

from canary_mw.config.document import Diagnostic
from canary_mw.host import HostLogger
from canary_mw.inspection.changes import level_of

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "notice": logging.INFO}
# Notices of one reload that are logged: an export of a cluster may have one for each Mapping.
_MAX_NOTICES = 10


def log_new(logger: HostLogger, diagnostics: Iterable[Diagnostic], known: Iterable[Diagnostic]) -> None:
    """Log the findings that are not among those known."""
    known = set(known)
    new = [diagnostic for diagnostic in diagnostics if diagnostic not in known]
    notices = [diagnostic for diagnostic in new if diagnostic.severity == "notice"]
    unlogged = set(notices[_MAX_NOTICES:])
    for diagnostic in new:
        if diagnostic not in unlogged:
            logger.log(_LEVELS[diagnostic.severity], "%s", diagnostic)
    if unlogged:
        logger.info("and %d more notices, which `canary-mw check` lists", len(unlogged))


def log_table(
    logger: HostLogger, generation: int, difference: dict[str, tuple[str, ...]], lines: Sequence[str]
) -> None:
    """Log that a table is in force: numbers of Mappings, and lines about what has changed."""
    counts = (f"{len(names)} {what}" for what, names in difference.items())
    logger.info("rules %d are in force: %s", generation, ", ".join(counts))
    for line in lines:
        logger.log(level_of(line), "rules %d: %s", generation, line)
