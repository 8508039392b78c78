"""docs/full-link.md: its rules load clean, its code runs, and the recipes of queues carry a lane."""

import ast
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from installation import ROOT

from canary_mw import RouteTable, propagate
from canary_mw.cli.main import main

PAGE = (ROOT / "docs" / "full-link.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
EXAMPLE = ROOT / "examples" / "full_link"
LANE = {"x-canary-lane": "checkout=gray"}


def block(language: str, holding: str) -> str:
    """The one block of that language with that text in it."""
    (found,) = [text for kind, text in BLOCKS if kind == language and holding in text]
    return found


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    propagate.uninstall()


def code(tmp_path: Path, holding: str) -> dict[str, Any]:
    """The names of a block of Python that has run."""
    script = tmp_path / "block.py"
    script.write_text(block("python", holding))
    return runpy.run_path(str(script))


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "yaml"])
def test_the_rules_load_clean(text: str, tmp_path: Path) -> None:
    assert RouteTable.from_yaml(text).releases
    rules = tmp_path / "rules.yaml"
    rules.write_text(text)
    outcome = CliRunner().invoke(main, ["check", str(rules)])
    assert outcome.exit_code == 0, outcome.output
    assert "clean" in outcome.output


@pytest.mark.parametrize("name", ["entry", "stock"])
def test_the_rules_are_those_of_the_example(name: str) -> None:
    text = (EXAMPLE / f"{name}.yaml").read_text()
    assert re.sub(r"^#.*\n", "", text, flags=re.M) == block("yaml", f"service: {name}\n")


def test_the_code_is_that_of_the_example() -> None:
    """Each statement of steps 2 and 3 stands there, as it is written here."""
    sources = "\n".join(path.read_text() for path in sorted(EXAMPLE.glob("*.py")))
    there = {ast.unparse(each) for each in ast.parse(sources).body}
    for holding in ("propagate.install()", 'propagate.install(["stock"'):
        for statement in ast.parse(block("python", holding)).body:
            if not isinstance(statement, ast.ImportFrom):
                assert ast.unparse(statement) in there


def test_explain_shows_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLE)
    command = block("shell", "canary-mw explain")
    outcome = CliRunner().invoke(
        main, ["explain", "stock.yaml", "GET", "/stock", "-H", "x-canary-lane: checkout=gray", "--trusted"]
    )
    assert "canary-mw explain stock.yaml GET /stock -H 'x-canary-lane: checkout=gray' --trusted" in command
    assert "x-canary-lane has an entry for checkout" in outcome.output
    assert "stock-gray" in outcome.output


def test_the_hosts_and_threads_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code(tmp_path, "search:8080")
    with propagate.lane(LANE):
        pool = code(tmp_path, "ThreadPoolExecutor(4)")["pool"]
    pool.shutdown()
    out = capfd.readouterr().out
    assert "who submits it" in out
    assert "who made it" in out


class Signal:
    """A signal as Celery has them: functions that are called by name."""

    def __init__(self) -> None:
        self.receivers: list[Callable[..., None]] = []

    def connect(self, receiver: Callable[..., None]) -> Callable[..., None]:
        self.receivers.append(receiver)
        return receiver

    def send(self, **named: Any) -> None:
        for receiver in self.receivers:
            receiver(sender="task", **named)


def test_the_recipe_of_celery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With signals like Celery's, whose tasks see the headers that a message has beside its own."""
    signals = ModuleType("celery.signals")
    for name in ("before_task_publish", "task_prerun", "task_postrun"):
        setattr(signals, name, Signal())
    monkeypatch.setitem(sys.modules, "celery", ModuleType("celery"))
    monkeypatch.setitem(sys.modules, "celery.signals", signals)
    names = code(tmp_path, "celery.signals")
    message: dict[str, str] = {"task": "work"}
    with propagate.lane(LANE):
        signals.before_task_publish.send(headers=message)
    assert message == {"task": "work", **LANE}
    task = SimpleNamespace(request=SimpleNamespace(headers=message))
    signals.task_prerun.send(task_id="1", task=task)
    assert propagate.header() == LANE
    signals.task_postrun.send(task_id="1", task=task)
    assert propagate.header() == {}
    assert names["running"] == {}


def test_the_recipe_of_kafka(tmp_path: Path) -> None:
    names = code(tmp_path, "headers_of_message")
    with propagate.lane(LANE):
        headers = names["headers_of_message"]()
    seen: list[Any] = []
    for given in (headers, None):
        message = SimpleNamespace(headers=lambda given=given: given, value=lambda: "work")
        names["handle"](message, lambda value: seen.append((value, propagate.header())))
    assert seen == [("work", LANE), ("work", {})]


def test_the_recipe_of_rq(tmp_path: Path) -> None:
    names = code(tmp_path, "def enqueue")
    calls: list[Any] = []
    queue = SimpleNamespace(enqueue=lambda *call: calls.append(call))
    with propagate.lane(LANE):
        names["enqueue"](queue, lambda number: (number, propagate.header()), 7)
    ((function, *arguments),) = calls
    assert function(*arguments) == (7, LANE)


def test_the_recipe_of_grpc(tmp_path: Path) -> None:
    interceptor = code(tmp_path, "LaneInterceptor")["LaneInterceptor"]()

    class Details(SimpleNamespace):
        def _replace(self, **changes: Any) -> "Details":
            return Details(**{**vars(self), **changes})

    with propagate.lane(LANE):
        found = interceptor.intercept_unary_unary(
            lambda details, _: details.metadata, Details(metadata=[("a", "b")]), None
        )
    assert found == [("a", "b"), ("x-canary-lane", "checkout=gray")]
