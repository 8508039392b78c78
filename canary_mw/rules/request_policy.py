"""Checks and changes of every request before routing, from the Module (Envoy's connection manager and RBAC filter).

A table without such settings has no policy, and its requests have no extra cost.
"""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Literal

from canary_mw.exceptions import BadTarget, Forbidden, HeadTooLarge
from canary_mw.http.messages import RequestHead

Network = IPv4Network | IPv6Network
Underscores = Literal["ALLOW", "REJECT_REQUEST", "DROP_HEADER"]
_SLASHES = re.compile(rb"//+")
_ESCAPED_SLASH = re.compile(rb"%2f|%5c", re.I)
_MAX_CACHED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """Settings of the Module for all requests, each under its name there.

    Attributes:
        max_request_headers_kb: limit in KiB; None leaves the limit to the server.
        address_filter: from ip_allow or ip_deny; None allows all.
    """

    merge_slashes: bool = False
    strip_matching_host_port: bool = False
    reject_requests_with_escaped_slashes: bool = False
    headers_with_underscores_action: Underscores = "ALLOW"
    max_request_headers_kb: int | None = None
    address_filter: "AddressFilter | None" = None

    def admit(self, head: RequestHead) -> RequestHead:
        """Check a request; the result is matched and sent in its place.

        Raises:
            Forbidden: `address_filter` refuses the client.
            HeadTooLarge: over `max_request_headers_kb`.
            BadTarget: an escaped slash, or a header name with an underscore.
        """
        if self.address_filter is not None and not self.address_filter(head.client):
            raise Forbidden("the address is not allowed")
        if self.max_request_headers_kb is not None and _size(head) > self.max_request_headers_kb * 1024:
            raise HeadTooLarge(f"the head is over {self.max_request_headers_kb} KiB")
        if self.reject_requests_with_escaped_slashes and _ESCAPED_SLASH.search(head.path):
            raise BadTarget("the path holds an escaped slash")
        if self.headers_with_underscores_action != "ALLOW":
            head = self._without_underscores(head)
        if self.strip_matching_host_port:
            head = _without_server_port(head)
        if self.merge_slashes and b"//" in head.path:
            head = head.replace(path=_SLASHES.sub(b"/", head.path))
        return head

    def _without_underscores(self, head: RequestHead) -> RequestHead:
        kept = [pair for pair in head.headers if b"_" not in pair[0]]
        if len(kept) == len(head.headers):
            return head
        if self.headers_with_underscores_action == "REJECT_REQUEST":
            raise BadTarget("a header name holds an underscore")
        return head.replace(headers=kept)


def _without_server_port(head: RequestHead) -> RequestHead:
    port = b":%d" % head.server_port
    if not (head.server_port and head.host and head.host.endswith(port)):
        return head
    host = head.host.removesuffix(port)
    return head.replace(headers=[(name, host if name == b"host" else value) for name, value in head.headers])


def _size(head: RequestHead) -> int:
    lines = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return lines + len(head.method) + len(head.path) + len(head.query)


@dataclass(frozen=True, slots=True)
class AddressFilter:
    """Whether the address of a client is allowed.

    A value with equality, so that a reload without changes is seen as one.

    Attributes:
        allow: True allows the addresses in `networks` only, False all others only.
    """

    networks: tuple[Network, ...]
    allow: bool
    _cache: dict[str | None, bool] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, client: str | None) -> bool:
        allowed = self._cache.get(client)
        if allowed is None:
            # Bounded: clients can use any number of addresses.
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            allowed = self._cache[client] = self._allows(client)
        return allowed

    def _allows(self, client: str | None) -> bool:
        try:
            address = ip_address(client or "")
        except ValueError:
            return not self.allow
        # A dual-stack socket gives IPv4 addresses as ::ffff:a.b.c.d.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self.networks) is self.allow
