"""What the Module demands of every request before any Mapping is asked (Envoy's connection manager, RBAC filter).

A table without such demands has no gate, and its requests pay nothing.
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
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """Global settings of the request path, each under its name in the Module.

    Attributes:
        max_request_headers_kb: 431 beyond; None leaves it to the server.
        admits: whether an address may come in, from ip_allow or ip_deny.
    """

    merge_slashes: bool = False
    strip_matching_host_port: bool = False
    reject_requests_with_escaped_slashes: bool = False
    headers_with_underscores_action: Underscores = "ALLOW"
    max_request_headers_kb: int | None = None
    admits: "AddressFilter | None" = None

    def admit(self, head: RequestHead) -> RequestHead:
        """The request as it is matched and sent.

        Raises:
            ClientError: it is not let in: Forbidden, HeadTooLarge, BadTarget.
        """
        if self.admits is not None and not self.admits(head.client):
            raise Forbidden("the address is not allowed")
        if self.max_request_headers_kb is not None and _size(head) > self.max_request_headers_kb * 1024:
            raise HeadTooLarge(f"the head is over {self.max_request_headers_kb} KiB")
        if self.reject_requests_with_escaped_slashes and _ESCAPED_SLASH.search(head.path):
            raise BadTarget("the path holds an escaped slash")
        if self.headers_with_underscores_action != "ALLOW":
            head = self._without_underscores(head)
        if self.strip_matching_host_port:
            head = _without_own_port(head)
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


def _without_own_port(head: RequestHead) -> RequestHead:
    own = b":%d" % head.server_port
    if not (head.server_port and head.host and head.host.endswith(own)):
        return head
    host = head.host.removesuffix(own)
    return head.replace(headers=[(name, host if name == b"host" else value) for name, value in head.headers])


def _size(head: RequestHead) -> int:
    lines = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return lines + len(head.method) + len(head.path) + len(head.query)


@dataclass(frozen=True, slots=True)
class AddressFilter:
    """Whether a client's address may come in; equal ones are told so, lest every reload look like a change.

    Attributes:
        allow: addresses in `networks` are the only ones let in, else the only ones kept out.
    """

    networks: tuple[Network, ...]
    allow: bool
    _decided: dict[str | None, bool] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, client: str | None) -> bool:
        decided = self._decided.get(client)
        if decided is None:
            # Bounded: an address is the peer's to choose.
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            decided = self._decided[client] = self._admits(client)
        return decided

    def _admits(self, client: str | None) -> bool:
        try:
            address = ip_address(client or "")
        except ValueError:
            return not self.allow
        # A socket for both families names its IPv4 peers ::ffff:a.b.c.d.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self.networks) is self.allow
