"""The order of the rooms, as docs/architecture.md gives it: every import points up this list.

A module may import from rooms before its own, from its own room, and from the ground. There are no exceptions.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from canary_mw import __all__ as public_names

PACKAGE = Path(__file__).parents[2] / "canary_mw"

GROUND = {"exceptions", "types", "locks", "host", "forking"}
CORE = ["http", "rules", "config", "routing", "forwarding", "inspection", "rollout"]
OUTER = (
    "run_folder observability propagate client kubernetes upstreams control admin middleware server cli testing".split()
)
ROOMS = [*CORE, *OUTER]
# Addresses at the top of the package. They hand names on and hold no code; `__init__` does so lazily.
ADDRESSES = {"": ROOMS, "__main__": ROOMS, "proxy": ROOMS, "protocol": ROOMS, "pytest_plugin": ROOMS}
ADDRESSES |= {"flask": ROOMS, "django": ROOMS}
# Rooms whose public names are loaded lazily by their `__init__`.
PUBLIC_ROOMS = {"admin", "propagate", "testing"}
TWINS = [("client.aio", "client.sync"), ("middleware.asgi", "middleware.wsgi")]
ONE_WAY = [("upstreams.sync", "upstreams.aio")]

# What the core does not do: wait, talk, count time, look around.
IO_MODULES = (
    "asyncio concurrent ctypes http.client multiprocessing os queue random select signal socket ssl subprocess"
    " threading time urllib.request"
).split()
LIBRARIES = {
    "aiohttp": {"propagate"},
    "asgiref": {"middleware"},
    "click": {"cli"},
    "django": {"middleware"},
    "flask": {"middleware"},
    "gevent": {"forking", "host", "locks"},
    "h2": {"client"},
    "httptools": {"http", "server"},
    "httpx": {"client", "kubernetes", "propagate"},
    "jinja2": {"admin"},
    "openfeature": {"propagate"},
    "opentelemetry": {"observability"},
    "prometheus_client": {"observability"},
    "pytest": {"testing"},
    "pydantic": {"config"},
    "re2": {"rules"},
    "requests": {"propagate"},
    "rich": {"cli"},
    "starlette": {"admin", "server"},
    "urllib3": {"propagate"},
    "uvicorn": {"admin", "server", "cli"},
    "watchfiles": {"control"},
    "websockets": {"client", "middleware", "server"},
    "werkzeug": {"middleware"},
    "yaml": {"config"},
}
MOST_MODULES = 15
MOST_LINES = 300


def module_name(path: Path) -> str:
    """`routing.table` for canary_mw/routing/table.py, the empty text for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """(module, whether it is for type checkers only) of every import, also of those in functions.

    A submodule of the package is told from a name in it by MODULES.
    """
    tree = ast.parse(source)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{prefix}.{alias.name}"
                known = full.removeprefix("canary_mw.") in MODULES
                yield (full if known or prefix in ("http", "urllib") else prefix), node in for_types


def own_imports(module: str, source: str) -> set[str]:
    """The modules of the package that a module imports, without itself."""
    found = {name.removeprefix("canary_mw").removeprefix(".") for name, _ in imports(source) if is_own(name)}
    return found - {module}


def is_own(name: str) -> bool:
    return name == "canary_mw" or name.startswith("canary_mw.")


def within(name: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, one sentence each."""
    found = []
    for name, only_types in imports(source):
        if name.startswith("."):
            fault = "imports are absolute"
        elif is_own(name):
            fault = fault_of_own(module, name.removeprefix("canary_mw").removeprefix("."))
        else:
            fault = fault_of_foreign(module, name, only_types)
        if fault:
            found.append(f"{module} imports {name}: {fault}")
    return found


def fault_of_own(module: str, name: str) -> str:
    room, other = module.partition(".")[0], name.partition(".")[0]
    if other in GROUND or module in ADDRESSES:
        return ""
    if room in GROUND:
        return "the ground imports nothing of the package"
    if not other:
        return "" if room in ("admin", "server", "cli") else "a room imports no public name"
    if other not in ROOMS or room not in ROOMS:
        return "no room of the list"
    if ROOMS.index(other) > ROOMS.index(room):
        return "a room further down the list"
    for one, two in TWINS:
        if (within(module, one) and within(name, two)) or (within(module, two) and within(name, one)):
            return "twins do not meet"
    if any((module, name) == (after, before) for before, after in ONE_WAY):
        return "only the other way round"
    return ""


def fault_of_foreign(module: str, name: str, only_types: bool) -> str:
    room = module.partition(".")[0]
    if room in CORE and any(within(name, each) for each in IO_MODULES):
        return "the core does no I/O"
    rooms = LIBRARIES.get(name.partition(".")[0])
    if rooms is not None and not only_types and room not in rooms and module not in ADDRESSES:
        return f"belongs to {' and '.join(sorted(rooms))}"
    return ""


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "__init__")
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    assert violations(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # An address loads names where first used, which closes no circle.
    graph = {
        name: own_imports(name, path.read_text(encoding="utf-8"))
        for name, path in MODULES.items()
        if name not in ADDRESSES
    }
    assert circles(graph) == []


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The modules that are left when those that import nothing else of the rest are taken off, again and again."""
    left = dict(graph)
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_every_folder_is_a_room_or_lies_in_one() -> None:
    folders = {name.partition(".")[0] for name in MODULES if "." in name}
    assert folders == set(ROOMS)
    assert {name for name in MODULES if "." not in name} == {*ADDRESSES, *GROUND, *ROOMS}


def test_a_room_is_introduced_by_one_docstring() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE and path.parent.name not in PUBLIC_ROOMS:
            (only,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(only, ast.Expr), path


def test_folders_and_modules_stay_small() -> None:
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > MOST_MODULES} == {}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()}
    assert {str(path): count for path, count in lines.items() if count > MOST_LINES} == {}


def test_no_public_name_is_taken_by_a_module() -> None:
    # `import canary_mw.decide` would put the module where the function is expected.
    assert not set(public_names) & MODULES.keys()


def test_the_core_loads_no_module_that_waits_by_itself() -> None:
    assert set(IO_MODULES) - {"http.client", "urllib.request"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("routing.table", "from canary_mw.forwarding.exchange import exchange", "further down"),
        ("routing.table", "from canary_mw.forwarding import exchange", "further down"),
        ("routing.table", "import canary_mw.forwarding.exchange", "further down"),
        ("routing.table", "def f():\n    from canary_mw.control.store import RuleStore", "further down"),
        (
            "client.limits",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import canary_mw.cli.main",
            "further down",
        ),
        ("routing.table", "from canary_mw import Mapping", "no public name"),
        ("routing.table", "from canary_mw.novelty import thing", "no room"),
        ("novelty", "from canary_mw.routing.table import RouteTable", "no room"),
        ("exceptions", "from canary_mw.http.messages import RequestHead", "the ground"),
        ("client.sync.pool", "from canary_mw.client.aio.pool import Pool", "twins"),
        ("middleware.asgi.relay", "from canary_mw.middleware.wsgi import environ", "twins"),
        ("upstreams.aio", "from canary_mw.upstreams.sync import SyncUpstreams", "the other way round"),
        ("routing.table", "from .group import MappingGroup", "absolute"),
        ("forwarding.headers", "def f():\n    import time", "no I/O"),
        ("forwarding.exchange", "import os.path", "no I/O"),
        ("http.messages", "from asyncio import Queue", "no I/O"),
        ("http.messages", "from http import client", "no I/O"),
        ("config.reader", "import urllib.request", "no I/O"),
        ("control.store", "import starlette.types", "belongs to admin and server"),
        ("http.framing", "if True:\n    import click", "belongs to cli"),
        ("middleware.base", "import httpx", "belongs to client and kubernetes"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, fault: str) -> None:
    (found,) = violations(module, source)
    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("forwarding.exchange", "from canary_mw.routing import decision\nimport canary_mw.http.messages"),
        (
            "routing.index",
            "from canary_mw.routing.group import MappingGroup\nfrom canary_mw.exceptions import CanaryError",
        ),
        ("http.messages", "from http import HTTPStatus\nfrom urllib.parse import quote"),
        ("client.aio.client", "import asyncio, ssl"),
        ("upstreams.sync", "from canary_mw.upstreams.aio import Upstreams"),
        ("middleware.base", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import httpx"),
        ("admin.app", "import jinja2\nfrom starlette.responses import Response"),
        ("cli.main", "from canary_mw import __version__\nimport click"),
        ("proxy", "from canary_mw.server.app import create_app"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []
