"""Starts requests on the fast path: recognised, decided and sent to their upstream in one go."""

from math import inf

from canary_mw.exceptions import ClientError
from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.asgi.relay import StartedRequest
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.server.fast_path.client import ClientConnection
from canary_mw.server.fast_path.exchange import FastPathRequest
from canary_mw.server.fast_path.plans import Plan, Sender
from canary_mw.server.fast_path.requests import plain_request


class FastPath:
    """Starts requests on the fast path.

    Args:
        middleware: whose rules and upstream connections are used.

    Attributes:
        taken: how many requests it has sent to their upstream.
    """

    def __init__(self, middleware: CanaryMiddleware) -> None:
        self.taken = 0
        self._middleware = middleware
        self._table: RouteTable | None = None
        # By the identity of the Mapping.
        self._plans: dict[int, Plan] = {}
        self._open = self._trusts_all = False

    def _follow(self, table: RouteTable) -> None:
        """Work out what holds for all requests of a table."""
        middleware = self._middleware
        self._table = table
        self._plans.clear()
        # Every peer is taken for a proxy in front.
        self._trusts_all = table.settings.trusted_hops > 0
        settings = table.settings
        asks = table.filters or table.request_policy or settings.logs or settings.tracing or table.asks_person
        self._open = not asks and middleware.trusted_headers is None and middleware.tracer is None

    def take(self, client: ClientConnection, data: bytes) -> bool:
        """Send the request that bytes are to its upstream, if that is possible without waiting.

        What is decided already is left in `client.started`, for the ASGI path to go on with.

        Args:
            client: the connection that the bytes were read from; no request of it is being read or answered.
        """
        middleware = self._middleware
        table = middleware.store.table
        if table is not self._table:
            self._follow(table)
        if not self._open or not middleware.started or middleware.told.on:
            return False
        found = plain_request(data)
        if found is None:
            return False
        head = RequestHead.from_fields(*found, client.peer)
        sender = client.sender or self._meet(client)
        hop = middleware.hops[sender.trusted or self._trusts_all]
        governed = net = None
        if not table.has_extras:
            decision = middleware.decide(table, head, middleware.roll(), middleware.person)
        else:
            governed = table
            if b"baggage" in head.headers_by_name or not table.lane_headers.isdisjoint(head.headers_by_name):
                # A service before us may have decided.
                return False
            person = sender.person
            if person is None or self._trusts_all:
                person = middleware.release.person_of(table, head)
            decision = middleware.decide(table, head, middleware.roll(), person)
            net = middleware.nets.open(table, decision, head, person)
        if decision is not None and self._send(client, decision, head, hop, governed, net, sender):
            return True
        client.started = StartedRequest(decision, head, hop, None, None, governed, net)
        return False

    def _meet(self, client: ClientConnection) -> Sender:
        middleware = self._middleware
        host, scheme, *_ = client.peer
        trusted = middleware.is_trusted_peer(host)
        person = None if trusted else middleware.person._replace(trusted=False, client=host)
        found = client.sender = Sender(host, scheme, trusted=trusted, person=person)
        return found

    def _send(
        self,
        client: ClientConnection,
        decision: Decision,
        head: RequestHead,
        hop: HopContext,
        governed: RouteTable | None,
        net: SafetyNet | None,
        sender: Sender,
    ) -> bool:
        middleware, mapping, loop = self._middleware, decision.mapping, client.loop
        plan = self._plans.get(id(mapping)) or self._add_plan(decision)
        if not plan.simple or decision.shadow is not None:
            return False
        try:
            target = plan.target(head.path) + head.query
        except ClientError:
            return False
        # First: whatever may raise would lose the slot of a connection that is taken.
        data, request_id = plan.head(head, target, sender, hop, decision)
        options = mapping.options
        connection = middleware.upstreams.idle_connection(plan.key, plan.service, options, loop)
        if connection is None:
            return False
        counters, since = middleware.sole_counters, None
        if counters is not None:
            since = counters.begin_now()
        elif middleware.observed:
            since = middleware.notify_decided(decision, head)
        deadline = head_deadline = inf if mapping.timeout is None else loop.time() + mapping.timeout
        if net is not None:
            limit = net.limit_before_head(head.method, mapping)
            head_deadline = inf if limit is None else loop.time() + limit
        about = client, middleware, decision, head, hop, governed, net
        request = FastPathRequest(*about, plan, connection, request_id, since, head_deadline, deadline)
        self.taken += 1
        client.on_fast_path(request)
        connection.begin_reading(data, head_deadline, options, request)
        return True

    def _add_plan(self, decision: Decision) -> Plan:
        mapping = decision.mapping
        found = self._plans[id(mapping)] = Plan(mapping, self._middleware.hops[0].via)
        return found
