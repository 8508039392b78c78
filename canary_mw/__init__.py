"""Gray releases by Ambassador Mapping rules, inside a Python app or standalone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canary_mw import propagate as propagate
    from canary_mw import testing as testing
    from canary_mw.admin.app import create_admin
    from canary_mw.control.sources.base import ConfigSource
    from canary_mw.control.sources.file import FileSource
    from canary_mw.control.sources.static import StaticSource
    from canary_mw.control.store import RuleStore
    from canary_mw.exceptions import CanaryError, ConfigError, UpstreamError
    from canary_mw.http.messages import RequestHead
    from canary_mw.inspection.explanation import explain
    from canary_mw.middleware.asgi.middleware import CanaryMiddleware
    from canary_mw.middleware.audience.registry import predicate, user
    from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
    from canary_mw.observability.access_log import AccessLog
    from canary_mw.observability.events import Decided, Finished, Reloaded
    from canary_mw.observability.observers import Observer
    from canary_mw.observability.opentelemetry import OpenTelemetry
    from canary_mw.observability.prometheus import Metrics
    from canary_mw.propagate.carried import current
    from canary_mw.propagate.context import record
    from canary_mw.routing.decided import Decision
    from canary_mw.routing.decision import decide
    from canary_mw.routing.group import MappingGroup
    from canary_mw.routing.person import Person
    from canary_mw.routing.table import RouteTable
    from canary_mw.rules.mapping import Mapping

__version__ = "0.1.0"

__all__ = [
    "AccessLog",
    "CanaryError",
    "CanaryMiddleware",
    "CanaryWSGIMiddleware",
    "ConfigError",
    "ConfigSource",
    "Decided",
    "Decision",
    "FileSource",
    "Finished",
    "Mapping",
    "MappingGroup",
    "Metrics",
    "Observer",
    "OpenTelemetry",
    "Person",
    "Reloaded",
    "RequestHead",
    "RouteTable",
    "RuleStore",
    "StaticSource",
    "UpstreamError",
    "__version__",
    "create_admin",
    "current",
    "decide",
    "explain",
    "predicate",
    "record",
    "user",
]

# Loaded where they are first used: who only checks rules pays for no server, and an import alone for nothing.
_HOMES = {
    "AccessLog": "observability.access_log",
    "CanaryError": "exceptions",
    "CanaryMiddleware": "middleware.asgi.middleware",
    "CanaryWSGIMiddleware": "middleware.wsgi.middleware",
    "ConfigError": "exceptions",
    "ConfigSource": "control.sources.base",
    "Decided": "observability.events",
    "Decision": "routing.decided",
    "FileSource": "control.sources.file",
    "Finished": "observability.events",
    "Mapping": "rules.mapping",
    "MappingGroup": "routing.group",
    "Metrics": "observability.prometheus",
    "Observer": "observability.observers",
    "OpenTelemetry": "observability.opentelemetry",
    "Person": "routing.person",
    "Reloaded": "observability.events",
    "RequestHead": "http.messages",
    "RouteTable": "routing.table",
    "RuleStore": "control.store",
    "StaticSource": "control.sources.static",
    "UpstreamError": "exceptions",
    "create_admin": "admin.app",
    "current": "propagate.carried",
    "decide": "routing.decision",
    "explain": "inspection.explanation",
    "predicate": "middleware.audience.registry",
    "record": "propagate.context",
    "user": "middleware.audience.registry",
}
# Modules of names of their own, which are no public names here: `import *` would load them.
_ROOMS = frozenset(("django", "flask", "propagate", "testing"))


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f".{home}", __name__), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == __name__:
            raise
        text = f"{name} of canary_mw needs {exc.name}, which is not installed: pip install canary-mw brings it"
        raise ModuleNotFoundError(text, name=exc.name) from exc
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
