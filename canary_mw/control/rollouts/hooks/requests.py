"""Requests to hooks and queries: a POST to an address that was looked at before, and its answer.

A document names the URL, and this process may reach what its author may not: the metadata service of a cloud, or the
admin port of another process on this machine. So such addresses are refused, and what is connected to is the address
that was looked at: the name is not resolved a second time. No redirect is followed, no proxy of the environment is
used, and an answer has 64 KiB at most.
"""

import socket
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit

from canary_mw.client.limits import Limits
from canary_mw.client.sync.client import SyncHTTP11Client
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamTimeout
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import Origin

_MOST_BYTES = 65536
_LIMITS = Limits(max_connections=1, keepalive_expiry=0.0, max_head=_MOST_BYTES)
_TRANSLATED = IPv6Network("64:ff9b::/96")
# The metadata service of AWS has an address of its own, which is not link-local.
_METADATA = frozenset((ip_address("fd00:ec2::254"),))

Address = IPv4Address | IPv6Address


class NoAnswer(Exception):
    """There was no answer; the text says why, and names no more of the URL than the host."""


class HookAnswer(NamedTuple):
    """An answer."""

    status: int
    body: bytes


class _Target(NamedTuple):
    scheme: str
    host: str
    port: int
    path: bytes

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"


class HookClient:
    """Sends requests to hooks, and to what answers queries. Any thread may use it.

    Args:
        hosts: names and addresses that may also be loopback or link-local.
    """

    def __init__(self, hosts: Collection[str] = ()) -> None:
        self._hosts = frozenset(each.strip().strip("[]").rstrip(".").lower() for each in hosts)
        self._contexts = TLSContexts()

    def post(self, url: str, body: bytes, timeout: float) -> int:
        """The status of the answer to a POST of JSON; see `ask`."""
        return self.ask(url, body, timeout, b"application/json").status

    def ask(self, url: str, body: bytes, timeout: float, content_type: bytes) -> HookAnswer:
        """The answer to a POST.

        Args:
            timeout: seconds for all of it but the look-up of the name.

        Raises:
            NoAnswer: there is none, it is too long, or the address is refused.
        """
        target = _target(url)
        addresses = [*self._addresses(target)]
        deadline = monotonic() + timeout
        for number, address in enumerate(addresses, 1):
            try:
                return self._post(target, address, body, content_type, timeout, deadline)
            except UpstreamError as exc:
                # What was sent is not sent again: the hook may have acted on it.
                if exc.sent or not isinstance(exc, UpstreamConnectError) or number == len(addresses):
                    raise NoAnswer(f"{target.host} {_why(exc)}") from None
        raise NoAnswer(f"{target.host} has no address")

    def _post(
        self, target: _Target, address: str, body: bytes, content_type: bytes, timeout: float, deadline: float
    ) -> HookAnswer:
        origin = Origin(target.scheme, target.host, target.port, address)
        headers = [(b"host", target.authority.encode()), (b"content-type", content_type), (b"accept", b"*/*")]
        request = UpstreamRequest(
            "hook", "POST", target.path, headers, BodyFraming(len(body)), timeout=timeout, connect_timeout=timeout
        )
        # One for each request: names whose addresses change would leave pools behind.
        client = SyncHTTP11Client(limits=_LIMITS, contexts=self._contexts)
        try:
            answer = client.send(origin, request, body, deadline)
            received = bytearray()
            while piece := answer.read():
                received += piece
                if len(received) > _MOST_BYTES:
                    raise NoAnswer(f"{target.host} answers with more than {_MOST_BYTES} bytes")
            return HookAnswer(answer.head.status, bytes(received))
        finally:
            client.close()

    def _addresses(self, target: _Target) -> Iterator[str]:
        """The addresses of a name that may be connected to."""
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NoAnswer(f"{target.host} is not known to the system's resolver") from None
        texts = dict.fromkeys(str(each[4][0]) for each in found)
        permitted = [text for text in texts if self._is_permitted(target.host, text)]
        if texts and not permitted:
            hint = f"--hook-hosts {target.host} allows it"
            raise NoAnswer(f"{target.host} is an address of this machine or link, and not asked: {hint}")
        yield from permitted

    def _is_permitted(self, host: str, text: str) -> bool:
        return bool(self._hosts & {host.rstrip("."), text}) or not is_near(ip_address(text.partition("%")[0]))


def is_near(address: Address) -> bool:
    """Whether an address is of this machine or link, or stands for one that is."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED or int(address) >> 32 == 0:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_near(inner)
    near = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    # All of 0.0.0.0/8 is this machine.
    return near or address in _METADATA or (address.version == 4 and int(address) >> 24 == 0)


def _target(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        port = parts.port or _default_port(parts.scheme)
    except ValueError:
        raise NoAnswer("the URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise NoAnswer("the URL is not http://HOST or https://HOST")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, parts.hostname, port, path.encode())


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _why(exc: UpstreamError) -> str:
    if isinstance(exc, UpstreamTimeout):
        return "does not answer in time"
    return "cannot be reached" if isinstance(exc, UpstreamConnectError) else "does not answer by HTTP/1.1"
