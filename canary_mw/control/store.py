"""The rules in force: the only state of the package that changes, and it changes by one assignment."""

import atexit
import logging
import os
import threading
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Mapping as Dict
from weakref import WeakSet

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.control.gc_pause import gc_paused
from canary_mw.control.sources.base import ConfigSource, EmptySource
from canary_mw.exceptions import ConfigError, SourceError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.observability.events import Reloaded
from canary_mw.observability.observers import Observer, notify
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping

logger = logging.getLogger("canary_mw.store")

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "notice": logging.INFO}
_AFTER_TROUBLE = 1.0
_JOIN = 5.0


class RuleStore:
    """Keeps the table of the newest good rules of a source.

    Nothing is read before `reload` or `start`. Whatever is wrong with newer rules, the last good ones stay in force and
    `error` says why; it is None again as soon as the source is clean.

    Args:
        source: where the rules come from.
        local: names of the service that this process is; see `RouteTable.build`.
        middleware: whether a wrapped app takes what the rules leave; see `RouteTable.build`.
        environ: values for the `${NAME}` of rules, the environment of the process by default.
        ambassador_id: only documents for this id count.
        allow_empty: a source that lost every Mapping empties the table, instead of being an error; one that
            is missing or unreadable is an error all the same.
        observers: told of every reload that changed something.

    Attributes:
        table: the table in force; a request reads it once and keeps what it read.
        generation: how many tables were in force so far; 0 while nothing good was loaded.
        error: why the newest state of the source is not, or not wholly, in force.
        diagnostics: all findings about the rules in force.
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
        self.generation = 0
        self.error: ConfigError | None = None
        self.diagnostics: tuple[Diagnostic, ...] = ()
        self._source = source
        self._environ = os.environ if environ is None else environ
        self._ambassador_id = ambassador_id
        self._allow_empty = allow_empty
        self._observers = tuple(observers)
        self._rules: RuleSet | None = None
        self.table = RouteTable.build((), local=local, middleware=middleware)
        self._begin()
        _stores.add(self)

    def _begin(self) -> None:
        """What each process has for itself.

        In a forked child the thread is gone, a lock may be held for ever, and a reload may have got half-way: without
        `_documents` the next one is done whole.
        """
        self._documents: list[Document] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self._moved = threading.Condition()

    def start(self) -> None:
        """Load, and follow the source from now on; harmless when done already, and to be repeated in a forked child.

        The first load is done by the caller, so that the rules are in force on return; a thread does the later ones.
        """
        ensure_forked_hooks()
        if self._thread is None:
            with self._lock:
                self._start()

    def _start(self) -> None:
        if self._thread is not None:
            return
        if not self.generation:
            self.reload()
        self._stop = threading.Event()
        thread = threading.Thread(target=self._follow, args=(self._stop,), name="canary-mw-rules", daemon=True)
        thread.start()
        # A thread inside native code must be gone before the interpreter is.
        atexit.register(self.stop)
        self._thread = thread

    def stop(self) -> None:
        """Follow the source no longer; the table stays. `start` begins again."""
        ensure_forked_hooks()
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
        atexit.unregister(self.stop)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    def wait(self, generation: int, timeout: float | None = None) -> bool:
        """Block until table number `generation`, or a later one, is in force; False when `timeout` seconds passed."""
        with self._moved:
            return self._moved.wait_for(lambda: self.generation >= generation, timeout)

    def _follow(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                for _ in self._source.changes(stop):
                    self.reload()
                return
            except Exception:
                logger.exception("following the rules failed; trying again")
                stop.wait(_AFTER_TROUBLE)

    def reload(self) -> bool:
        """Read the source, and put its rules in force where they differ from the running ones.

        Returns:
            Whether a new table is in force. What is wrong with the rules never raises: see `error`.
        """
        with self._lock:
            try:
                documents = self._load()
                if documents == self._documents:
                    return self._keep(_error_of(self.diagnostics), logged=True)
                with gc_paused():
                    return self._adopt(documents)
            except ConfigError as exc:
                return self._keep(exc)
            except Exception as exc:
                error = ConfigError(f"the rules could not be worked out: {type(exc).__name__}: {exc}")
                if str(error) != str(self.error):
                    logger.exception("reloading failed")
                return self._keep(error)

    def _load(self) -> list[Document]:
        try:
            return self._source.load()
        except EmptySource as exc:
            if self._allow_empty:
                return exc.documents
            raise

    def _adopt(self, documents: list[Document]) -> bool:
        rules = parse(documents, environ=self._environ, ambassador_id=self._ambassador_id, previous=self._rules)
        running = self.table.mappings
        if running and not rules.mappings and not self._allow_empty:
            raise _error_of(rules.diagnostics) or _emptied(documents)
        first = not self.generation and not _error_of(rules.diagnostics)
        settings = rules.shared.settings
        swap = first or settings != self.table.settings or not _identical(running, rules.mappings)
        table = self.table.rebuild(rules.mappings, settings) if swap else self.table
        self._documents, self._rules = documents, rules
        self._log_new(rules.diagnostics + table.diagnostics)
        self.diagnostics = rules.diagnostics + table.diagnostics
        if not swap:
            return self._keep(_error_of(self.diagnostics), logged=True)
        self._publish(table, _difference(running, rules.mappings))
        return True

    def _publish(self, table: RouteTable, difference: dict[str, tuple[str, ...]]) -> None:
        self.error = _error_of(self.diagnostics)
        self.table = table
        with self._moved:
            self.generation += 1
            self._moved.notify_all()
        counts = ", ".join(f"{len(names)} {what}" for what, names in difference.items())
        logger.info("rules %d are in force: %s", self.generation, counts)
        self._notify(difference)

    def _keep(self, error: ConfigError | None, *, logged: bool = False) -> bool:
        """Leave the table as it is; tell of `error` where that is news."""
        if str(error) == str(self.error):
            return False
        self.error = error
        if error is None:
            logger.info("the source is clean again; rules %d are in force", self.generation)
        elif not logged:
            logger.error("rules %d stay in force: %s", self.generation, error)
        self._notify({})
        return False

    def _notify(self, difference: dict[str, tuple[str, ...]]) -> None:
        record = Reloaded(generation=self.generation, diagnostics=self.diagnostics, error=self.error, **difference)
        notify(self._observers, record)

    def _log_new(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        known = set(self.diagnostics)
        for diagnostic in diagnostics:
            if diagnostic not in known:
                logger.log(_LEVELS[diagnostic.severity], "%s", diagnostic)


def _error_of(diagnostics: Iterable[Diagnostic]) -> ConfigError | None:
    errors = [each for each in diagnostics if each.severity == "error"]
    if not errors:
        return None
    first = errors[0]
    # A ConfigError names its Mapping itself.
    message = first.message.removeprefix(f"Mapping {first.mapping}: ")
    more = f"; and {len(errors) - 1} more, see the diagnostics" if len(errors) > 1 else ""
    return ConfigError(message + more, file=first.file, line=first.line, mapping=first.mapping, hint=first.hint)


def _emptied(documents: list[Document]) -> SourceError:
    names = ", ".join(document.name for document in documents[:3])
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    return SourceError(f"no Mapping is left in {names}{more}", hint="allow_empty lets the last one be removed")


def _difference(before: Iterable[Mapping], after: Iterable[Mapping]) -> dict[str, tuple[str, ...]]:
    old, new = _named(before, after), _named(after, before)
    return {
        "added": tuple(name for name in new if name not in old),
        "removed": tuple(name for name in old if name not in new),
        "changed": tuple(name for name in new if name in old and old[name] != new[name]),
    }


def _named(mappings: Iterable[Mapping], others: Iterable[Mapping]) -> dict[str, Mapping]:
    """By name, but for those that are among the others, too."""
    same = set(map(id, others))
    return {f"{mapping.name}.{mapping.namespace}": mapping for mapping in mappings if id(mapping) not in same}


def _identical(before: Sequence[Mapping], after: Sequence[Mapping]) -> bool:
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(
        one is other or (one == other and (one.file, one.line) == (other.file, other.line)) for one, other in pairs
    )


_stores: WeakSet[RuleStore] = WeakSet()


def _after_fork() -> None:
    for store in _stores:
        store._begin()


after_fork(_after_fork)
