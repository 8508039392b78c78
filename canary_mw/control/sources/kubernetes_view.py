"""The rules of a cluster as they are known, kept by one event loop and read by any thread."""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Sequence
from time import monotonic, time

from canary_mw.config.document import Diagnostic, Document
from canary_mw.control.sources.kubernetes_cache import Cache
from canary_mw.control.sources.kubernetes_documents import document_of, in_order, problems_of
from canary_mw.control.sources.kubernetes_shared import STATUS_INTERVAL, SharedFiles, Snapshot
from canary_mw.control.sources.kubernetes_url import KubernetesURL
from canary_mw.host import HostLogger
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.event_writer import EventWriter
from canary_mw.kubernetes.kinds import KINDS, MAPPINGS
from canary_mw.kubernetes.left_out import LeftOut
from canary_mw.kubernetes.pace import Pace
from canary_mw.kubernetes.reflector import Reflector
from canary_mw.kubernetes.rights import missing_rights
from canary_mw.kubernetes.watch import Follower
from canary_mw.locks import Latch
from canary_mw.observability.source_status import DELAY_BOUNDS, SourceStatus

logger = HostLogger(logging.getLogger("canary_mw.sources"))

# Seconds after which a start takes the rules of the cache, a failure is logged, and the cache is written.
_CACHE_AFTER, _LOG_AFTER, _WRITE_AFTER = 5.0, 1.0, 1.0


class ClusterView:
    """What is known of the objects of a `k8s://` address.

    Args:
        documents: what is known from before, None for nothing.
        files: what other workers of this server follow, written here.
        events: writes about rules in error, if anybody does.

    Attributes:
        documents: those of the last complete lists; None as long as there are none.
        cache_age_since: time of the cache that `documents` are of, None for documents of the API.
        settled: set once there are documents, or a reason why there are none.
        moved: set when `documents` or `problem` change; another latch takes its place then.
    """

    def __init__(
        self,
        url: KubernetesURL,
        connection: Connection,
        cache: Cache | None,
        documents: tuple[Document, ...] | None,
        files: SharedFiles,
        events: EventWriter | None = None,
    ) -> None:
        self.documents = documents
        self.cache_age_since: float | None = None
        self.settled, self.moved = Latch(), Latch()
        self.problem = "the API has not answered yet"
        if documents is not None:
            self.settled.set()
        self._url, self._connection, self._cache, self._files = url, connection, cache, files
        self._followers = [
            Follower(reflector, connection, url.selector, self._changed)
            for reflector in _reflectors(url, connection.namespace)
        ]
        self._left_out = self._left_out_by(connection)
        self._events = events
        # When what is not in force yet has arrived, and how long that took: counts by bound, and their sum.
        self._arrived: float | None = None
        self._delays, self._delay_sum = [0] * (len(DELAY_BOUNDS) + 1), 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._batch: asyncio.TimerHandle | None = None
        self._first_change = 0.0
        self._pace = Pace()
        self._write: asyncio.TimerHandle | None = None
        # Those whose failure is logged, and those that are looked at soon.
        self._logged: set[Follower] = set()
        self._logging: set[Follower] = set()

    def start(self, delay: float, *, review: bool) -> None:
        """Begin to watch, in the running event loop.

        Args:
            delay: seconds before the first request.
            review: whether to say which rights are missing.
        """
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each.run(delay)) for each in self._followers]
        self._tasks += self._left_out.start() if self._left_out is not None else []
        if review:
            self._tasks.append(loop.create_task(self._review_rights(delay)))
        self._beat()
        if self._events is not None:
            self._tasks.append(loop.create_task(self._events.run()))
        if self._cache is not None:
            loop.call_later(_CACHE_AFTER, self._take_cache)

    def _left_out_by(self, connection: Connection) -> LeftOut | None:
        mappings = [each.reflector for each in self._followers if each.reflector.kind is MAPPINGS]
        if not self._url.selector or not mappings:
            return None
        namespaces = [each.namespace for each in mappings]
        return LeftOut(
            self._url.text, connection, namespaces, lambda: {key for each in mappings for key in each.objects}
        )

    async def _review_rights(self, delay: float) -> None:
        """Say which rights are missing. The answers of lists and watches decide."""
        await asyncio.sleep(delay)
        wanted = [(each.reflector.kind, each.reflector.namespace) for each in self._followers]
        for rule in await missing_rights(self._connection, wanted):
            logger.warning("%s: a right is missing; add this rule to its %s", self._url.text, rule)

    def status(self) -> list[SourceStatus]:
        """How it goes with each kind and namespace."""
        age = None if self.cache_age_since is None else max(0.0, time() - self.cache_age_since)
        return [self._status(each, age) for each in self._followers]

    def _status(self, follower: Follower, cache_age: float | None) -> SourceStatus:
        reflector, contact = follower.reflector, follower.last_contact
        return SourceStatus(
            source=self._url.text,
            kind=reflector.kind.plural,
            namespace=reflector.namespace or "*",
            synced=reflector.complete and reflector.error is None,
            version=reflector.version,
            objects=len(reflector.objects),
            last_contact=None if contact is None else monotonic() - contact,
            cache_age=cache_age,
            relists=dict(reflector.relists),
            errors=dict(reflector.errors),
            error=reflector.error,
            delays=tuple(self._delays),
            delay_sum=self._delay_sum,
        )

    def applied(self, documents: tuple[Document, ...] | None, cost: float) -> None:
        """These documents are in force; called by the thread that reads them.

        Args:
            cost: seconds of a processor that it took.
        """
        self._pace.took(cost)
        arrived = self._arrived
        if arrived is not None and documents is self.documents:
            self._arrived = None
            seconds = monotonic() - arrived
            self._delays[bisect_left(DELAY_BOUNDS, seconds)] += 1
            self._delay_sum += seconds

    def report(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Write Events about what was found, in the running event loop."""
        if self._events is not None and self.documents is not None:
            self._events.add(problems_of(diagnostics, self.documents))

    def _changed(self) -> None:
        """Something may have changed; called after each answer."""
        loop, now = asyncio.get_running_loop(), monotonic()
        self._log_soon()
        if self._left_out is not None:
            self._left_out.look_soon()
        if self._incomplete():
            self._tell_problem()
            return
        if self._batch is None:
            self._first_change = now
        else:
            self._batch.cancel()
        first_time = self.documents is None or self.cache_age_since is not None
        delay = 0.0 if first_time else self._pace.delay(now, self._first_change)
        self._batch = loop.call_later(delay, self._publish)

    def _incomplete(self) -> list[Reflector]:
        incomplete = [each.reflector for each in self._followers if not each.reflector.complete]
        return incomplete or self._perhaps_readable()

    def _perhaps_readable(self) -> list[Reflector]:
        """The kinds that the first table would leave out for a right that is missing, where that is not certain.

        Where nothing may be read, nothing is known: that is no empty namespace. A right that was given meanwhile may be
        newer than the refusal: each kind is asked for again, for half of the objects may be all of gray.
        """
        if self.documents is not None and self.cache_age_since is None:
            return []
        listed = [each.listed_at for each in self._followers if each.listed_at is not None]
        denied = [each for each in self._followers if each.reflector.denied and not each.reflector.listed]
        unsure = [each for each in denied if not listed or each.denied_at < max(listed)]
        for each in unsure if listed else ():
            each.hurry()
        return [each.reflector for each in unsure]

    def _tell_problem(self) -> None:
        problems = [f"{_place(each)}: {each.error}" for each in self._incomplete() if each.error]
        if problems and problems[0] != self.problem:
            self.problem = problems[0]
            self._move()

    def _publish(self) -> None:
        self._batch = None
        documents = in_order(d for each in self._followers for d in each.reflector.objects.values())
        if documents == self.documents and self.cache_age_since is None:
            return
        if self.documents is not None and self._arrived is None:
            self._arrived = self._first_change
        self.documents, self.cache_age_since = documents, None
        self._pace.published(monotonic())
        self._move()
        if self._cache is not None and self._write is None:
            self._write = asyncio.get_running_loop().call_later(_WRITE_AFTER, self._write_cache)

    def _move(self) -> None:
        moved, self.moved = self.moved, Latch()
        moved.set()
        self.settled.set()
        self._write_shared(changed=True)

    def _beat(self) -> None:
        """Tell the other workers, again and again, that this process watches."""
        self._write_shared(changed=False)
        asyncio.get_running_loop().call_later(STATUS_INTERVAL, self._beat)

    def _write_shared(self, *, changed: bool) -> None:
        snapshot = Snapshot(self.documents, self.problem) if self.settled.is_set() else None
        self._files.write(snapshot, self.status(), changed=changed)

    def _take_cache(self) -> None:
        if self.documents is not None or self._cache is None:
            return
        try:
            cached = self._cache.read()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as exc:
            logger.warning("%s: the cache %s is not used: %s", self._url.text, self._cache.path, exc)
            return
        self.documents, self.cache_age_since = cached.documents, cached.written
        age = time() - cached.written
        logger.warning("%s: no answer yet; the rules of %.0f s ago are taken from the cache", self._url.text, age)
        self._move()

    def _write_cache(self) -> None:
        self._write = None
        if self._cache is None or self.documents is None:
            return
        versions = {each.reflector.kind.plural: each.reflector.version for each in self._followers}
        try:
            self._cache.write(self.documents, versions)
        except OSError as exc:
            logger.warning("%s: the cache %s cannot be written: %s", self._url.text, self._cache.path, exc)

    def _log_soon(self) -> None:
        """Log failures that last: a watch that is opened again at once is none."""
        for follower in self._followers:
            differs = (follower.reflector.error is None) == (follower in self._logged)
            if differs and follower not in self._logging:
                self._logging.add(follower)
                asyncio.get_running_loop().call_later(_LOG_AFTER, self._log, follower)

    def _log(self, follower: Follower) -> None:
        self._logging.discard(follower)
        reflector, place = follower.reflector, _place(follower.reflector)
        if reflector.error is None and follower in self._logged:
            self._logged.remove(follower)
            logger.info("%s: %s are watched again", self._url.text, place)
        elif reflector.error is not None and follower not in self._logged:
            self._logged.add(follower)
            logger.warning("%s: %s are not watched: %s", self._url.text, place, reflector.error)


def _reflectors(url: KubernetesURL, own_namespace: str) -> Sequence[Reflector]:
    return [
        Reflector(
            KINDS[plural],
            namespace,
            optional=not url.kinds_named,
            keep=document_of(KINDS[plural], last_stays=url.keep_last),
        )
        for plural in url.kinds
        for namespace in url.namespaces or (own_namespace,)
    ]


def _place(reflector: Reflector) -> str:
    return f"{reflector.kind.plural} in {reflector.namespace or 'all namespaces'}"
