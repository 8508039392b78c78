"""States in a SQLite file, which the processes of one host share."""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from collections.abc import Mapping as Dict
from contextlib import contextmanager, suppress
from typing import TypeVar
from weakref import WeakSet, finalize

from canary_mw.control.rollouts.settings import NAME, is_stopped
from canary_mw.control.rollouts.store import LocalStore, Row, Stored
from canary_mw.exceptions import NewerFormat, StateError, StoreAway
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.locks import Mutex
from canary_mw.rollout.state import ReleaseState, from_json, to_json
from canary_mw.run_folder.folder import Folder

T = TypeVar("T")

# Of the tables. A newer one may mean something else by them.
FORMAT = 1
# Seconds for which a write waits for another one.
_PATIENCE = 0.5
_TABLES = f"""
begin immediate;
create table if not exists store (identity text not null);
create table if not exists states (name text primary key, version integer not null, state text not null);
create table if not exists checkpoints (name text primary key, data blob not null);
insert into store select '%s' where not exists (select * from store);
pragma user_version = {FORMAT};
commit;
"""


class SQLiteStore(LocalStore):
    """A `StateStore` in a folder.

    Args:
        folder: of this user alone, on a disk of this host.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._path = os.path.join(folder.path, NAME)
        self._reset()
        _stores.add(self)

    def _reset(self) -> None:
        self._lock = Mutex()
        self._connection: sqlite3.Connection | None = None
        self._file: _File | None = None
        self._seen: object = None

    def load(self) -> Stored:
        """See `StateStore.load`."""
        with self._opened() as connection:
            self._seen = self._mark(connection)
            rows = connection.execute("select name, version, state from states").fetchall()
            (identity,) = connection.execute("select identity from store").fetchone()
            newer_tables = connection.execute("pragma user_version").fetchone()[0] > FORMAT
        return _stored(rows, identity, stopped=self._is_stopped(), newer_tables=newer_tables)

    def compare_and_set(self, name: str, state: ReleaseState, version: int | None) -> int | None:
        """See `StateStore.compare_and_set`."""
        text = to_json(state)
        with self._opened() as connection:
            self._check_format(connection)
            if version is None:
                done = connection.execute("insert or ignore into states values (?, 1, ?)", (name, text))
            else:
                change = "update states set version = version + 1, state = ? where name = ? and version = ?"
                done = connection.execute(change, (text, name, version))
            return (version or 0) + 1 if done.rowcount == 1 else None

    def checkpoint(self, name: str, data: bytes) -> None:
        """See `StateStore.checkpoint`."""
        with self._opened() as connection:
            self._check_format(connection)
            connection.execute("insert or replace into checkpoints values (?, ?)", (name, data))

    def checkpoints(self) -> Dict[str, bytes]:
        """See `StateStore.checkpoints`."""
        with self._opened() as connection:
            return dict(connection.execute("select name, data from checkpoints").fetchall())

    def has_changed(self) -> bool:
        """See `StateStore.has_changed`."""
        with self._opened() as connection:
            return self._mark(connection) != self._seen

    def _check_format(self, connection: sqlite3.Connection) -> None:
        if connection.execute("pragma user_version").fetchone()[0] > FORMAT:
            raise StoreAway(f"{self._path} was written by a newer version of canary-mw")

    def _mark(self, connection: sqlite3.Connection) -> object:
        """What changes with every write of others, and with the stop."""
        return connection.execute("pragma data_version").fetchone(), id(self._file), self._is_stopped()

    def _is_stopped(self) -> bool:
        return is_stopped(self._folder)

    def close(self) -> None:
        """See `StateStore.close`."""
        ensure_forked_hooks()
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        ensure_forked_hooks()
        with self._lock:
            try:
                yield self._current()
            except (sqlite3.Error, OSError) as exc:
                self._close()
                raise StoreAway(f"{self._path} cannot be used: {exc}") from exc

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that has the name now."""
        if self._connection is not None and self._file is not None and self._file.is_in(self._folder):
            return self._connection
        self._close()
        # SQLite would make it with the rights that the process gives to other files.
        with suppress(FileExistsError):
            os.close(self._folder.create(NAME))
        self._file = _File(self._folder)
        self._connection = _connected(self._path)
        return self._connection


class _File:
    """The file of a folder, as long as this object lives: its number is given to no other file meanwhile."""

    def __init__(self, folder: Folder) -> None:
        # To close a descriptor of any other kind would give up the locks that SQLite has on the file.
        self._descriptor = folder.open(NAME, os.O_PATH)
        finalize(self, os.close, self._descriptor).atexit = False

    def is_in(self, folder: Folder) -> bool:
        """Whether the file has its name still."""
        with suppress(FileNotFoundError):
            return os.path.samestat(folder.stat(NAME), os.fstat(self._descriptor))
        return False


def _connected(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("pragma user_version").fetchone()[0] == 0:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(_TABLES % secrets.token_hex(8))
    except BaseException:
        connection.close()
        raise
    return connection


def _stored(rows: list[tuple[str, int, str]], identity: str, *, stopped: bool, newer_tables: bool) -> Stored:
    states: dict[str, Row] = {}
    newer: set[str] = set()
    unreadable: dict[str, str] = {}
    for name, version, text in rows:
        try:
            states[name] = Row(from_json(text), version)
        except NewerFormat:
            newer.add(name)
        except StateError as exc:
            unreadable[name] = str(exc)
    if newer_tables:
        newer |= {name for name, *_ in rows}
    return Stored(states=states, stopped=stopped, newer=frozenset(newer), unreadable=unreadable, identity=identity)


_stores: WeakSet[SQLiteStore] = WeakSet()
# Connections of a parent: SQLite must not use or close them in a child.
_of_parents: list[sqlite3.Connection] = []


def _after_fork() -> None:
    for store in _stores:
        if store._connection is not None:
            _of_parents.append(store._connection)
        store._reset()


after_fork(_after_fork)
