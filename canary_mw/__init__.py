"""Gray releases by Ambassador Mapping rules, inside a Python app or standalone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asgi import CanaryMiddleware
    from .decision import decide
    from .exceptions import CanaryError, ConfigError, UpstreamError
    from .explanation import explain
    from .group import Decision, MappingGroup
    from .mapping import Mapping
    from .messages import RequestHead
    from .observers import Observer
    from .sources import ConfigSource, FileSource, StaticSource
    from .store import RuleStore
    from .table import RouteTable
    from .wsgi import CanaryWSGIMiddleware

__version__ = "0.1.0"

__all__ = [
    "CanaryError",
    "CanaryMiddleware",
    "CanaryWSGIMiddleware",
    "ConfigError",
    "ConfigSource",
    "Decision",
    "FileSource",
    "Mapping",
    "MappingGroup",
    "Observer",
    "RequestHead",
    "RouteTable",
    "RuleStore",
    "StaticSource",
    "UpstreamError",
    "__version__",
    "decide",
    "explain",
]

# Loaded where they are first used: who only checks rules pays for no server, and an import alone for nothing.
_HOMES = {
    "CanaryError": "exceptions",
    "CanaryMiddleware": "asgi",
    "CanaryWSGIMiddleware": "wsgi",
    "ConfigError": "exceptions",
    "ConfigSource": "sources",
    "Decision": "group",
    "FileSource": "sources",
    "Mapping": "mapping",
    "MappingGroup": "group",
    "Observer": "observers",
    "RequestHead": "messages",
    "RouteTable": "table",
    "RuleStore": "store",
    "StaticSource": "sources",
    "UpstreamError": "exceptions",
    "decide": "decision",
    "explain": "explanation",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
