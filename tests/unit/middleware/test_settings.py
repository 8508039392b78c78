"""Arguments and variables of the middlewares: what counts, and what is said of an error."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from middlewares import Middleware, middleware, serving_middleware
from servers import fetch, hello, mapping, run
from starlette.applications import Starlette
from starlette.middleware import Middleware as Layer
from upstream import forever, serving

from canary_mw.client.limits import Limits
from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.options import Arguments, unused_variables
from canary_mw.middleware.settings import SERVER_SETTINGS, MiddlewareSettings, unknown_variables, variable
from canary_mw.server.app import create_app
from canary_mw.server.settings import Settings
from canary_mw.types import Message, Receive, Scope, Send

RULES = mapping("gray", "/shop/", "shop-gray")
BROKEN = mapping("gray", "/shop/", "shop-gray", weight="many")


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets `CANARY_MW_*`."""

    def setenv(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"CANARY_MW_{name}", str(value))

    return setenv


def test_upstreams_and_rules_may_come_from_the_environment(
    interface: str, tmp_path: Path, setenv: Callable[..., None]
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    async def main() -> None:
        async with serving(forever) as upstream:
            setenv(RULES=rules, UPSTREAM=f"shop-gray=http://127.0.0.1:{upstream.origin.port}")
            async with serving_middleware(middleware()) as port:
                assert (await fetch(port, "/shop/")).body == b"1"

    run(main())


def test_every_setting_counts_where_its_argument_is_not_given(
    interface: str, tmp_path: Path, setenv: Callable[..., None]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef" * 2)
    tokens = tmp_path / "tokens"
    tokens.write_text("operate 0123456789abcdef")
    setenv(
        FORWARDED_ALLOW_IPS="10.0.0.0/8",
        TRUSTED_HEADERS="gray",
        HEADER_KEY_FILE=keys,
        ID="me",
        DNS_INTERVAL=7,
        MAX_CONNECTIONS=8,
        REPLAY_LIMIT=9,
        SHADOW_LIMIT=10,
        SHADOW_WRITES=1,
        STRICT=1,
        RUN_DIR=tmp_path / "run",
        STATE=tmp_path / "state",
        ADMIN_HOST="127.0.0.2",
        ADMIN_PORT=8878,
        ADMIN_TOKEN_FILE=tokens,
        PEERS="shop",
        PEER_TOKEN_FILE=tokens,
        HOOK_HOSTS="127.0.0.1,gate",
        SECRETS=tmp_path,
        UPSTREAM="a=http://b",
        FILTERS=0,
        GUARD_UNMAPPED=0,
        UNGUARDED="/ping",
    )
    options = middleware(rules=StaticSource(RULES)).options
    assert options == (
        {"a": ["http://b"]},
        ("10.0.0.0/8",),
        ("gray",),
        str(keys),
        str(tmp_path),
        "me",
        Limits(max_connections=8),
        7,
        9,
        10,
        True,
        True,
        str(tmp_path / "run"),
        str(tmp_path / "state"),
        "127.0.0.2",
        8878,
        str(tokens),
        "shop",
        str(tokens),
        ("127.0.0.1", "gate"),
        False,
        False,
        ("/ping",),
    )


def test_an_argument_takes_the_place_of_its_variable(interface: str, setenv: Callable[..., None]) -> None:
    setenv(FORWARDED_ALLOW_IPS="*", TRUSTED_HEADERS="a", ID="x", REPLAY_LIMIT=9, SHADOW_WRITES=1, UPSTREAM="a=http://b")
    given = {"trusted": (), "trusted_headers": (), "hop_id": "me", "replay_limit": 0, "shadow_writes": False}
    options = middleware(rules=StaticSource(RULES), upstreams={}, **given).options
    assert {name: getattr(options, name) for name in given} == given
    assert options.upstreams == {}


def test_the_ambassador_id_counts(interface: str, setenv: Callable[..., None]) -> None:
    setenv(AMBASSADOR_ID="mine")
    served = middleware(
        rules=StaticSource(
            mapping("a", "/a/", "b", ambassador_id="default") + mapping("other", "/a/", "b", ambassador_id="mine")
        )
    )
    served.start()
    assert [each.name for each in served.store.table.mappings] == ["other"]
    served._stop()


def test_no_rules_at_all_is_an_error_that_says_what_to_do(interface: str) -> None:
    with pytest.raises(ConfigError, match=r"no rules \(give rules= a path, or set CANARY_MW_RULES\)"):
        middleware()


def test_a_variable_that_cannot_be_read_is_named(interface: str, setenv: Callable[..., None]) -> None:
    setenv(REPLAY_LIMIT="much")
    with pytest.raises(ConfigError, match="CANARY_MW_REPLAY_LIMIT is 'much', not a number"):
        middleware(rules=StaticSource(RULES))


def test_a_variable_does_not_disturb_a_middleware_that_is_off(interface: str, setenv: Callable[..., None]) -> None:
    setenv(ENABLED=0, REPLAY_LIMIT="much", UPSTREAM="shop")
    middleware()


def test_settings_of_the_server_alone_do_not_disturb_a_middleware(interface: str, setenv: Callable[..., None]) -> None:
    setenv(PORT="tcp://10.0.0.1:80", WORKERS="many")
    middleware(rules=StaticSource(RULES))


def test_the_proxy_goes_by_its_own_settings_alone(setenv: Callable[..., None]) -> None:
    setenv(FORWARDED_ALLOW_IPS="*", UPSTREAM="a=http://b", SHADOW_LIMIT=1)
    options = create_app(Settings(shadow_limit=5))._middleware.options
    assert (options.shadow_limit, options.upstreams, options.trusted) == (5, {}, ())


def test_the_server_has_the_settings_that_are_listed_as_its_own() -> None:
    common = {each.name for each in fields(MiddlewareSettings)}
    assert sorted({each.name for each in fields(Settings)} - common) == sorted(SERVER_SETTINGS)


def test_every_argument_has_a_setting() -> None:
    given = Arguments(*([0] * len(Arguments._fields)))  # type: ignore[arg-type]
    every = {variable(each.name): "x" for each in fields(MiddlewareSettings)}
    told = {text.partition(" ")[0] for text in unused_variables(given, "rules", every)}
    # In code, tracing is asked for by an observer.
    assert every.keys() - told == {
        "CANARY_MW_LOCAL",
        "CANARY_MW_PEERS",
        "CANARY_MW_PEER_TOKEN_FILE",
        "CANARY_MW_ADMIN_HOST_NAMES",
        "CANARY_MW_AMBASSADOR_ID",
        "CANARY_MW_CACHE",
        "CANARY_MW_CACHE_MAX_AGE",
        "CANARY_MW_EVENTS",
        "CANARY_MW_ENDPOINTS",
        "CANARY_MW_HOOK_HOSTS",
        "CANARY_MW_TRACING",
        "CANARY_MW_ZONE",
    }


def test_rules_that_are_named_twice_alike_are_not_reported() -> None:
    nothing = Arguments(*([None] * len(Arguments._fields)))
    assert unused_variables(nothing, Path("/etc/canary"), {"CANARY_MW_RULES": "/etc/canary"}) == []
    assert unused_variables(nothing, "rules", {"CANARY_MW_RULES": "/etc/canary"}) == [
        "CANARY_MW_RULES has no effect: the argument rules= is given"
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CANARY_MW_PROT", "did you mean CANARY_MW_PORT?"),
        ("CANARY_MW_ADM_PORT", "did you mean CANARY_MW_ADMIN_PORT?"),
        ("CANARY_MW_UPSTREAMS", "did you mean CANARY_MW_UPSTREAM?"),
        ("CANARY_MW_HOP_ID", ""),
        ("CANARY_MW_", ""),
    ],
)
def test_an_unknown_variable_is_told_with_the_nearest_name(name: str, hint: str) -> None:
    (text,) = unknown_variables({name: "1", "PATH": "/bin"})
    assert text.startswith(f"{name} is no variable of canary-mw")
    assert hint in text


def test_known_variables_and_links_of_kubernetes_are_not_told() -> None:
    known = [variable(each.name) for each in fields(Settings)]
    links = {
        "CANARY_MW_SERVICE_HOST": "10.0.0.1",
        "CANARY_MW_SERVICE_PORT": "80",
        "CANARY_MW_SERVICE_PORT_HTTP": "80",
        "CANARY_MW_PORT": "tcp://10.0.0.1:80",
        "CANARY_MW_PORT_80_TCP": "tcp://10.0.0.1:80",
        "CANARY_MW_PORT_80_TCP_ADDR": "10.0.0.1",
        "CANARY_MW_ADMIN_UI_PORT": "tcp://10.0.0.1:80",
        "CANARY_MW_ADMIN_UI_SERVICE_HOST": "10.0.0.1",
    }
    others = ["CANARY_MW_ENV_NAMES", "CANARY_MW_PLAIN_SOCKETS"]
    assert unknown_variables({**dict.fromkeys([*known, *others], "1"), **links}) == []


# Strict.


@pytest.mark.parametrize("text", [BROKEN, "{"])
def test_strict_does_not_start_with_rules_in_error(interface: str, text: str) -> None:
    with pytest.raises(ConfigError):
        middleware(rules=StaticSource(text), strict=True).start()


def test_strict_does_not_start_without_rules(interface: str, tmp_path: Path, setenv: Callable[..., None]) -> None:
    setenv(STRICT=1)
    with pytest.raises(ConfigError, match="nowhere"):
        middleware(rules=tmp_path / "nowhere").start()


def test_strict_starts_once_the_rules_are_right(interface: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    made: list[Middleware] = [middleware(rules=rules, strict=True)]
    rules.write_text(BROKEN)
    if interface == "asgi":
        for _ in range(2):
            with pytest.raises(ConfigError):
                made[0].start()
    rules.write_text(RULES)
    made[0].start()
    assert made[0].started
    made[0]._stop()


def test_without_strict_it_starts(interface: str, tmp_path: Path) -> None:
    served = middleware(rules=tmp_path / "nowhere")
    served.start()
    served._stop()


# A middleware that a framework makes in a running event loop.


def lazy_app(**options: Any) -> Starlette:
    """`add_middleware` of Starlette makes the middleware at the first call."""
    return Starlette(middleware=[Layer(CanaryMiddleware, **options)])


WRONG: dict[str, Any] = {"rules": StaticSource(RULES), "upstreams": {"shop": "127.0.0.1:1"}}
STRICT: dict[str, Any] = {"rules": StaticSource(BROKEN), "strict": True}


async def started(app: Any) -> list[Message]:
    """What an app answers to the start of its lifespan; its exception is the server's to see."""
    sent: list[Message] = []
    received = [{"type": "lifespan.startup"}]

    async def receive() -> Message:
        return received.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(ConfigError):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return sent


async def obstinate(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that takes every exception for its own business."""
    with contextlib.suppress(Exception):
        await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("options", [WRONG, STRICT], ids=["argument", "strict"])
def test_the_startup_fails_with_the_sentence(options: dict[str, Any]) -> None:
    async def main() -> None:
        for app in (lazy_app(**options), CanaryMiddleware(obstinate, **options)):
            (message,) = await started(app)
            assert message["type"] == "lifespan.startup.failed"
            assert message["message"].startswith("canary-mw cannot start: ")

    asyncio.run(main())


@pytest.mark.parametrize("options", [WRONG, STRICT], ids=["argument", "strict"])
def test_without_a_lifespan_every_request_raises_the_sentence(options: dict[str, Any]) -> None:
    async def unused(*args: Any) -> Any:
        raise AssertionError("nothing is read or sent")

    async def main() -> None:
        app = CanaryMiddleware(hello, **options)
        for kind in ("http", "http", "websocket"):
            with pytest.raises(ConfigError):
                await app({"type": kind}, unused, unused)

    asyncio.run(main())


def test_outside_of_a_loop_the_constructor_raises() -> None:
    with pytest.raises(ConfigError, match="not a URL of a host"):
        CanaryMiddleware(hello, **WRONG)


LAZY = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from canary_mw import CanaryMiddleware
app = Starlette(middleware=[Middleware(CanaryMiddleware, rules="rules.yaml", **OPTIONS)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", ["{'upstreams': {'shop': '127.0.0.1:1'}}", "{'strict': True}"])
def test_uvicorn_does_not_start(options: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(LAZY.replace("OPTIONS", options))
    command = [sys.executable, "-m", "uvicorn", "--port", "0", "main:app"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, env=os.environ)
    assert done.returncode == 3
    assert "canary-mw cannot start: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_variable_of_a_service_named_canary_mw_admin_is_no_port(setenv: Callable[..., None]) -> None:
    setenv(ADMIN_PORT="tcp://10.0.0.1:8877")
    assert MiddlewareSettings.from_environ().admin_port == 0
