"""The admin app: health, rules, metrics, the JSON API and its pages."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canary_mw.admin.app import create_admin

__all__ = ["create_admin"]


def __getattr__(name: str) -> Any:
    # Loaded where it is first used: it needs starlette, and what it shows.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(".app", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
