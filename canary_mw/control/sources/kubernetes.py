"""Rules from a Kubernetes API: annotations of Services and Ingresses, and Mapping objects."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import random
from time import monotonic, thread_time
from weakref import WeakSet

from canary_mw.config.document import UNREACHABLE_CLUSTER, Diagnostic, Document, document_in_error
from canary_mw.control.sources.kubernetes_cache import MAX_AGE, Cache
from canary_mw.control.sources.kubernetes_shared import FollowedView, SharedFiles
from canary_mw.control.sources.kubernetes_url import KubernetesURL
from canary_mw.control.sources.kubernetes_view import ClusterView
from canary_mw.exceptions import ConfigError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.host import HostLogger
from canary_mw.kubernetes.api import preload
from canary_mw.kubernetes.credentials import Connection, in_cluster
from canary_mw.kubernetes.event_writer import EventWriter
from canary_mw.kubernetes.kubeconfig import from_kubeconfig
from canary_mw.locks import Mutex, wait_for
from canary_mw.observability.source_status import SourceStatus
from canary_mw.run_folder.folder import Folder
from canary_mw.upstreams.loop_thread import LoopThread

logger = HostLogger(logging.getLogger("canary_mw.sources"))

# Seconds that the first `load` waits for the API, from its first request: it may be called in the event loop of an app.
_FIRST_WAIT = 2.0
# Seconds between two looks whether to stop, and for what another worker has written. As long as nothing is known they
# come more often.
_LOOK, _SHORT_LOOK = 0.25, 0.05
# Seconds until a process sends its first request, at most.
START_JITTER = 1.0
# Seconds until it sends one in place of a worker that has ended: all of them may be about to end.
_TAKEOVER_DELAY = 0.25


class KubernetesSource:
    """Rules from a Kubernetes API, followed by watches in one thread of its own.

    Only complete lists count: until each kind has been listed there is one Document in error that says why not. What
    was known stays known while the API is away. Of the processes that share a folder one watches, and the others follow
    what it writes there; when it ends, another one watches.

    Args:
        url: see `KubernetesURL`.
        may_exec: whether a kubeconfig may have a command run; the address has to allow it too.
        cache: directory in which the last rules are kept.
        cache_max_age: seconds after which they are too old to start with, by default a day.
        events: whether Events about rules in error are written to their objects.
        folder: returns the run folder of this server; see `run_folder`. By default this process watches for itself.

    Raises:
        ConfigError: the address is wrong, or there are no credentials.

    Attributes:
        name: the address.
        connection: the way to the API.
        namespace: that of this process.
    """

    def __init__(
        self,
        url: KubernetesURL | str,
        *,
        may_exec: bool = False,
        cache: str | None = None,
        cache_max_age: float | None = None,
        events: bool = False,
        folder: Callable[[], Folder | None] | None = None,
    ) -> None:
        self._url = url if isinstance(url, KubernetesURL) else KubernetesURL.parse(url)
        self.name = self._url.text
        self.connection = connect(self._url, may_exec)
        self.namespace = self.connection.namespace
        self._cache = _cache(cache, cache_max_age, self._url, self.connection)
        key = {"address": self.name, "server": self.connection.server, "namespace": self.namespace}
        self._writes_events = events
        self._files = SharedFiles(folder or _no_folder, key)
        # A server starts many processes at once, on many nodes.
        self._jitter = START_JITTER if folder is not None else 0.0
        preload()
        self._thread = LoopThread()
        self._view: ClusterView | FollowedView | None = None
        # What `load` has returned last, and the time of its thread before.
        self._load_began = 0.0
        self._loaded: tuple[Document, ...] | None = None
        # What an earlier view knew.
        self._known: tuple[Document, ...] | None = None
        # Whether this process watches though another one holds the lock, and says nothing.
        self._alone = False
        self._lock = Mutex()
        _sources.add(self)

    def load(self) -> list[Document]:
        """The documents that are known; the first call waits for the API, at most 3 seconds."""
        self._load_began = thread_time()
        limit = monotonic() + _FIRST_WAIT + self._jitter
        view = self._watch()
        while not wait_for(view.settled, min(_SHORT_LOOK, limit - monotonic())) and monotonic() < limit:
            view = self._watch()
        documents = self._loaded = view.documents
        if documents is not None:
            return list(documents)
        hint = "the API is asked again and again"
        return [document_in_error(self._url.text, view.problem, code=UNREACHABLE_CLUSTER, hint=hint)]

    def changes(self, stop: threading.Event) -> Iterator[None]:
        """See `ConfigSource.changes`; the watches end with it."""
        moved = self._watch().moved
        try:
            yield
            while not stop.is_set():
                moved.wait(_LOOK)
                # Another view has another latch, and so has each change of one.
                current = self._watch().moved
                if current is not moved:
                    moved = current
                    yield
        finally:
            self.stop_watching()

    def status(self) -> list[SourceStatus]:
        """How it goes with each kind in each namespace."""
        view = self._view
        return view.status() if view is not None else []

    def applied(self, diagnostics: Sequence[Diagnostic]) -> None:
        """What `load` returned last was applied, and this was found in the rules of all sources."""
        view = self._view
        if isinstance(view, ClusterView):
            view.applied(self._loaded, thread_time() - self._load_began)
            if self._writes_events:
                self._thread.call(view.report, diagnostics)

    def stop_watching(self) -> None:
        """End the watches; what is known stays known."""
        self._thread.stop()
        self._files.release()
        view = self._view
        if view is not None:
            self._view = None
            self._known = view.documents

    def _watch(self) -> ClusterView | FollowedView:
        """What is known. This process begins to watch if no other worker does, or ends it if another one does."""
        ensure_forked_hooks()
        with self._lock:
            view, mine = self._view, self._files.acquire()
            if isinstance(view, FollowedView):
                view.look()
            if mine and not isinstance(view, ClusterView):
                view = self._begin(view)
            elif view is None or (isinstance(view, ClusterView) and not mine and not self._alone):
                view = self._follow(view)
            elif isinstance(view, FollowedView) and view.silent:
                self._alone = True
                view = self._begin(view)
            self._alone = self._alone and not mine
            self._view = view
            return view

    def _begin(self, before: FollowedView | None) -> ClusterView:
        """Watch, from what another worker knew."""
        known = self._known if before is None else before.documents
        events = EventWriter(self.name, self.connection) if self._writes_events else None
        view = ClusterView(self._url, self.connection, self._cache, known, self._files, events)
        self._files.remove_leftovers()
        delay = random() * self._jitter if before is None else _TAKEOVER_DELAY
        self._thread.call(partial(view.start, delay, review=before is None))
        self._log_start()
        return view

    def _follow(self, before: ClusterView | None) -> FollowedView:
        """Follow what another worker writes."""
        self._thread.stop()
        view = FollowedView(self._files, self._known if before is None else before.documents)
        view.look()
        logger.info("%s: another worker of this server watches for all", self._url.text)
        return view

    def _log_start(self) -> None:
        if self.connection.insecure:
            logger.warning("%s: the certificate of the API server is not verified", self._url.text)
        namespaces = ", ".join(self._url.namespaces or (self.connection.namespace,)) or "all namespaces"
        kinds = ", ".join(self._url.kinds)
        for_whom = "each process does so by itself" if self._files.lock.folder is None else "for all workers"
        text = "%s: watching %s in %s at %s; %s"
        logger.info(text, self._url.text, kinds, namespaces, self.connection.server, for_whom)

    def _reset(self) -> None:
        self._thread.reset_after_fork()
        self._lock = Mutex()
        view, self._view = self._view, None
        if view is not None:
            self._known = view.documents
            _inherited_views.append(view)


def _no_folder() -> None:
    """The folder of a process that shares nothing."""


# Views of the parent in a forked child. They are never freed: that would close connections in the loop of the parent.
_inherited_views: list[ClusterView | FollowedView] = []


def connect(url: KubernetesURL, may_exec: bool) -> Connection:
    """The way to the API of an address.

    Raises:
        ConfigError: there are no credentials.
    """
    try:
        if url.kubeconfig is None:
            if url.context:
                raise ConfigError("a context is one of a kubeconfig", hint="name ?kubeconfig=FILE too")
            return in_cluster()
        path = os.environ.get("KUBECONFIG", "") if url.kubeconfig == "env" else url.kubeconfig
        if not path:
            raise ConfigError("KUBECONFIG is not set", hint="name ?kubeconfig=FILE")
        return from_kubeconfig(path, url.context, may_exec=may_exec and url.may_exec)
    except (ConfigError, OSError) as exc:
        raise ConfigError(f"{url.text}: {exc}") from exc


def _cache(directory: str | None, max_age: float | None, url: KubernetesURL, connection: Connection) -> Cache | None:
    if not directory:
        return None
    if not os.path.isdir(directory):
        raise ConfigError(f"the cache {directory} is no directory", hint="create it, or mount an emptyDir there")
    namespaces = url.namespaces or (connection.namespace,)
    key = {"server": connection.server, "namespaces": namespaces, "selector": url.selector, "kinds": url.kinds}
    return Cache(directory, key, max_age or MAX_AGE)


_sources: WeakSet[KubernetesSource] = WeakSet()


def _after_fork() -> None:
    for source in _sources:
        source._reset()


after_fork(_after_fork)
