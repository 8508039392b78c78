"""The rules in force, kept in one route table. A reload builds a new table and puts it in force by one assignment."""

import logging
import os
from collections.abc import Callable, Collection, Sequence
from collections.abc import Mapping as Dict
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING
from weakref import WeakMethod, WeakSet, ref

from canary_mw.config.document import EMPTY_DIRECTORY, Diagnostic, Document
from canary_mw.config.variables import listed_variables
from canary_mw.control.differences import all_were_deleted, content_of, counted_of, difference, same_mappings
from canary_mw.control.errors import emptied_error, error_of, what_stays
from canary_mw.control.findings import log_new, log_table
from canary_mw.control.following import Tick, TickingLatch, follow
from canary_mw.control.id_files import IdFiles
from canary_mw.control.sources.base import ConfigSource
from canary_mw.exceptions import ConfigError
from canary_mw.forking import JOIN_TIMEOUT, SystemThread, after_fork, ensure_forked_hooks, start_thread
from canary_mw.host import HostLogger, call_host
from canary_mw.inspection.changes import describe_changes
from canary_mw.locks import Latch, Mutex, wait_for
from canary_mw.observability.events import Reloaded
from canary_mw.observability.observers import Observer, notify
from canary_mw.observability.source_status import SourceStatus
from canary_mw.routing.releases.override import NO_OVERRIDES, Overrides
from canary_mw.routing.table import RouteTable

if TYPE_CHECKING:
    from canary_mw.config.parser import RuleSet

logger = HostLogger(logging.getLogger("canary_mw.store"))


class RuleStore:
    """Keeps the route table of the last good rules of a source.

    Nothing is read before `reload` or `start`. If newer rules have errors, the last good ones stay in force and `error`
    says why. It is None again once the source has no error.

    Args:
        source: where the rules come from.
        local: names of the service of this process; see `RouteTable.build`.
        middleware: whether a wrapped app gets the requests that no rule matches; see `RouteTable.build`.
        environ: values for the `$NAME` and `${NAME}` of rules. By default the variables of the process that are listed
            in its `CANARY_MW_ENV_NAMES`: whoever edits rules must not read the environment of an app.
        ambassador_id: only documents for this id are used.
        allow_empty: a source that lost every Mapping empties the table, instead of being an error. A source that is
            missing or unreadable is always an error.
        observers: notified of every reload that changed the table or `error`; an attribute, to add others later.

    Attributes:
        table: the table in force. A request reads the attribute once, and uses that table to its end.
        generation: number of tables in force so far; 0 before the first good load.
        source: as given.
        error: why the newest state of the source is not in force, or only in part.
        diagnostics: all findings about the rules in force.
        since: when the table came into force, in seconds since 1970; 0 before the first good load.
        rules: what was read for it, with the texts; None before.
        ticks: what its thread does besides, between two looks at the source; filled before `start`.
    """

    def __init__(
        self,
        source: ConfigSource,
        *,
        local: Collection[str] = (),
        middleware: bool = False,
        environ: Dict[str, str] | None = None,
        ambassador_id: str = "default",
        allow_empty: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        # With the parser comes pydantic, whose schemas take longer than all other imports of a middleware. It is loaded
        # before the first request, and before a server forks its workers, which then share its memory.
        import canary_mw.config.parser  # noqa: F401

        self.generation, self.since = 0, 0.0
        self.error: ConfigError | None = None
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self.source = source
        self._environ = environ
        self._ambassador_id = ambassador_id
        self._allow_empty = allow_empty
        self.observers = tuple(observers)
        self.ticks: list[Tick] = []
        self.rules: RuleSet | None = None
        self._followers: set[WeakMethod[Callable[[RouteTable], object]]] = set()
        self._overrides: Overrides = NO_OVERRIDES
        self.table = RouteTable.build((), local=local, middleware=middleware)
        self._reset()
        _stores.add(self)

    @property
    def source_name(self) -> str:
        """What the source is called in the log: its `name`, or else its type."""
        return str(getattr(self.source, "name", None) or type(self.source).__name__)

    def _reset(self) -> None:
        """Create what each process has for itself.

        In a forked child the thread is gone, a lock may be held forever, and a reload may be incomplete: without
        `_documents` the next reload reads everything.
        """
        self._documents: list[Document] | None = None
        self._id_files = IdFiles()
        self._thread: SystemThread | None = None
        self._starting = Mutex()
        self._reloading = Mutex()
        # Set when the next table is in force; another one takes its place then.
        self._published = Latch()

    def start(self) -> None:
        """Load, and follow the source from now on. A second call does nothing; a forked child has to call it again.

        The first load runs in the calling thread, so that the rules are in force on return; later ones in a thread.
        """
        ensure_forked_hooks()
        if self._thread is None:
            with self._starting:
                self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        if not self.generation:
            self.reload()
        stop = TickingLatch(ref(self)) if self.ticks else Latch()
        self._thread = start_thread(
            partial(follow, ref(self), self.source, stop), "canary-mw-rules", stop=stop.set, owner=self
        )

    def stop(self) -> None:
        """Stop following the source; the table stays. `start` follows it again."""
        ensure_forked_hooks()
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is None or thread.stop is None:
            # A `load` may have begun to watch.
            getattr(self.source, "stop_watching", bool)()
            return
        thread.stop()
        if not thread.is_current():
            thread.join(JOIN_TIMEOUT)

    def tell(self, take_table: Callable[[RouteTable], object]) -> None:
        """Call a method with each table that is put in force from now on; its object is not kept."""
        self._followers.add(WeakMethod(take_table))

    def source_status(self) -> list[SourceStatus]:
        """How it goes with what is watched over a network; empty for files."""
        status: Callable[[], list[SourceStatus]] | None = getattr(self.source, "status", None)
        return status() if status is not None else []

    def wait(self, generation: int, timeout: float | None = None) -> bool:
        """Block until table number `generation` or a later one is in force; False after `timeout` seconds."""
        limit = None if timeout is None else monotonic() + timeout
        while True:
            # Read before `generation`, which changes first.
            published = self._published
            if self.generation >= generation:
                return True
            if not wait_for(published, None if limit is None else limit - monotonic()):
                return self.generation >= generation

    def reload(self) -> bool:
        """Read the source, and put its rules in force if they differ from the current ones.

        Returns:
            Whether a new table is in force. Errors in the rules are not raised; see `error`.
        """
        with self._reloading:
            try:
                documents = self._load()
                if documents == self._documents and not self._id_files.changed():
                    return self._keep_table(error_of(self.diagnostics), logged=True)
                changed = self._apply(documents)
                getattr(self.source, "applied", bool)(self.diagnostics)
                return changed
            except ConfigError as exc:
                return self._keep_table(exc)
            except Exception as exc:
                error = ConfigError(f"the rules could not be worked out: {type(exc).__name__}: {exc}")
                if str(error) != str(self.error):
                    logger.exception("reloading failed")
                return self._keep_table(error)

    def _load(self) -> list[Document]:
        allowed = EMPTY_DIRECTORY if self._allow_empty else ""
        return [each for each in self.source.load() if each.error is None or each.error.code != allowed]

    def _apply(self, documents: list[Document]) -> bool:
        from canary_mw.config.parser import parse

        id_files = IdFiles(self._id_files)
        listed = listed_variables(os.environ if self._environ is None else self._environ)
        rules = parse(
            documents,
            environ=listed if self._environ is None else self._environ,
            listed=listed,
            ambassador_id=self._ambassador_id,
            middleware=self.table.middleware,
            previous=self.rules,
            read_ids=id_files.read,
        )
        current = self.table.mappings
        if current and not rules.mappings and not self._allow_empty and not all_were_deleted(self.rules, current):
            raise error_of(rules.diagnostics) or emptied_error(documents)
        first = not self.generation and not error_of(rules.diagnostics)
        settings = rules.shared.settings
        changed = first or settings != self.table.settings or rules.releases != self.table.documents
        changed = changed or not same_mappings(current, rules.mappings)
        new = rules.mappings, settings, rules.releases, self._overrides
        table = self.table.rebuild(*new) if changed else self.table
        self._documents, self.rules, self._id_files = documents, rules, id_files
        log_new(logger, rules.diagnostics + table.diagnostics, self.diagnostics)
        self.diagnostics = rules.diagnostics + table.diagnostics
        if not changed:
            return self._keep_table(error_of(self.diagnostics), logged=True)
        self._publish(table, difference(current, rules.mappings))
        return True

    def override(self, overrides: Overrides) -> bool:
        """Give releases other weights than their documents have, from now on; returns whether a new table is in force.

        Args:
            overrides: of all releases that have one; those of releases that do not exist count once these do.
        """
        with self._reloading:
            if overrides == self._overrides:
                return False
            self._overrides, table = overrides, self.table
            new = table.rebuild(table.mappings, table.settings, table.documents, overrides)
            if not self.generation or new.releases == table.releases:
                return False
            self._publish(new, difference((), ()))
            return True

    def _publish(self, table: RouteTable, difference: dict[str, tuple[str, ...]]) -> None:
        before, was_in_error = self.table, self.error is not None
        self.error = error_of(self.diagnostics)
        self.table, self.since = table, time()
        self.generation += 1
        published, self._published = self._published, Latch()
        published.set()
        for take_table in filter(None, [each() for each in self._followers]):
            take_table(table)
        lines = tuple(describe_changes(before, table)) if self.generation > 1 else ()
        log_table(logger, self.generation, difference, lines)
        if was_in_error and self.error is None:
            logger.info("rules are clean again: rules %d are in force", self.generation)
        self._notify(difference, lines)

    def _keep_table(self, error: ConfigError | None, *, logged: bool = False) -> bool:
        """Leave the table as it is; log `error` and notify the observers if it changed."""
        if str(error) == str(self.error):
            return False
        self.error = error
        if error is None:
            logger.info("rules are clean again: rules %d are in force", self.generation)
        elif not logged or not self.generation:
            logger.error("%s: %s", what_stays(self.generation, middleware=self.table.middleware), error)
        self._notify({})
        return False

    def add_counters(self, counters: Observer, tick: Tick | None) -> None:
        """Notify an observer, from now on, unless it is already, and call its `tick` in the thread of this store."""
        if tick is not None and tick not in self.ticks:
            self.ticks.append(tick)
        if counters not in self.observers:
            self.observers = (*self.observers, counters)
            if self.generation:
                call_host(notify, (counters,), self._record({}))

    def _notify(self, difference: dict[str, tuple[str, ...]], lines: tuple[str, ...] = ()) -> None:
        call_host(notify, self.observers, self._record(difference, lines))

    def _record(self, difference: dict[str, tuple[str, ...]], lines: tuple[str, ...] = ()) -> Reloaded:
        return Reloaded(
            generation=self.generation,
            diagnostics=self.diagnostics,
            error=self.error,
            content=content_of(self._documents or (), self.table),
            lines=lines,
            **{**counted_of(self.table), **difference},
        )


_stores: WeakSet[RuleStore] = WeakSet()


def _after_fork() -> None:
    for store in _stores:
        store._reset()


after_fork(_after_fork)
