"""The services of Consul that are asked for, each followed by one task of an event loop."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from canary_mw.exceptions import UpstreamError
from canary_mw.host import HostLogger
from canary_mw.kubernetes.backoff import Backoff
from canary_mw.observability.source_status import SourceStatus
from canary_mw.rules.upstream import ConsulService
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.consul import ConsulClient, ConsulSettings
from canary_mw.upstreams.discovery.watched_endpoints import Publish, Watch, WatchedEndpoints

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

# Seconds from the begin of a query to that of the next one.
_INTERVAL = 1.0

ConsulEndpoints = WatchedEndpoints[ConsulService]


def watch_consul() -> ConsulEndpoints:
    """The endpoints of the services of Consul that rules ask for."""
    return WatchedEndpoints(_open_watch, "services of Consul have no endpoints")


def _open_watch(publish: Publish[ConsulService]) -> Watch[ConsulService]:
    return ConsulWatch(ConsulSettings.from_environ(), publish)


class ConsulWatch:
    """What agents say of services.

    Args:
        publish: gets the new answers, all of them, whenever one has changed.
    """

    def __init__(self, settings: ConsulSettings, publish: Publish[ConsulService]) -> None:
        self._settings, self._publish = settings, publish
        self._followed: dict[ConsulService, _Followed] = {}

    def follow(self, services: frozenset[ConsulService]) -> None:
        """Ask for these services and no others; called in the event loop."""
        for service in self._followed.keys() - services:
            self._followed.pop(service).stop()
        for service in services - self._followed.keys():
            self._followed[service] = _Followed(service, self._settings, self._publish_all)
        self._publish_all()

    def status(self) -> list[SourceStatus]:
        """How it goes with each service; any thread may call it."""
        return [each.status() for each in list(self._followed.values())]

    def _publish_all(self) -> None:
        answers = {service: each.answer for service, each in self._followed.items()}
        self._publish({service: answer for service, answer in answers.items() if answer is not None})


class _Followed:
    """One service.

    Attributes:
        answer: the last one, None before there is any. What is known stays for as long as nothing else is.
    """

    def __init__(self, service: ConsulService, settings: ConsulSettings, changed: Callable[[], object]) -> None:
        self.answer: Answer | None = None
        self._service, self._settings, self._changed = service, settings, changed
        self._backoff = Backoff()
        self._problem: str | None = None
        self._errors: dict[str, int] = {}
        self._contact: float | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        self._task.cancel()

    def status(self) -> SourceStatus:
        addresses = self.answer.addresses if self.answer is not None else None
        return SourceStatus(
            source=f"consul://{self._service.agent.address.authority}",
            kind=self._service.name,
            namespace=self._service.agent.datacenter,
            synced=self._problem is None and self._contact is not None,
            version="v1",
            objects=len(addresses or ()),
            last_contact=None if self._contact is None else monotonic() - self._contact,
            cache_age=None,
            relists={},
            errors=dict(self._errors),
            error=self._problem,
        )

    async def _run(self) -> None:
        while True:
            try:
                await self._ask()
            except (UpstreamError, OSError) as exc:
                self._failed(exc)
                await asyncio.sleep(self._backoff.after_failure())

    async def _ask(self) -> None:
        """Ask again and again, until there is no answer. The first query is answered at once."""
        client, index = ConsulClient(self._settings), 0
        try:
            while True:
                begin = monotonic()
                found = await client.passing(self._service, index)
                index = found.next_index
                self._answered(found.addresses)
                await asyncio.sleep(max(0.0, begin + _INTERVAL - monotonic()))
        finally:
            await client.aclose()

    def _answered(self, addresses: tuple[tuple[str, int], ...]) -> None:
        if self._problem is not None:
            logger.info("%s: Consul answers again", self._name)
        self._problem, self._contact = None, monotonic()
        self._backoff.reset()
        reason = "" if addresses else f"{self._name}: Consul knows no passing instance of it"
        if self.answer != (answer := Answer(addresses, reason)):
            if reason:
                logger.warning("%s", reason)
            self.answer = answer
            self._changed()

    def _failed(self, error: Exception) -> None:
        kind = type(error).__name__
        self._errors[kind] = self._errors.get(kind, 0) + 1
        text = f"{self._name}: Consul at {self._service.agent.address.authority} cannot be asked: {error}"
        if text != self._problem:
            known = self.answer is not None and self.answer.addresses is not None
            logger.warning("%s: %s", text, "its last endpoints stay" if known else "it has none yet")
        self._problem = text
        if self.answer is None or self.answer.addresses is None:
            self.answer = Answer(None, text)
            self._changed()

    @property
    def _name(self) -> str:
        return f"{self._service.name} in {self._service.agent.datacenter}"
