"""`CANARY_MW_ENABLED=0`: the app answers every request, and nothing else happens."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import app_that_says, ask, end
from middlewares import Middleware, middleware
from servers import mapping

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.server.app import create_app
from canary_mw.server.settings import Settings

GRAY = mapping("gray", "/", "shop-gray")
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Middlewares that are made now are off."""
    monkeypatch.setenv("CANARY_MW_ENABLED", "0")


@pytest.fixture
def made(interface: str) -> Iterator[list[Middleware]]:
    """The middlewares that are closed at the end."""
    found: list[Middleware] = []
    yield found
    for each in found:
        end(each)


def make(made: list[Middleware], interface: str, **options: Any) -> Middleware:
    made.append(middleware(app_that_says(interface, "app"), **{"local": "shop", **options}))
    return made[-1]


@pytest.mark.usefixtures("off")
def test_the_app_answers_every_request(made: list[Middleware], interface: str) -> None:
    gray = {"shop-gray": app_that_says(interface, "gray")}
    served = make(made, interface, rules=StaticSource(GRAY), services=gray)
    assert ask(served, "/shop/", gray="true") == (200, "app /shop/")


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize("rules", ["nowhere/rules.yaml", "none", "store", "broken"])
def test_no_rules_are_read_and_one_line_says_so(
    made: list[Middleware], interface: str, rules: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = RuleStore(StaticSource(GRAY if rules == "store" else "kind: ["), middleware=True)
    with caplog.at_level(logging.DEBUG, "canary_mw"):
        given = rules if rules.startswith("nowhere") else None if rules == "none" else store
        served = make(made, interface, rules=given, strict=True)
        assert [ask(served) for _ in range(3)] == [(200, "app /shop/")] * 3
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "CANARY_MW_ENABLED is 0: no rules are read, and the app answers every request")
    ]
    assert (store.generation, store.error) == (0, None)


@pytest.mark.usefixtures("off")
def test_headers_that_need_trust_are_removed_as_ever(made: list[Middleware], interface: str, tmp_path: Path) -> None:
    # The file of keys is not where a suite runs.
    for file in (None, tmp_path / "none.key"):
        served = make(made, interface, rules="none.yaml", trusted_headers=["x-added"], header_key_file=file)
        assert ask(served, **{"x-added": "forged"}) == (200, "app /shop/")


@pytest.mark.parametrize("value", ["1", "yes", "ON", "", " "])
def test_it_is_on_by_default(
    made: list[Middleware], interface: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_MW_ENABLED", value)
    gray = {"shop-gray": app_that_says(interface, "gray")}
    assert ask(make(made, interface, rules=StaticSource(GRAY), services=gray))[1] == "gray /shop/"


@pytest.mark.parametrize("value", ["0", "no", "Off", "false"])
def test_it_is_off_by_any_no(
    made: list[Middleware], interface: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_MW_ENABLED", value)
    assert ask(make(made, interface, rules=StaticSource(GRAY)))[1] == "app /shop/"


def test_another_value_is_an_error(made: list[Middleware], interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_MW_ENABLED", "never")
    with pytest.raises(ConfigError, match="CANARY_MW_ENABLED is 'never'"):
        make(made, interface, rules=StaticSource(GRAY))


@pytest.mark.usefixtures("off")
def test_apps_that_stand_for_services_are_not_started() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    async def service(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it is started")

    messages = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    sent: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    served = CanaryMiddleware(app, rules=StaticSource(GRAY), services={"shop-gray": service})
    asyncio.run(served({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not served.services


@pytest.mark.usefixtures("off")
def test_the_standalone_proxy_serves_its_rules_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rules.yaml").write_text(GRAY)
    proxy = create_app(Settings(rules=(str(tmp_path),)))

    async def main() -> list[str]:
        await proxy._start()
        names = [each.name for each in proxy.store.table.mappings]
        await proxy._stop()
        return names

    assert asyncio.run(main()) == ["gray"]
    assert proxy._middleware.enabled
    assert "CANARY_MW_ENABLED is 0: the rules are served, and all releases are stopped" in caplog.text
