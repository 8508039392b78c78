"""What a hook is sent, and which addresses are never asked."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hook_server import CERTIFICATE, HookServer, hook_server

from canary_mw.control.rollouts.hooks.requests import HookClient, NoAnswer, is_near

NEAR = ("127.0.0.1",)


@pytest.fixture
def hook() -> Iterator[HookServer]:
    with hook_server() as server:
        yield server


def test_a_hook_gets_json_and_its_status_is_all_that_is_known_of_the_answer(hook: HookServer) -> None:
    hook.status["/gate?a=1"] = 204
    assert HookClient(NEAR).post(hook.url("/gate?a=1"), b'{"name": "shop"}', 5) == 204
    posted = hook.next()
    assert posted.body == {"name": "shop"}
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["host"] == f"127.0.0.1:{hook.port}"


def test_a_redirect_is_an_answer_and_is_not_followed(hook: HookServer) -> None:
    hook.status["/gate"] = 307
    hook.headers = {"location": hook.url("/other")}
    assert HookClient(NEAR).post(hook.url("/gate"), b"{}", 5) == 307
    assert hook.next().path == "/gate"
    assert hook.posted.empty()


def test_a_proxy_of_the_environment_is_not_used(hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert HookClient(NEAR).post(hook.url(), b"{}", 5) == 200


@pytest.mark.parametrize("size", [65536, 65537])
def test_an_answer_has_64_kib_at_most(hook: HookServer, size: int) -> None:
    hook.body = b"x" * size
    if size == 65536:
        assert HookClient(NEAR).post(hook.url(), b"{}", 5) == 200
        return
    with pytest.raises(NoAnswer, match="answers with more than 65536 bytes"):
        HookClient(NEAR).post(hook.url(), b"{}", 5)


def test_a_hook_that_does_not_answer_is_left_after_its_time(hook: HookServer) -> None:
    hook.go.clear()
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.1 does not answer in time"):
        HookClient(NEAR).post(hook.url(), b"{}", 0.1)


@pytest.mark.parametrize(("name", "trusted"), [("localhost", True), ("localhost", False), ("gate", True)])
def test_over_tls_the_name_is_verified_and_not_the_address(
    name: str, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    resolves(monkeypatch, "127.0.0.1")
    with hook_server(tls=True) as hook:
        url, client = f"https://{name}:{hook.port}/", HookClient(("localhost", "gate"))
        if (name, trusted) == ("localhost", True):
            assert client.post(url, b"{}", 5) == 200
            return
        with pytest.raises(NoAnswer, match=f"{name} cannot be reached"):
            client.post(url, b"{}", 5)
        assert hook.posted.empty()


def test_what_was_sent_is_not_sent_to_another_address(hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.status["/"] = None
    resolves(monkeypatch, "127.0.0.1", "127.0.0.2")
    with hook_server("127.0.0.2", hook.port) as other, pytest.raises(NoAnswer):
        HookClient(("gate",)).post(f"http://gate:{hook.port}/", b"{}", 5)
    hook.next()
    assert other.posted.empty()


def test_the_next_address_is_tried_where_nobody_listens(hook: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "::1", "127.0.0.1")
    assert HookClient(("gate",)).post(f"http://gate:{hook.port}/", b"{}", 5) == 200


@pytest.mark.parametrize("text", ["gopher://gate/", "http://", "http://user:password@gate/", "http://[::1", "gate"])
def test_a_url_that_is_none_is_never_shown(text: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        HookClient(NEAR).post(text, b"{}", 5)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "169.254.169.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "::1", "::", "fe80::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
        *("::127.0.0.1", "::a9fe:a9fe"),
        *("fd00:ec2::254", "ff02::1"),
    ],
)
def test_addresses_of_this_machine_and_link_are_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, address)
    with pytest.raises(NoAnswer, match="of this machine or link, and not asked: --hook-hosts gate allows it"):
        HookClient().post("http://gate/", b"{}", 5)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "172.16.3.4", "8.8.8.8", "fd12::7", "2001:db8::1"])
def test_addresses_of_a_network_are_asked(address: str) -> None:
    assert not is_near(ip_address(address))


@pytest.mark.parametrize("url", ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:7f00:1]/"])
def test_other_spellings_of_this_machine_are_not_asked(url: str) -> None:
    with pytest.raises(NoAnswer, match="of this machine or link"):
        HookClient().post(url, b"{}", 5)


def test_the_name_is_resolved_once_and_that_address_is_connected_to(
    hook: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers with another address the second time (DNS rebinding) gains nothing."""
    asked = resolves(monkeypatch, "127.0.0.1")
    assert HookClient(("gate",)).post(f"http://gate:{hook.port}/", b"{}", 5) == 200
    assert asked.count("gate") == 1
    assert hook.next().headers["host"] == f"gate:{hook.port}"


@pytest.mark.parametrize("named", ["GATE.", "127.0.0.1"])
def test_a_host_that_is_named_may_be_near(hook: HookServer, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolves(monkeypatch, "127.0.0.1")
    assert HookClient((named,)).post(f"http://gate:{hook.port}/", b"{}", 5) == 200


def test_a_name_that_nobody_knows_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(NoAnswer, match="gate is not known"):
        HookClient().post("http://gate/", b"{}", 5)


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """The name "gate" has these addresses; returns the names that are asked for, as they come."""
    real, asked = socket.getaddrinfo, []

    def resolve(host: str, port: Any, *args: Any, **options: Any) -> Any:
        asked.append(host)
        if host != "gate":
            return real(host, port, *args, **options)
        return [found for each in addresses for found in real(each, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked
