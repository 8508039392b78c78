"""Threads of the package start in one place, wait for each other with the locks of one module, and set nothing.

A thread that is made elsewhere is a greenlet where gevent has patched `threading`, starts before a server forks, or
delays the exit of the process. A lock that is made elsewhere is one of greenlets there, and our threads are none.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "canary_mw"
HERE = {"forking.py", "locks.py"}
MODULES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}

# What other modules may do with `threading`: look, and name types.
# `Executor` is an abstract class, of which ours hands calls to an executor of the app.
HARMLESS = {
    "concurrent.futures.Executor",
    "threading.current_thread",
    "threading.main_thread",
    "threading.get_ident",
    "threading.local",
}
SOURCES = ("threading", "_thread", "concurrent.futures", "multiprocessing")
# What gevent replaces, to let other greenlets run. A name that was imported from its module before that, as in an app
# that a server loads before it forks, would stop them; so these are looked up where they are called.
REPLACED = {"time": {"sleep"}, "queue": None, "select": None, "socket": None, "subprocess": None}
# Methods and functions that hand work to a thread of an executor.
EXECUTORS = {"to_thread", "run_in_executor", "set_default_executor"}


def names_of(tree: ast.AST) -> dict[str, str]:
    """What names of a module mean, for everything that is imported from SOURCES."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.asname or each.name: each.name for each in node.names if each.name in SOURCES}
        elif isinstance(node, ast.ImportFrom) and node.module in SOURCES:
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return found


def used(source: str) -> Iterator[str]:
    """The calls, base classes and arguments that make a thread or a lock, each by its full name."""
    tree = ast.parse(source)
    names = names_of(tree)

    def meaning(node: ast.AST) -> str:
        text = ast.unparse(node)
        first, dot, rest = text.partition(".")
        return names.get(first, first) + dot + rest if re.fullmatch(r"[\w.]+", text) else ""

    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = [node.func, *node.args, *(keyword.value for keyword in node.keywords)]
            yield from map(meaning, called)
            if isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTORS:
                yield node.func.attr
        elif isinstance(node, ast.ClassDef):
            yield from map(meaning, node.bases)
        elif isinstance(node, ast.ImportFrom) and node.module in REPLACED:
            replaced = REPLACED[node.module]
            yield from (f"from {node.module}" for each in node.names if replaced is None or each.name in replaced)


def faults(source: str) -> set[str]:
    """What a module other than those HERE may not use."""
    return {
        name
        for name in used(source)
        if (name.startswith(tuple(f"{each}." for each in SOURCES)) and name not in HARMLESS)
        or name in EXECUTORS
        or name.startswith("from ")
    }


@pytest.mark.parametrize("module", sorted(MODULES.keys() - HERE))
def test_a_module_leaves_threads_and_their_locks_to_others(module: str) -> None:
    assert faults(MODULES[module].read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import threading\nthreading.Thread(target=print).start()", "threading.Thread"),
        ("import threading as t\nclass Mine(t.Thread): pass", "threading.Thread"),
        ("from threading import Timer as Later\nLater(1, print)", "threading.Timer"),
        ("from threading import Lock\nfield(default_factory=Lock)", "threading.Lock"),
        ("import threading\nend = threading.Event()", "threading.Event"),
        ("from _thread import start_new_thread\nstart_new_thread(print, ())", "_thread.start_new_thread"),
        ("from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor()", None),
        ("import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor()", None),
        ("import asyncio\nasync def f(): await asyncio.to_thread(print)", "to_thread"),
        ("async def f(loop): await loop.run_in_executor(None, print)", "run_in_executor"),
        ("from time import monotonic, sleep", "from time"),
        ("from queue import SimpleQueue as Queue", "from queue"),
        ("def f():\n    from socket import create_connection", "from socket"),
    ],
)
def test_what_starts_a_thread_or_makes_a_lock_is_found(source: str, name: str | None) -> None:
    assert faults(source) == {name or "concurrent.futures.ThreadPoolExecutor"}


@pytest.mark.parametrize(
    "source",
    [
        "import threading\ndef changes(stop: threading.Event) -> None: stop.wait()",
        "import threading\nmain = threading.current_thread() is threading.main_thread()",
        "import asyncio\nasyncio.Event()",
        "from time import monotonic",
        "import queue\nqueue.SimpleQueue()",
        "from canary_mw.forking import start_thread\nstart_thread(print, 'canary-mw-shown')",
    ],
)
def test_what_does_neither_is_let_through(source: str) -> None:
    assert faults(source) == set()


# What is set for all that runs in a process, and the modules that have a process for themselves.
PROCESS = {"setswitchinterval", "setrecursionlimit", "settrace", "setprofile", "signal", "setrlimit", "set_threshold"}
PROGRAMS = ("cli/", "server/runner.py")


def process_settings(source: str) -> set[str]:
    """The names of PROCESS that a module calls, and the collector if it imports that."""
    tree = ast.parse(source)
    called = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    imported = {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return (called & PROCESS) | (imported & {"gc"})


def test_the_settings_of_a_process_are_left_to_its_host() -> None:
    found = {name: process_settings(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    assert {name: names for name, names in found.items() if names and not name.startswith(PROGRAMS)} == {
        # A handler that calls the one before it, and takes itself away.
        "middleware/asgi/shutdown.py": {"signal"},
    }


@pytest.mark.parametrize(
    "source", ["import gc\ngc.freeze()", "from gc import disable", "import sys\nsys.settrace(None)"]
)
def test_what_sets_something_is_found(source: str) -> None:
    assert process_settings(source)


# Rooms whose code runs in threads of the package. Handlers of log records have locks of the host; see `host.py`.
THREADED = ("client/", "upstreams/", "control/")


def bare_loggers(source: str) -> list[str]:
    """The loggers of this package that a module uses as they are."""
    tree = ast.parse(source)
    wrapped = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "HostLogger" and node.args
    }
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("getLogger")
        and id(node) not in wrapped
        and "canary_mw" in ast.unparse(node)
    ]


@pytest.mark.parametrize("module", [name for name in sorted(MODULES) if name.startswith(THREADED)])
def test_what_runs_in_threads_logs_by_a_logger_of_the_host(module: str) -> None:
    assert bare_loggers(MODULES[module].read_text(encoding="utf-8")) == []


def test_a_bare_logger_is_found() -> None:
    assert bare_loggers('logger = logging.getLogger("canary_mw.store")') == ["logging.getLogger('canary_mw.store')"]
    assert bare_loggers('logger = HostLogger(logging.getLogger("canary_mw.store"))') == []
