"""The Services of a cluster whose endpoints are asked for, watched by one event loop."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from collections.abc import Mapping as Dict
from functools import partial
from time import monotonic

from canary_mw.host import HostLogger
from canary_mw.kubernetes.api import preload
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.kinds import ENDPOINT_SLICES, SERVICE_PORTS
from canary_mw.kubernetes.reflector import Reflector
from canary_mw.kubernetes.watch import Follower
from canary_mw.observability.source_status import SourceStatus
from canary_mw.rules.upstream import KubernetesService
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.endpoint_slices import (
    SERVICE_NAME,
    Slice,
    count_endpoints,
    ports_of,
    slice_of,
    usable_addresses,
)

# The module is imported before a server forks.
preload()

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

# Names in a selector, beyond which the whole namespace is watched.
_MAX_NAMES = 50
# Seconds in which changes are gathered: an endpoint that moves to another slice is two events.
_BATCH = 0.03

Answers = dict[KubernetesService, Answer]


class ClusterWatch:
    """What an API says of the endpoints of Services.

    Args:
        zone: that of this process, empty where it is not known.
        publish: gets the new answers, all of them, whenever one has changed.
    """

    def __init__(self, connection: Connection, zone: str, publish: Callable[[Answers], object]) -> None:
        self._connection, self._zone, self._publish = connection, zone, publish
        self._answers: Answers = {}
        self._watches: dict[str, _NamespaceWatch] = {}
        self._services: dict[str, list[KubernetesService]] = {}
        # Namespaces that have changed since the last answers.
        self._changed: set[str] = set()
        self._batch: asyncio.TimerHandle | None = None

    def follow(self, services: Collection[KubernetesService]) -> None:
        """Watch these Services and no others; called in the event loop."""
        self._services = defaultdict(list)
        for service in services:
            self._services[service.namespace or self._connection.namespace].append(service)
        for namespace in [name for name in self._watches if name not in self._services]:
            self._watches.pop(namespace).stop()
        for namespace, named in self._services.items():
            if namespace not in self._watches:
                note = partial(self._note_change, namespace)
                self._watches[namespace] = _NamespaceWatch(self._connection, namespace, note)
            self._watches[namespace].follow(frozenset(service.name for service in named))
        self._changed |= self._services.keys()
        self._compute_in(0.0)

    def status(self) -> list[SourceStatus]:
        """How it goes with each kind and namespace; any thread may call it."""
        return [_status(follower) for watch in list(self._watches.values()) for follower in watch.followers()]

    def _note_change(self, namespace: str) -> None:
        self._changed.add(namespace)
        unanswered = any(service not in self._answers for service in self._services.get(namespace, ()))
        self._compute_in(0.0 if unanswered else _BATCH)

    def _compute_in(self, delay: float) -> None:
        if self._batch is not None:
            if delay:
                return
            self._batch.cancel()
        self._batch = asyncio.get_running_loop().call_later(delay, self._compute)

    def _compute(self) -> None:
        """Answer anew for the namespaces that have changed."""
        self._batch = None
        changed, self._changed = self._changed, set()
        answers = {
            service: self._answers[service]
            for namespace, services in self._services.items()
            for service in services
            if namespace not in changed and service in self._answers
        }
        for namespace in changed & self._watches.keys():
            answers |= self._watches[namespace].answers(self._services[namespace], self._zone)
        if answers != self._answers:
            self._log(answers)
            self._answers = answers
            self._publish(answers)

    def _log(self, answers: Answers) -> None:
        for service, answer in answers.items():
            before = self._answers.get(service)
            if answer.addresses is None and answer != before:
                logger.warning("%s: its name is looked up by DNS", answer.reason)
            elif answer.addresses is not None and before is not None and before.addresses is None:
                logger.info("%s: its endpoints are known", _name(service, self._connection.namespace))
            elif answer.addresses == () and answer != before:
                logger.warning("%s", answer.reason)


class _NamespaceWatch:
    """The Services and EndpointSlices of one namespace."""

    def __init__(self, connection: Connection, namespace: str, changed: Callable[[], object]) -> None:
        self._connection, self._namespace, self._changed = connection, namespace, changed
        reflector: Reflector = Reflector(SERVICE_PORTS, namespace, optional=False, keep=ports_of)
        self._services = Follower(reflector, connection, "", changed)
        self._tasks = {self._services: self._run(self._services)}
        # The slices in use, and those that take their place once they are listed.
        self._slices: Follower | None = None
        self._next: Follower | None = None
        # Names that are known of; None for all of the namespace.
        self._names: frozenset[str] | None = frozenset()
        self._next_names: frozenset[str] | None = frozenset()

    def follow(self, names: frozenset[str]) -> None:
        """Watch the slices of these Services; those that are watched already go on being watched."""
        covered = self._names if self._next is None else self._next_names
        if covered is None or names <= covered:
            return
        if self._next is not None:
            self._end(self._next)
        selected = names if len(names) <= _MAX_NAMES else None
        selector = "" if selected is None else f"{SERVICE_NAME} in ({','.join(sorted(selected))})"
        reflector: Reflector = Reflector(ENDPOINT_SLICES, self._namespace, optional=False, keep=slice_of)
        self._next, self._next_names = Follower(reflector, self._connection, selector, self._changed), selected
        self._tasks[self._next] = self._run(self._next)

    def followers(self) -> list[Follower]:
        return list(self._tasks)

    def stop(self) -> None:
        for follower in self.followers():
            self._end(follower)

    def answers(self, services: Collection[KubernetesService], zone: str) -> Answers:
        """What is known of these Services."""
        self._take_next()
        slices: Dict[str, list[Slice]] = defaultdict(list)
        for each in self._slices.reflector.objects.values() if self._slices else ():
            slices[each.service].append(each)
        found = {service: self._answer(service, slices[service.name], zone) for service in services}
        return {service: answer for service, answer in found.items() if answer is not None}

    def _take_next(self) -> None:
        if self._next is None or not self._next.reflector.listed:
            return
        if self._slices is not None:
            self._end(self._slices)
        self._slices, self._names, self._next = self._next, self._next_names, None

    def _answer(self, service: KubernetesService, slices: list[Slice], zone: str) -> Answer | None:
        """What is known of a Service; None while its lists are on their way."""
        name, reflector = _name(service, self._namespace), self._services.reflector
        if not reflector.listed:
            return _without_list(name, reflector)
        ports = reflector.objects.get((self._namespace, service.name))
        if ports is None:
            return Answer(None, f"{name}: there is no such Service")
        port_name = ports.get(service.port)
        if port_name is None:
            return Answer(None, f"{name}: port {service.port} is not among its TCP ports ({_listed(ports)})")
        if self._slices is None or not (self._names is None or service.name in self._names):
            return _without_list(name, self._next.reflector) if self._next else None
        addresses = usable_addresses(slices, port_name, zone)
        if addresses:
            return Answer(addresses, "")
        return Answer((), f"{name}: none of its {count_endpoints(slices)} endpoints is ready")

    def _run(self, follower: Follower) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(follower.run())

    def _end(self, follower: Follower) -> None:
        # Later: one that is cancelled in the step in which it begins to connect drops a coroutine, with a warning.
        asyncio.get_running_loop().call_later(_BATCH, self._tasks.pop(follower).cancel)


def _without_list(name: str, reflector: Reflector) -> Answer | None:
    """What can be said as long as there is no list: nothing, or why there is none."""
    problem = "they are not installed" if reflector.absent else reflector.error
    if problem is None:
        return None
    return Answer(None, f"{name}: {reflector.kind.plural} cannot be read: {problem}")


def _name(service: KubernetesService, own_namespace: str) -> str:
    return f"{service.name}.{service.namespace or own_namespace}"


def _listed(ports: Dict[int, str]) -> str:
    return ", ".join(map(str, ports)) or "it has none"


def _status(follower: Follower) -> SourceStatus:
    reflector, contact = follower.reflector, follower.last_contact
    return SourceStatus(
        source="endpoints",
        kind=reflector.kind.plural,
        namespace=reflector.namespace,
        synced=reflector.complete and reflector.error is None,
        version=reflector.version,
        objects=len(reflector.objects),
        last_contact=None if contact is None else monotonic() - contact,
        cache_age=None,
        relists=dict(reflector.relists),
        errors=dict(reflector.errors),
        error=reflector.error,
    )
