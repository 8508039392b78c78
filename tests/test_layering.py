"""Imports point downwards: what a module may import follows from its row.

The rows, bottom to top: errors; values; rules read; rules indexed; policy; the conversation; then, above the I/O line,
the I/O seams; the changing state; the shells; the application; the programs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "canary_mw"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROWS = (
    "exceptions attributes health",
    "balancers headernames targets",
    "messages modulekeys",
    "matchers service cors headervalues gate kinds",
    "mapping overrides trustedheaders",
    "safeyaml",
    "resource",
    "pieces",
    "documents index schema sticky",
    "policies",
    "endpointpolicies",
    "module remarks validation",
    "conversion group tlscontext",
    "surroundings",
    "ambassador",
    "table",
    "framing wire",
    "decision forwarding rendering",
    "exchange lint documentschema",
    "explanation tries",
    "sources answer connection http11 pool upstreams transports breakers observers hops endpoints resolvers probes"
    " tls wsclient synctransports blocking syncpool syncconnection dial syscalls background forks unobtrusive timing",
    "store websocket inbox clock ending tee shadow apps syncupstreams counts",
    "environ",
    "lifespan relay shell wsgiapps",
    "syncrelay",
    "asgi wsgi admin settings server cycle metrics inspection",
    "deadlines direct",
    "protocol",
    "__init__ proxy",
    "demo",
    "cli",
    "__main__",
)
ROW = {name: row for row, names in enumerate(ROWS) for name in names.split()}

# Each I/O seam knows its own kind only, but for these: (importer, imported).
NEIGHBOURS = {
    ("background", "resolvers"),
    ("blocking", "forks"),
    ("blocking", "syncconnection"),
    ("blocking", "syncpool"),
    ("blocking", "tls"),
    ("connection", "timing"),
    ("dial", "tls"),
    ("endpoints", "breakers"),
    ("endpoints", "resolvers"),
    ("hops", "forks"),
    ("http11", "connection"),
    ("http11", "pool"),
    ("http11", "tls"),
    ("pool", "connection"),
    ("pool", "timing"),
    ("pool", "tls"),
    ("probes", "http11"),
    ("probes", "tls"),
    ("syncconnection", "answer"),
    ("syncconnection", "dial"),
    ("syncconnection", "syscalls"),
    ("syncpool", "dial"),
    ("syncpool", "syncconnection"),
    ("syncpool", "tls"),
    ("unobtrusive", "forks"),
    ("synctransports", "transports"),
    ("timing", "answer"),
    ("upstreams", "breakers"),
    ("upstreams", "connection"),
    ("upstreams", "endpoints"),
    ("upstreams", "probes"),
    ("upstreams", "http11"),
    ("upstreams", "timing"),
    ("upstreams", "tls"),
    ("upstreams", "transports"),
    ("wsclient", "tls"),
}

IO_ROW = ROW["sources"]
IO = {"asyncio", "threading", "socket", "ssl", "time", "random", "os", "httpx", "watchfiles", "starlette"}
# A Flask user does not pay for these when the package is imported.
SHELL_ROW = ROW["asgi"]
SHELL_ONLY = {"starlette", "uvicorn", "click", "prometheus_client", "jinja2"}


def imports(tree: ast.AST, modules: set[str]) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a module of the package) of every import that runs; those for type checkers load nothing."""
    for node in walk_without_type_checking(tree):
        if isinstance(node, ast.Import):
            yield from (located(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "canary_mw." * bool(node.level) + (node.module or "")
            if source.rstrip(".") != "canary_mw":
                yield located(source)
                continue
            for alias in node.names:
                yield (alias.name if alias.name in modules else "__init__"), True


def located(name: str) -> tuple[str, bool]:
    top, _, rest = name.partition(".")
    if top != "canary_mw":
        return top, False
    return rest.partition(".")[0] or "__init__", True


def walk_without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield node
        yield from walk_without_type_checking(node)


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, one sentence each."""
    if module not in ROW:
        return [f"{module} is not in the table of tests/test_layering.py: give it a row"]
    found = []
    for name, ours in imports(ast.parse(source), set(ROW)):
        fault = fault_of_own(module, name) if ours else fault_of_foreign(module, name)
        if fault:
            found.append(f"{module} imports {name}: {fault}")
    return found


def fault_of_own(module: str, name: str) -> str | None:
    if name not in ROW:
        return "not in the table of tests/test_layering.py: give it a row"
    if ROW[name] < ROW[module] or (module, name) in NEIGHBOURS:
        return None
    return "same row" if ROW[name] == ROW[module] else "a row above"


def fault_of_foreign(module: str, name: str) -> str | None:
    if name in IO and ROW[module] < IO_ROW:
        return "I/O below the I/O line"
    if name in SHELL_ONLY and ROW[module] < SHELL_ROW:
        return "belongs to the shells"
    if name == "httpx" and module not in ("transports", "synctransports"):
        return "httpx is imported in transports only"
    return None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_from_rows_below_its_own(path: Path) -> None:
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    assert violations(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("table", "from .exchange import exchange", "a row above"),
        ("table", "from . import exchange", "a row above"),
        ("table", "import canary_mw.exchange", "a row above"),
        ("table", "from canary_mw.exchange import exchange", "a row above"),
        ("table", "from . import __version__", "a row above"),
        ("decision", "from .forwarding import client_head", "same row"),
        ("http11", "from .upstreams import arun", "same row"),
        ("table", "from .novelty import thing", "give it a row"),
        ("novelty", "", "give it a row"),
        ("forwarding", "def f():\n    import time", "I/O below the I/O line"),
        ("exchange", "import os.path", "I/O below the I/O line"),
        ("messages", "from asyncio import Queue", "I/O below the I/O line"),
        ("store", "import starlette.types", "belongs to the shells"),
        ("framing", "if True:\n    import click", "belongs to the shells"),
        ("asgi", "import httpx", "httpx is imported in transports only"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, fault: str) -> None:
    (found,) = violations(module, source)
    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exchange", "from .decision import decide\nfrom . import forwarding\nimport canary_mw.messages"),
        ("index", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .table import MappingGroup"),
        ("http11", "import asyncio, ssl, httptools\nfrom .pool import Pool"),
        ("upstreams", "from .http11 import HTTP11Client"),
        ("transports", "def f():\n    import httpx"),
        ("admin", "import jinja2\nfrom starlette.responses import Response"),
        ("cli", "from . import __version__\nimport click"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []
