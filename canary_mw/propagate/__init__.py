"""What an app knows of the decision about the present request, and how the services that it calls hear of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canary_mw.propagate.aiohttp import aiohttp_middleware
    from canary_mw.propagate.carried import Current, current, header, lane
    from canary_mw.propagate.httpx import AsyncPropagatingTransport, PropagatingTransport
    from canary_mw.propagate.openfeature import CanaryProvider
    from canary_mw.propagate.patching import install, uninstall
    from canary_mw.propagate.requests import PropagatingAdapter
    from canary_mw.propagate.threads import carry, carrying

__all__ = [
    "AsyncPropagatingTransport",
    "CanaryProvider",
    "Current",
    "PropagatingAdapter",
    "PropagatingTransport",
    "aiohttp_middleware",
    "carry",
    "carrying",
    "current",
    "header",
    "install",
    "lane",
    "uninstall",
]

# Loaded where they are first used: each needs the client library that it is for.
_HOMES = {
    "AsyncPropagatingTransport": "httpx",
    "CanaryProvider": "openfeature",
    "Current": "carried",
    "PropagatingAdapter": "requests",
    "PropagatingTransport": "httpx",
    "aiohttp_middleware": "aiohttp",
    "carry": "threads",
    "carrying": "threads",
    "current": "carried",
    "header": "carried",
    "install": "patching",
    "lane": "carried",
    "uninstall": "patching",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f".{home}", __name__), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "canary_mw":
            raise
        extra = "canary-mw[openfeature]" if home == "openfeature" else exc.name
        text = f"{name} of canary_mw.propagate needs {exc.name}, which is not installed: pip install '{extra}'"
        raise ModuleNotFoundError(text, name=exc.name) from exc
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
