"""What commands that serve say when a library of theirs is missing or does not fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from canary_mw.exceptions import ConfigError

_EXTRA = "pip install 'canary-mw[serve]'"


@contextmanager
def server_libraries() -> Iterator[None]:
    """Around the imports of what serves: a library that is at fault is named, with the command that mends it.

    Raises:
        click.UsageError: instead of a traceback.
    """
    try:
        yield
    except ConfigError as exc:
        # A uvicorn that does not fit.
        raise click.UsageError(str(exc)) from exc
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "canary_mw":
            raise
        raise click.UsageError(f"{exc.name} is not installed: {_EXTRA} brings it") from exc
