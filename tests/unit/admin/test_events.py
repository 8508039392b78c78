"""The events of the API: what they tell, and when they end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from admin_client import GOOD, Changing
from jsonschema import Draft202012Validator
from recorded_figures import NOW, evidence, figures, release_figures, steady, worker
from recorded_rollouts import ROLLED_BACK, ROLLOUTS
from servers import Client, client_of, fetch_admin, run, serving_app
from starlette.applications import Starlette

from canary_mw.admin import create_admin
from canary_mw.admin.models.rollout import Rollout
from canary_mw.admin.openapi import openapi
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.prometheus import Metrics

NAMES = {
    "tick": "Tick",
    "verdict": "VerdictChange",
    "reload": "ReloadChange",
    "worker": "WorkerChange",
    "release": "Transition",
}
FAILING = evidence('{"stable": 80, "gray": 20}', stable=(8000, 7900, 20), gray=(2000, 1900, 60))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two looks, and no figures that are kept."""
    monkeypatch.setattr("canary_mw.admin.events._TICK", 0.01)
    monkeypatch.setattr("canary_mw.admin.desk.FRESH", 0.0)


class Pod:
    """What the events tell of; a test changes it."""

    def __init__(self) -> None:
        self.source = Changing(GOOD)
        self.store = RuleStore(self.source)
        self.store.reload()
        self.figures: Figures = release_figures(steady(800), steady(200))
        self.rollouts: dict[str, Rollout] = {}

    def app(self) -> Starlette:
        return create_admin(
            self.store, Metrics(), read_figures=lambda: self.figures, clock=lambda: NOW, rollout=self.rollout
        )

    def rollout(self, name: str) -> Rollout | None:
        return self.rollouts.get(name)


@asynccontextmanager
async def reading(port: int) -> AsyncIterator[Client]:
    async with client_of(port) as client:
        await client.ask("GET", "/api/v1/events", [("host", "localhost")])
        head = await client.head()
        assert head.status_code == 200
        assert (b"content-type", b"text/event-stream; charset=utf-8") in head.headers
        yield client


async def messages(client: Client) -> AsyncIterator[tuple[str, Any]]:
    """The events with their values, until the stream ends."""
    text, number = "", 0
    while data := await client.data():
        text += data.decode()
        *whole, text = text.split("\n\n")
        for each in whole:
            fields = dict(line.split(": ", 1) for line in each.splitlines() if not line.startswith(":"))
            if "event" in fields:
                number += 1
                assert int(fields["id"]) == number
                yield fields["event"], validated(fields["event"], fields["data"])


def validated(name: str, data: str) -> Any:
    components = openapi()["components"]
    value = json.loads(data)
    Draft202012Validator({"$ref": f"#/components/schemas/{NAMES[name]}", "components": components}).validate(value)
    return value


async def next_of(found: AsyncIterator[tuple[str, Any]], name: str) -> Any:
    """The value of the next event of a name."""
    async for each, value in found:
        if each == name:
            return value
    raise AssertionError(f"the stream ended without {name}")


def test_the_first_events_tell_what_there_is() -> None:
    async def main() -> None:
        async with serving_app(Pod().app(), lifespan="off") as port, reading(port) as client:
            found = messages(client)
            first = [await anext(found) for _ in range(5)]
            assert [name for name, _ in first] == ["reload", "worker", "verdict", "verdict", "tick"]
            assert first[0][1] == {"generation": 1, "error": None}
            assert first[1][1] == {"workers": 2, "pids": [1, 2]}
            assert {value["release"] for name, value in first if name == "verdict"} == {"shop", "a"}
            assert first[4][1]["rps"] == pytest.approx(1000 / 60, abs=0.01)

    run(main())


def test_a_change_is_told_once() -> None:
    async def main() -> None:
        pod = Pod()
        async with serving_app(pod.app(), lifespan="off") as port, reading(port) as client:
            found = messages(client)
            await next_of(found, "tick")
            pod.figures = release_figures(steady(800, 3), steady(200, 6), FAILING)
            worse = await next_of(found, "verdict")
            assert (worse["release"], worse["variant"], worse["state"]) == ("shop", "gray", "worse")
            pod.source.change(GOOD.replace("weight: 20", "weight: 200"))
            pod.store.reload()
            assert "200" in (await next_of(found, "reload"))["error"]
            pod.figures = release_figures(steady(800, 3), steady(200, 6), FAILING, workers=(worker(2), worker(3)))
            assert (await next_of(found, "worker"))["pids"] == [2, 3]
            await next_of(found, "tick")
            assert (await anext(found))[0] == "tick"

    run(main())


def test_each_step_of_a_release_is_told_once() -> None:
    async def main() -> None:
        pod = Pod()
        pod.rollouts["shop"] = ROLLOUTS["Progressing"]
        async with serving_app(pod.app(), lifespan="off") as port, reading(port) as client:
            found = messages(client)
            first = await next_of(found, "release")
            assert (first["release"], first["after"], first["item"]) == ("shop", "Progressing", 3)
            await next_of(found, "tick")
            # Two at once, and those that were there before.
            pod.rollouts["shop"] = {
                **ROLLED_BACK,
                "history": [ROLLED_BACK["history"][0], ROLLOUTS["Paused"]["history"][0], *ROLLED_BACK["history"][1:]],
            }
            told = [await next_of(found, "release"), await next_of(found, "release")]
            assert [(each["before"], each["after"], each["who"]) for each in told] == [
                ("Progressing", "Paused", "ci"),
                ("Progressing", "RolledBack", ""),
            ]
            await next_of(found, "tick")
            assert (await anext(found))[0] == "tick"

    run(main())


def test_the_stream_ends_when_the_server_shuts_down() -> None:
    async def main() -> None:
        app = Pod().app()
        async with serving_app(app, lifespan="off") as port, reading(port) as client:
            found = messages(client)
            await next_of(found, "tick")
            app.state.stop_streams()
            assert [name async for name, _ in found if name != "tick"] == []
            assert (await fetch_admin(port, "/api/v1/events")).status == 503

    run(main())


def test_a_head_request_takes_no_stream() -> None:
    async def main() -> None:
        async with serving_app(Pod().app(), lifespan="off") as port, client_of(port) as client:
            for _ in range(2):
                answer = await client.get("HEAD", "/api/v1/events", [("host", "localhost")])
                assert (answer.status, answer.body) == (200, b"")
                assert answer.header("content-type") == "text/event-stream; charset=utf-8"

    run(main())


def test_readers_are_bounded_and_one_that_leaves_makes_room() -> None:
    async def main() -> None:
        async with serving_app(Pod().app(), lifespan="off") as port, AsyncExitStack() as stack:
            async with reading(port):
                for _ in range(31):
                    await stack.enter_async_context(reading(port))
                refused = await fetch_admin(port, "/api/v1/events")
                assert (refused.status, refused.header("retry-after")) == (503, "5")
                assert json.loads(refused.body)["error"]["code"] == "busy"
            while True:
                async with client_of(port) as client:
                    await client.ask("GET", "/api/v1/events", [("host", "localhost")])
                    if (await client.head()).status_code == 200:
                        break
                await asyncio.sleep(0)

    run(main())


def test_a_comment_keeps_what_lies_between_from_ending_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_mw.admin.events._COMMENT", 0.0)

    async def main() -> None:
        pod = Pod()
        pod.figures = figures()
        async with serving_app(pod.app(), lifespan="off") as port, reading(port) as client:
            text = ""
            while "\n: still here\n" not in text:
                text += (await client.data()).decode()
            assert text.startswith("retry: 1000\n\n")

    run(main())
