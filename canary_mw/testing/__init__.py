"""For the tests of an app and of its rules: what a suite of pytest gets as fixtures, and any other as functions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canary_mw.testing.assertions import Route, assert_share, load_rules, route
    from canary_mw.testing.overrides import all_stable, gray_answered_by

__all__ = ["Route", "all_stable", "assert_share", "gray_answered_by", "load_rules", "route"]

# Loaded where they are first used: the plugin is loaded by every run of pytest.
_HOMES = {
    "Route": "assertions",
    "all_stable": "overrides",
    "assert_share": "assertions",
    "gray_answered_by": "overrides",
    "load_rules": "assertions",
    "route": "assertions",
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
