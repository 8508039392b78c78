"""Which hosts are told of lanes: those of `install`, of the environment, and of the releases in force."""

import os
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from canary_mw.exceptions import ConfigError
from canary_mw.http.host_list import Matcher, host_matcher, nobody
from canary_mw.http.lanes import LANE_HEADER
from canary_mw.locks import new_lock

VARIABLE = "CANARY_MW_PROPAGATE_HOSTS"


class Told:
    """The hosts and headers of this process; replaced as a whole where they change.

    Attributes:
        on: whether the app passes lanes on at all; a middleware without releases then takes them in, too.
        headers: those that are carried on, besides the ones of releases.
        may_tell: whether a host and a port are on the list.
    """

    def __init__(self) -> None:
        self.on = False
        self.headers = frozenset((LANE_HEADER,))
        self.may_tell: Matcher = nobody
        self._given: tuple[str, ...] = ()
        self._of_releases: WeakKeyDictionary[object, tuple[str, ...]] = WeakKeyDictionary()
        # Several middlewares follow their rules in threads.
        self._lock = new_lock()

    def read_environ(self) -> None:
        """Add the hosts of the environment.

        Raises:
            ConfigError: one of them is no host.
        """
        texts = [text.strip() for text in os.environ.get(VARIABLE, "").split(",")]
        self.add(filter(None, texts), named=VARIABLE)
        self.on = self.on or any(texts)

    def add(self, hosts: Iterable[str], *, named: str) -> None:
        """Add hosts.

        Args:
            named: what an error calls the list.

        Raises:
            ConfigError: one of them is no host.
        """
        given = tuple(dict.fromkeys((*self._given, *hosts)))
        try:
            host_matcher(given)
        except ValueError as exc:
            text, _, hint = str(exc).rpartition(": ")
            raise ConfigError(f"{named}: {text}", hint=hint) from None
        self._given = given
        self._settle()

    def carry_on(self, headers: Iterable[bytes]) -> None:
        """Carry on some headers of requests besides that of lanes."""
        self.headers = self.headers.union(headers)

    def follow(self, owner: object, hosts: Iterable[str]) -> None:
        """Add the hosts of the releases of a middleware, in place of those it had before."""
        with self._lock:
            self._of_releases[owner] = tuple(hosts)
        self._settle()

    def forget(self) -> None:
        """Forget what `install` and the environment have named."""
        self.on, self._given, self.headers = False, (), frozenset((LANE_HEADER,))
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            of_releases = [host for hosts in self._of_releases.values() for host in hosts]
            self.may_tell = host_matcher(dict.fromkeys((*self._given, *of_releases)))


told = Told()
