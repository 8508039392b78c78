"""Answers are worked out in a thread, from figures that are read once a second at most."""

import asyncio
import threading

import pytest
from recorded_figures import figures
from servers import mapping, run

from canary_mw.admin.desk import Desk
from canary_mw.admin.subject import Subject
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.prometheus import Metrics


class Read:
    """Counts how often figures are read, and in which thread."""

    def __init__(self) -> None:
        self.count = 0
        self.threads: set[int] = set()

    def __call__(self) -> Figures:
        self.count += 1
        self.threads.add(threading.get_ident())
        return figures(now=float(self.count))


def desk(read: Read) -> Desk:
    store = RuleStore(StaticSource(mapping("a", "/a/", "a")))
    return Desk(Subject(store=store, metrics=Metrics(), read_figures=read))


def test_many_who_ask_at_once_share_what_is_read_and_worked_out() -> None:
    read, worked = Read(), []

    def job(_: Subject, found: Figures) -> float:
        worked.append(found.now)
        return found.now

    async def main() -> None:
        asked = desk(read)
        assert await asyncio.gather(*(asked.ask(job, "same") for _ in range(50))) == [1.0] * 50
        assert await asyncio.gather(*(asked.ask(job) for _ in range(3))) == [1.0] * 3

    run(main())
    assert read.count == 1
    assert worked == [1.0] * 4
    assert threading.get_ident() not in read.threads


def test_figures_are_read_again_when_they_are_old_and_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Read()

    async def main() -> None:
        asked = desk(read)
        assert await asked.ask(lambda _, found: found.now, "same") == 1.0
        assert await asked.ask(lambda _, found: found.now, anew=True) == 2.0
        assert await asked.ask(lambda _, found: found.now, "same") == 2.0
        monkeypatch.setattr("canary_mw.admin.desk.FRESH", 0.0)
        assert await asked.ask(lambda _, found: found.now, "same") == 3.0

    run(main())


def test_what_goes_wrong_is_raised_where_it_is_awaited_and_stops_nobody_else() -> None:
    async def main() -> None:
        asked = desk(Read())
        wrong = asyncio.ensure_future(asked.ask(lambda *_: 1 // 0))
        right = asyncio.ensure_future(asked.ask(lambda *_: "right"))
        with pytest.raises(ZeroDivisionError):
            await wrong
        assert await right == "right"

    run(main())


def test_without_a_thread_the_answer_is_worked_out_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    read = Read()
    monkeypatch.setattr("canary_mw.admin.desk.start_thread", no_thread)

    async def main() -> None:
        assert await desk(read).ask(lambda _, found: found.now) == 1.0

    run(main())
    assert read.threads == {threading.get_ident()}
