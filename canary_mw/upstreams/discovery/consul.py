"""The healthy instances of services in a Consul catalog, by blocking queries (Consul: Health API, Blocking Queries)."""

import json
import os
from collections.abc import Mapping as Dict
from contextlib import suppress
from ssl import create_default_context
from typing import Any, NamedTuple
from urllib.parse import quote

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.headers import has_control
from canary_mw.rules.upstream import ConsulService, Origin

# Seconds that a query waits for a change, and the factor and seconds that an answer may take longer: an agent spreads
# the ends of waits by a sixteenth.
_WAIT = 60
_TIMEOUT = _WAIT * 17 / 16 + 5
_CONNECT_TIMEOUT = 5.0
_MAX_ANSWER = 8 << 20

Address = tuple[str, int]


class ConsulSettings(NamedTuple):
    """What the environment says to each client of Consul.

    Attributes:
        token: sent with each query; empty for none.
        token_file: read before each query, where there is no token.
        secure: https, where an address names no scheme.
        ca_file: certificates of authorities, empty for those of the system.
    """

    token: str = ""
    token_file: str = ""
    secure: bool = False
    ca_file: str = ""

    @classmethod
    def from_environ(cls, environ: Dict[str, str] = os.environ) -> "ConsulSettings":
        """Those of the variables that Consul's own clients read."""
        return cls(
            environ.get("CONSUL_HTTP_TOKEN", ""),
            environ.get("CONSUL_HTTP_TOKEN_FILE", ""),
            environ.get("CONSUL_HTTP_SSL", "").lower() in ("1", "t", "true"),
            environ.get("CONSUL_CACERT", ""),
        )


class Instances(NamedTuple):
    """An answer of Consul.

    Attributes:
        addresses: of the passing instances, sorted.
        next_index: of the next query, see the function of that name.
    """

    addresses: tuple[Address, ...]
    next_index: int


class ConsulClient:
    """Asks agents of Consul. It belongs to one event loop.

    Raises:
        OSError: the file of certificates cannot be used.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        context = create_default_context(cafile=settings.ca_file) if settings.ca_file else None
        self._client = HTTP11Client(contexts=TLSContexts(default=context))

    async def passing(self, service: ConsulService, index: int) -> Instances:
        """The passing instances of a service, once they are others than at an index; at once for index 0.

        Raises:
            UpstreamError: there is no answer, or none that is one.
        """
        origin = self._origin(service.agent.address)
        response = await self._client.send(origin, self._request(service, origin, index))
        try:
            if response.head.status != 200:
                raise UpstreamProtocolError(f"it answers {response.head.status}")
            body = b""
            while chunk := await response.read():
                body += chunk
                if len(body) > _MAX_ANSWER:
                    raise UpstreamProtocolError("its answer is too long")
        finally:
            response.close()
        told = next((value for name, value in response.head.headers if name == b"x-consul-index"), b"")
        return Instances(addresses_of(body), next_index(told, index))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _origin(self, address: Origin) -> Origin:
        scheme = address.scheme or ("https" if self._settings.secure else "http")
        return address._replace(scheme=scheme)

    def _request(self, service: ConsulService, origin: Origin, index: int) -> UpstreamRequest:
        query = f"dc={quote(service.agent.datacenter, safe='')}&passing=1" + (
            f"&index={index}&wait={_WAIT}s" if index else ""
        )
        headers = [(b"host", origin.authority.encode()), (b"accept", b"application/json")]
        if token := self._token():
            headers.append((b"x-consul-token", token.encode()))
        return UpstreamRequest(
            origin.authority,
            "GET",
            f"/v1/health/service/{service.name}?{query}".encode(),
            headers,
            timeout=_TIMEOUT,
            connect_timeout=_CONNECT_TIMEOUT,
            replayable=True,
        )

    def _token(self) -> str:
        token = self._settings.token
        if not token and self._settings.token_file:
            with suppress(OSError, ValueError), open(self._settings.token_file, encoding="ascii") as file:
                token = file.read().strip()
        return "" if has_control(token) or not token.isascii() else token


def next_index(told: bytes, last: int) -> int:
    """The index of the next query: what an agent has told, by Consul's rules for clients of blocking queries.

    Args:
        told: the value of `x-consul-index`, empty where it is missing.
        last: the index of the query that was answered.

    Returns:
        At least 1, or 0 to ask at once: an index that goes backwards means that the agent begins anew.
    """
    index = max(1, int(told)) if told.isdigit() and len(told) < 20 else 1
    return 0 if index < last else index


def addresses_of(body: bytes) -> tuple[Address, ...]:
    """The addresses of the instances in an answer, each once, sorted.

    Raises:
        UpstreamProtocolError: it is no list of instances.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise UpstreamProtocolError("its answer is no list of instances")
    return tuple(sorted({address for entry in found if (address := _address(entry)) is not None}))


def _address(entry: Any) -> Address | None:
    service, node = (_map(_map(entry).get(name)) for name in ("Service", "Node"))
    host = service.get("Address") or node.get("Address")
    port = service.get("Port")
    if not isinstance(host, str) or not isinstance(port, int) or not 0 < port < 65536 or has_control(host):
        return None
    return host, port


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
