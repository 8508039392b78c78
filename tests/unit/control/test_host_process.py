"""A reload changes nothing of the process that it runs in: neither the collector, nor what is frozen, nor its threads.

A middleware lives in somebody else's process, and a reload may come every second.
"""

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers import mapping

from canary_mw.config import parser
from canary_mw.config.document import Document
from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.events import Reloaded
from canary_mw.observability.observers import Observer
from canary_mw.routing.table import RouteTable

DEADLINE = 20.0


class Settings(NamedTuple):
    """What a process is set to; and how many objects it froze, of which some may be freed."""

    enabled: bool
    threshold: tuple[int, int, int]
    frozen: int
    debug: int
    callbacks: int
    switch_interval: float

    @classmethod
    def now(cls) -> "Settings":
        """Read them."""
        return cls(
            gc.isenabled(),
            gc.get_threshold(),
            gc.get_freeze_count(),
            gc.get_debug(),
            len(gc.callbacks),
            sys.getswitchinterval(),
        )


def unchanged(before: Settings, seen: Iterable[Settings]) -> None:
    """Nothing was set during a reload, nor after it, and nothing more is frozen."""
    after = {*seen, Settings.now()}
    assert max(each.frozen for each in after) <= before.frozen
    assert {each._replace(frozen=before.frozen) for each in after} == {before}


class Watcher(Observer):
    """A source and an observer that read the settings at every step of a reload."""

    def __init__(self) -> None:
        self.service = "one"
        self.seen: list[Settings] = []

    def load(self) -> list[Document]:
        """Some rules."""
        self.seen.append(Settings.now())
        return [Document("".join(mapping(f"m{n}", f"/m{n}/", self.service) for n in range(50)), "rules")]

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """None."""
        stop.wait()
        yield from ()

    def reloaded(self, record: Reloaded) -> None:
        """Read them."""
        self.seen.append(Settings.now())

    def spy(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Read them at a call of a function, too."""
        real: Callable[..., Any] = getattr(owner, name)

        def called(*args: Any, **named: Any) -> Any:
            self.seen.append(Settings.now())
            return real(*args, **named)

        patch.setattr(owner, name, called)


def freeze(stack: ExitStack) -> None:
    """As is advised for servers that load the app before they fork."""
    gc.freeze()
    stack.callback(gc.unfreeze)


def disable(stack: ExitStack) -> None:
    """A host that collects when it likes."""
    gc.disable()
    stack.callback(gc.enable)


def take_long_turns(stack: ExitStack) -> None:
    """A host of few threads that work long."""
    stack.callback(sys.setswitchinterval, sys.getswitchinterval())
    sys.setswitchinterval(0.25)


def collect_rarely(stack: ExitStack) -> None:
    """A host of many objects."""
    stack.callback(gc.set_threshold, *gc.get_threshold())
    gc.set_threshold(50_000, 50, 100)


@pytest.mark.parametrize(
    "host", [pytest.param(freeze, marks=pytest.mark.slow), disable, take_long_turns, collect_rarely, lambda _: None]
)
def test_a_reload_leaves_the_settings_of_the_process_alone(
    host: Callable[[ExitStack], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        watcher = Watcher()
        for owner, name in ((parser, "parse"), (parser, "read"), (parser, "interpret"), (RouteTable, "rebuild")):
            watcher.spy(monkeypatch, owner, name)
        store = RuleStore(watcher, observers=[watcher])
        host(stack)
        before = Settings.now()
        for service in ("one", "two", "two", "three"):
            watcher.service = service
            store.reload()
        # Of the three changes: the source, each step, each of 50 documents, and the observer.
        assert len(watcher.seen) > 150
        unchanged(before, watcher.seen)


def test_what_the_host_changes_during_a_reload_stays() -> None:
    class Host(Watcher):
        def load(self) -> list[Document]:
            gc.disable()
            return super().load()

    try:
        RuleStore(Host()).reload()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_reload_in_its_thread_leaves_them_alone(tmp_path: Path) -> None:
    watcher = Watcher()
    rules = tmp_path / "rules.yaml"
    rules.write_text(mapping("a", "/a/", "one"))
    store = RuleStore(FileSource(rules), observers=[watcher])
    before = Settings.now()
    store.start()
    try:
        rules.write_text(mapping("a", "/a/", "two"))
        assert store.wait(2, DEADLINE)
    finally:
        store.stop()
    unchanged(before, watcher.seen)


# A host whose requests leave cycles behind, under a change of the rules at every step; it stops at a size, too.
GROWTH = """
import gc, json, sys
from canary_mw.config.document import Document
from canary_mw.control.store import RuleStore

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

class Source:
    def load(self):
        return [Document("".join(
            "---\\napiVersion: getambassador.io/v2\\nkind: Mapping\\n"
            f"name: m{n}\\nprefix: /m{n}/{self.number}/\\nservice: a\\n"
            for n in range(50)
        ), "rules")]

class Session:
    pass

def sessions():
    for _ in range(200):
        one, other = Session(), Session()
        one.other, other.other, one.data = other, one, bytes(4096)

source = Source()
store = RuleStore(source)
source.number = 0
store.reload()
if sys.argv[1] == "frozen":
    gc.freeze()
frozen, full, sizes = gc.get_freeze_count(), gc.get_stats()[2]["collections"], []
for source.number in range(1, 601):
    sessions()
    assert store.reload()
    sizes.append(rss())
    if sizes[-1] > 1024:
        break
full = gc.get_stats()[2]["collections"] - full
print(json.dumps([len(sizes), gc.get_freeze_count() - frozen, full, max(sizes) - max(sizes[:200])]))
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("host", ["usual", "frozen"])
def test_memory_does_not_grow_with_reloads(host: str) -> None:
    command = [sys.executable, "-c", GROWTH, host]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    reloads, frozen, collections, growth = json.loads(done.stdout)
    assert reloads == 600
    assert frozen <= 0
    assert collections > 0
    # MiB over the peak of the first third; the sessions are 480 MiB in all.
    assert growth < 40
