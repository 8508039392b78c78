"""Opens and closes the ports of TCPMappings as the rules in force say, and leads their connections to upstreams."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Collection
from functools import partial
from random import random
from time import monotonic, time

from canary_mw.client.aio.connect import open_connection
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.host import HostLogger
from canary_mw.observability.figures.tallies import Tally, no_tally
from canary_mw.observability.logs.connections import Connection
from canary_mw.routing.table import RouteTable
from canary_mw.rules.tcp.mapping import TCPMapping
from canary_mw.rules.tcp.ports import Address, TCPGroup, TCPPort, tcp_ports
from canary_mw.rules.upstream import CircuitBreakers
from canary_mw.server.tcp.accepting import HELLO_TIMEOUT, SILENCE, Acceptor, peek_server_name
from canary_mw.server.tcp.certificates import Certificates
from canary_mw.server.tcp.connection import Pair
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.lease import Lease

logger = HostLogger(logging.getLogger("canary_mw.tcp"))

_BACKLOG = 2048


class TCPListeners:
    """The ports of TCPMappings of one event loop.

    A reload opens and closes ports, and connections that are open go on. A port that cannot be opened is an error in
    the log; the others live, and it is tried again with the next rules.

    Args:
        upstreams: where connections lead.
        taken: ports of this process that no TCPMapping may have.
        tally: counts connections and bytes.
        roll: in [0, 1).
        told: hears of each connection that has ended.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        taken: Collection[int],
        tally: Tally = no_tally,
        roll: Callable[[], float] = random,
        told: Callable[[Connection], object] = lambda connection: None,
    ) -> None:
        self._upstreams, self._taken, self._tally, self._roll = upstreams, taken, tally, roll
        self._certificates = Certificates(upstreams.contexts.root)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ports: dict[Address, _Port] = {}
        self._used: dict[tuple[str, CircuitBreakers], int] = {}
        self._pairs: set[Pair] = set()
        self._connecting: dict[Pair, asyncio.Task[None]] = {}
        self._told = told
        self._led: dict[Pair, _Led] = {}
        self._all_ended = asyncio.Event()

    def start(self, table: RouteTable) -> None:
        """Open the ports of a table, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._apply(table)

    def take_table(self, table: RouteTable) -> None:
        """Follow another table; any thread may call it."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._apply, table)

    def close(self) -> None:
        """Accept no more connections; those that are open go on."""
        self._loop = None
        for port in self._ports.values():
            port.close()
        self._ports = {}

    async def stop(self, grace: float) -> None:
        """Accept no more, and end what is still open after some seconds."""
        self.close()
        if self._pairs:
            self._all_ended.clear()
            try:
                async with asyncio.timeout(grace):
                    await self._all_ended.wait()
            except TimeoutError:
                for pair in list(self._pairs):
                    pair.abort()

    def _apply(self, table: RouteTable) -> None:
        if self._loop is None:
            return
        wanted = tcp_ports(table.settings.tcp)
        for address in self._ports.keys() - wanted.keys():
            self._ports.pop(address).close()
            logger.info("tcp: port %d at %s is closed", address[1], address[0])
        for address, port in wanted.items():
            if address in self._ports:
                self._ports[address].use(port)
            else:
                self._open(address, port)

    def _open(self, address: Address, port: TCPPort) -> None:
        assert self._loop is not None
        if address[1] in self._taken:
            logger.error("tcp: port %d is that of the proxy or its admin port: write another one", address[1])
            return
        try:
            listener = _listen(address)
        except OSError as exc:
            logger.error("tcp: port %d at %s cannot be opened: %s", address[1], address[0], exc.strerror or exc)
            return
        self._ports[address] = _Port(self, self._loop, listener, port)
        logger.info("tcp: port %d at %s is open", address[1], address[0])

    def certificate(self, group: TCPGroup) -> ssl.SSLContext:
        """What the connections of a group are accepted with.

        Raises:
            UpstreamConnectError: the files were never usable.
        """
        tls = group.shares[0][1].certificate
        assert tls is not None
        return self._certificates(tls)

    def lead(self, group: TCPGroup, pair: Pair) -> None:
        """Lead a connection of a group to an upstream."""
        mapping = group.choose(self._roll() * 100)
        self._pairs.add(pair)
        led = self._led[pair] = _Led(mapping, pair)
        self._tally("tcp_connections", mapping.mapping.name, "accepted")
        if not self._acquire(mapping):
            del self._led[pair]
            self._tally("tcp_connections", mapping.mapping.name, "overflow")
            self._told(led.ended(pair, "upstream_overflow"))
            pair.abort()
            return
        loop = asyncio.get_running_loop()
        task = self._connecting[pair] = loop.create_task(self._connect(led, pair, loop))
        task.add_done_callback(partial(self._connected, pair))

    def _connected(self, pair: Pair, _: "asyncio.Task[None]") -> None:
        self._connecting.pop(pair, None)

    async def _connect(self, led: "_Led", pair: Pair, loop: asyncio.AbstractEventLoop) -> None:
        rule, contexts = led.mapping.mapping, self._upstreams.contexts
        seconds = rule.connect_timeout_ms / 1000 or float("inf")
        request = UpstreamRequest(
            rule.service.text, "", b"", [], connect_timeout=seconds, options=rule.options, mapping=rule.name
        )

        async def attempt(lease: Lease) -> None:
            try:
                async with asyncio.timeout_at(None if deadline == float("inf") else deadline):
                    await open_connection(lambda: pair.upstream, lease.origin, contexts(lease.origin))
                led.upstream = lease.origin.endpoint
            except (OSError, ValueError, OverflowError) as exc:
                raise UpstreamConnectError(f"{lease.origin.endpoint}: {exc or type(exc).__name__}") from exc

        deadline = loop.time() + seconds
        try:
            await self._upstreams.at_endpoint(request, loop, deadline, attempt)
        except UpstreamError as exc:
            self._upstreams.errors.failed(request.service, rule.name, exc)
            self._tally("tcp_connections", rule.name, "no_upstream")
            led.flag = "upstream_connection_failure"
            pair.abort()
            return
        pair.join(led.mapping.idle_timeout)

    def ended(self, pair: Pair) -> None:
        """Both connections of a pair are over."""
        self._pairs.discard(pair)
        task = self._connecting.pop(pair, None)
        if task is not None:
            task.cancel()
        led = self._led.pop(pair, None)
        if led is not None:
            name = led.mapping.mapping.name
            self._release(led.mapping)
            self._told(led.ended(pair, led.flag))
            self._tally("tcp_connections", name, "idle" if pair.timed_out else "closed")
            self._tally("tcp_bytes", name, "received", count=pair.received)
            self._tally("tcp_bytes", name, "sent", count=pair.sent)
        if not self._pairs:
            self._all_ended.set()

    def _acquire(self, mapping: TCPMapping) -> bool:
        """Count a connection to a service; False where `max_connections` are open."""
        limits = mapping.mapping.options.circuit_breakers
        if limits is None:
            return True
        key = mapping.mapping.service.text, limits
        if self._used.get(key, 0) >= limits.max_connections:
            return False
        self._used[key] = self._used.get(key, 0) + 1
        return True

    def _release(self, mapping: TCPMapping) -> None:
        limits = mapping.mapping.options.circuit_breakers
        if limits is not None:
            key = mapping.mapping.service.text, limits
            self._used[key] -= 1
            if not self._used[key]:
                del self._used[key]


class _Led:
    """A connection that a TCPMapping has taken.

    Attributes:
        upstream: address:port, None before there is a connection to it.
        flag: why it came to nothing.
    """

    __slots__ = ("_began", "_peer", "flag", "mapping", "upstream")

    def __init__(self, mapping: TCPMapping, pair: Pair) -> None:
        transport = pair.client.transport
        self.mapping, self._began = mapping, monotonic()
        self._peer = None if transport is None else transport.get_extra_info("peername")
        self.upstream: str | None = None
        self.flag: str | None = None

    def ended(self, pair: Pair, flag: str | None) -> Connection:
        """It is over."""
        rule = self.mapping.mapping
        client = None if self._peer is None else (str(self._peer[0]), int(self._peer[1]))
        service = rule.service.text, rule.namespace
        seconds = monotonic() - self._began
        return Connection(time(), seconds, client, self.upstream, *service, flag, pair.received, pair.sent)


class _Port:
    """An open port."""

    def __init__(
        self, owner: TCPListeners, loop: asyncio.AbstractEventLoop, listener: socket.socket, port: TCPPort
    ) -> None:
        self._owner, self._loop, self._port = owner, loop, port
        self._acceptor = Acceptor(loop, listener, self._begin)

    def use(self, port: TCPPort) -> None:
        """Lead the next connections by other TCPMappings."""
        self._port = port

    def close(self) -> None:
        """Accept no more."""
        self._acceptor.close()

    async def _begin(self, client: socket.socket) -> None:
        """Take a connection."""
        port, name = self._port, None
        if port.by_host:
            name = await peek_server_name(client, HELLO_TIMEOUT if port.any is None else SILENCE)
        group = port.of(name)
        if group is None:
            client.close()
            return
        try:
            context = None if group is port.any else self._owner.certificate(group)
        except UpstreamConnectError:
            # Logged by whoever reads the files.
            client.close()
            return
        pair = Pair(self._owner, self._loop)
        timeout = None if context is None else HELLO_TIMEOUT
        await self._loop.connect_accepted_socket(
            lambda: pair.client, client, ssl=context, ssl_handshake_timeout=timeout
        )
        if not pair.client.is_over:
            self._owner.lead(group, pair)


def _listen(address: Address) -> socket.socket:
    """A listening socket; each worker has one of its own at the same address."""
    listener = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
