"""What `install` refuses, and where its hosts come from."""

from collections.abc import Iterator

import aiohttp
import pytest

from canary_mw import propagate
from canary_mw.exceptions import ConfigError
from canary_mw.propagate.carried import headers_for
from canary_mw.propagate.hosts import VARIABLE, told


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    propagate.uninstall()


class Owner:
    """Stands for a middleware."""


def is_told(host: str) -> bool:
    with propagate.lane("svc=gray"):
        return headers_for(host, 80, {}) == {"x-canary-lane": "svc=gray"}


def test_the_list_is_the_union_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "env, *.env.svc")
    propagate.install("one", clients=())
    propagate.install(["two"], clients=())
    owner, other = Owner(), Owner()
    told.follow(owner, ["release"])
    told.follow(other, ["other"])
    names = ["one", "two", "env", "a.env.svc", "release", "other"]
    assert all(map(is_told, names))
    assert not is_told("else")
    # The rules have changed, and a middleware is gone.
    told.follow(owner, [])
    del other
    told.follow(owner, [])
    assert [name for name in names if is_told(name)] == names[:4]


def test_without_a_list_nobody_is_told() -> None:
    propagate.install(clients=())
    assert not is_told("one")


def test_outside_of_a_request_nobody_is_told() -> None:
    propagate.install(["one"], clients=())
    assert headers_for("one", 80, {}) == {}
    assert propagate.header() == {}
    assert propagate.current() is None


def test_what_is_no_host_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"propagate\.install: 'http://a' is not a host"):
        propagate.install(["http://a"])
    monkeypatch.setenv(VARIABLE, "a,b c")
    with pytest.raises(ConfigError, match=f"{VARIABLE}: 'b c' is not a host"):
        propagate.install(["a"])
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match="no client 'curl'"):
        propagate.install(["a"], clients=["curl"])
    with pytest.raises(ConfigError, match="'x y' is not the name of a header"):
        propagate.install(["a"], headers=["x y"])


def test_an_old_aiohttp_is_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It would refuse all requests."""
    monkeypatch.delattr(aiohttp, "ClientMiddlewareType")
    original = vars(aiohttp.ClientSession)["_request"]
    propagate.install(["one"])
    assert "has no client middlewares" in caplog.text
    assert vars(aiohttp.ClientSession)["_request"] is original
    assert is_told("one")
    with pytest.raises(ConfigError, match="has no client middlewares"):
        propagate.install(["one"], clients=["aiohttp"])


def test_a_message_of_a_queue_takes_all_headers_along() -> None:
    propagate.install(["one"], clients=(), headers=["X-MSE-Tag"])
    with propagate.lane({"X-Canary-Lane": "a=b, c=d, wrong", "x-mse-tag": "gray", "x-other": "1"}):
        message = propagate.header()
        found = propagate.current()
    assert message == {"x-canary-lane": "a=b, c=d", "x-mse-tag": "gray"}
    assert found is not None
    assert (found.lane, found.decision) == ("a=b, c=d", None)
    with propagate.lane(message), propagate.lane(None):
        assert propagate.header() == {}


@pytest.mark.parametrize("value", ["gray\r\nx-evil: 1", "gray\0", "g" * 2000, b"\x80" * 1025, 7, None])
def test_a_message_of_a_queue_may_hold_anything(value: object) -> None:
    """Headers of requests may not: the client would refuse them, or worse."""
    propagate.install(["one"], clients=(), headers=["x-mse-tag"])
    with propagate.lane({"x-mse-tag": value, "x-canary-lane": value, b"other": value}):  # type: ignore[dict-item]
        assert headers_for("one", 80, {}) == {}


def test_a_message_of_a_queue_may_hold_bytes() -> None:
    for value in ({"x-canary-lane": b"a=b, c=\xff"}, b"a=b, c=\xff"):
        with propagate.lane(value):
            assert propagate.header() == {"x-canary-lane": "a=b"}
