"""Where the states of releases lie: in a folder that is named, a cluster, the run folder, or this process."""

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from collections.abc import Mapping as Dict
from typing import Literal, NamedTuple

from canary_mw.control.rollouts.latch import Latches
from canary_mw.control.rollouts.memory import MemoryStore
from canary_mw.control.rollouts.settings import SINGLE, Surroundings, is_cluster
from canary_mw.control.rollouts.store import StateStore
from canary_mw.host import HostLogger
from canary_mw.run_folder.folder import Folder

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

Kind = Literal["named", "run folder", "memory", "cluster"]
_LOCK_TEST = "lock-test"


class Opened(NamedTuple):
    """A place that is in use.

    Attributes:
        folder: None for the memory of this process; beside a cluster it holds the latches, and is the run folder.
        where: the place, in words.
    """

    kind: Kind
    folder: Folder | None
    store: StateStore
    latches: Latches
    where: str


class Place:
    """Where the states lie.

    Args:
        named: the setting.
        run_folder: returns the run folder as it is now, None without one.
        releases: see `ClusterStore`.
        deployment: the id of this deployment, the same in all of its pods.
    """

    def __init__(
        self,
        named: str | None,
        run_folder: Callable[[], Folder | None],
        releases: Callable[[], Dict[str, bool]] = dict,
        deployment: str = "",
    ) -> None:
        # An app may change its directory later.
        self.named = named if named is None or is_cluster(named) else os.path.abspath(named)
        self._run_folder, self._releases, self._deployment = run_folder, releases, deployment
        self._memory = MemoryStore()
        self._opened: Opened | None = None
        self._named_folder: Folder | None = None

    @property
    def words(self) -> str:
        """What is named, in words."""
        if self.named is None:
            return "the store of states"
        return f"the store of states {self.named}" if is_cluster(self.named) else f"the state folder {self.named}"

    def open(self) -> Opened:
        """What is in use; what was opened before, unless it is another folder by now.

        Raises:
            OSError: the folder that is named cannot be used.
            StoreAway: this process has no credentials for the cluster.
        """
        folder = self.folder()
        opened = self._opened
        if opened is None or opened.folder is not folder:
            if opened is not None:
                opened.store.close()
            opened = self._opened = self._open(folder)
        return opened

    def folder(self) -> Folder | None:
        """The folder as it is now, None for the memory of this process; raises OSError as `open` does."""
        if self.named is None or is_cluster(self.named):
            return self._run_folder()
        if self._named_folder is None or self._named_folder.lost:
            folder = Folder(self.named)
            _check_locks(folder)
            self._named_folder = folder
        return self._named_folder

    def _open(self, folder: Folder | None) -> Opened:
        if self.named is not None and is_cluster(self.named):
            return self._in_cluster(self.named, folder)
        if folder is None:
            return Opened("memory", None, self._memory, Latches(None), "the memory of this process")
        # Here, so that SQLite is loaded where a release is driven, and nowhere else.
        from canary_mw.control.rollouts.sqlite import SQLiteStore

        kind: Kind = "run folder" if self.named is None else "named"
        where = f"the {'folder' if kind == 'named' else kind} {folder.path}"
        return Opened(kind, folder, SQLiteStore(folder), Latches(folder), where)

    def _in_cluster(self, address: str, folder: Folder | None) -> Opened:
        # Here, because httpx takes long to load.
        from canary_mw.control.rollouts.cluster.address import cluster_at
        from canary_mw.control.rollouts.cluster.names import lease_name
        from canary_mw.control.rollouts.cluster.store import ClusterStore

        cluster = cluster_at(address, lease_name(self._deployment))
        where = f"ConfigMaps in the namespace {cluster.namespace}"
        return Opened("cluster", folder, ClusterStore(cluster, folder, self._releases), Latches(folder), where)

    def close(self) -> None:
        """Close what is open."""
        if self._opened is not None:
            self._opened.store.close()


def say_where(opened: Opened, surroundings: Surroundings) -> None:
    """Say once where the states lie, unless somebody has named a place that lasts."""
    if surroundings.unshared:
        text = "no shared store: several pods cannot agree, and releases with steps give gray nothing; set %s=1 where"
        logger.warning(text + " there is one pod only", SINGLE)
    elif opened.kind == "run folder":
        text = "the states of releases lie in %s and are lost with it; let --state name a folder"
        logger.info(text, opened.where)
    elif opened.kind == "memory":
        text = "the states of releases lie in the memory of this process, each process decides for itself, and a"
        logger.warning("%s restart begins anew; let --state name a folder", text)
    elif opened.kind == "cluster":
        logger.info("the states of releases are %s", opened.where)


def _check_locks(folder: Folder) -> None:
    """Check that two processes exclude each other by locks; over NFS a process does not even exclude itself.

    Raises:
        OSError: they do not.
    """
    # A name of its own for each process: two that test at once are no fault of the folder.
    name = f"{_LOCK_TEST}.{os.getpid()}"
    try:
        descriptors = [folder.open(name, os.O_RDWR | os.O_CREAT) for _ in range(2)]
        folder.remove(name)
    except OSError as exc:
        if exc.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            # What lies there can be read, and nothing is raised.
            return
        raise
    try:
        fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(descriptors[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        raise OSError(errno.ENOTSUP, "it has no locks that processes can rely on; name a folder on a disk of this host")
    finally:
        for each in descriptors:
            os.close(each)
