"""What is known of the objects of one kind, from the answers of the API. No I/O: `watch.py` sends the requests.

A reflector lists, then watches from the version of the list. It lists again when the server has forgotten that version
(410). Everything that is known stays until a complete list or a `DELETED` says otherwise.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from canary_mw.kubernetes.backoff import Backoff
from canary_mw.kubernetes.kinds import Kind

Step = Literal["discover", "list", "watch"]
Object = dict[str, Any]

# A watch that ends sooner says nothing about the objects: the next one has to wait.
_SHORT_WATCH = 1.0


class MalformedAnswer(Exception):
    """An answer of the server that is no list and no event."""


class Reflector:
    """The objects of one kind in one namespace, and what has to be done next.

    Args:
        namespace: empty for all.
        optional: whether a missing right leaves the kind out, instead of keeping everything incomplete.
        keep: what is kept of an object, None for nothing.

    Attributes:
        step: the next request.
        delay: seconds to wait before it.
        objects: what is kept, by (namespace, name).
        listed: whether there was a complete list.
        absent: whether the kind is not installed, as far as is known.
        denied: the last refusal for a missing right, None once a watch runs.
        error: why the newest state may not be known, None once a watch runs.
        resource_version: the version of `objects`.
        continue_token: where the next page of the list begins; empty for its first page.
        relists: numbers of lists after the first one, by reason.
        errors: numbers of failures, by status or name.
    """

    def __init__(
        self,
        kind: Kind,
        namespace: str,
        *,
        optional: bool,
        keep: Callable[[Object], Any],
        backoff: Backoff | None = None,
    ) -> None:
        self.kind, self.namespace, self.optional = kind, namespace, optional
        self.step: Step = self._first_step
        self.delay = 0.0
        self.objects: dict[tuple[str, str], Any] = {}
        self.listed = self.absent = False
        self.denied: str | None = None
        self.error: str | None = None
        self.resource_version = self.continue_token = ""
        self.relists: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._keep = keep
        self._backoff = backoff or Backoff()
        self._candidates = kind.versions
        self._pages: dict[tuple[str, str], Any] = {}
        self._lines = self._bookmarks = self._versions_failed = 0

    @property
    def version(self) -> str:
        """The API version in use."""
        return self._candidates[0]

    @property
    def complete(self) -> bool:
        """Whether `objects` is all there is, or was at some time."""
        return self.listed or self.absent or (self.optional and self.denied is not None)

    @property
    def bookmarked(self) -> bool:
        """Whether the server sends bookmarks on the running watch, so that silence means something."""
        return self._bookmarks > 0

    @property
    def _first_step(self) -> Step:
        return "discover" if len(self.kind.versions) > 1 else "list"

    # What the server answers.

    def discovered(self, versions: list[str]) -> None:
        """The versions that the server has of the group."""
        found = tuple(version for version in self.kind.versions if version in versions)
        if not found:
            self._not_installed(f"no version of {self.kind.group} is known here")
            return
        self._candidates, self.step, self.delay = found, "list", 0.0

    def page(self, body: Any) -> bool:
        """One page of a list; returns whether `objects` changed.

        Raises:
            MalformedAnswer: it is none.
        """
        metadata = _part(body, "metadata")
        # A server of 1.20 says null for an empty list of metadata.
        for item in _items(body):
            key = _key(item)
            self._pages[key] = self._keep(item)
        self.continue_token = metadata.get("continue") or ""
        self.delay = 0.0
        return not self.continue_token and self._end_list(metadata)

    def _end_list(self, metadata: dict[str, Any]) -> bool:
        version = metadata.get("resourceVersion")
        if not isinstance(version, str) or not version:
            raise MalformedAnswer("a list without resourceVersion")
        found = {key: value for key, value in self._pages.items() if value is not None}
        changed = found != self.objects
        self.objects, self.resource_version, self._pages = found, version, {}
        self.listed, self.absent, self.step = True, False, "watch"
        self._versions_failed = 0
        return changed

    def opened(self) -> None:
        """The watch is accepted."""
        self._lines = self._bookmarks = 0
        self.error = self.denied = None

    def line(self, event: Any) -> bool:
        """One line of the watch; returns whether `objects` changed. After another `step` the watch is to be left.

        Raises:
            MalformedAnswer: it is no event.
        """
        item, kind = _part(event, "object"), event.get("type")
        if kind == "ERROR":
            self._refused_watch(item)
            return False
        version = _part(item, "metadata").get("resourceVersion")
        if not isinstance(version, str) or kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            raise MalformedAnswer(f"an event {kind!r} that is unknown, or has no resourceVersion")
        self._backoff.reset()
        self._lines += 1
        self.resource_version = version
        if kind == "BOOKMARK":
            self._bookmarks += 1
            return False
        return self._put(_key(item), None if kind == "DELETED" else self._keep(item))

    def _put(self, key: tuple[str, str], value: Any) -> bool:
        before = self.objects.get(key)
        if value is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = value
        return bool(before != value)

    def _refused_watch(self, status: Object) -> None:
        """An `ERROR` of a watch that was accepted; an old server keeps the connection open after it."""
        code = status.get("code")
        message = str(status.get("message") or "the watch failed")
        self._lines += 1
        if code == 410:
            self._count("410")
            self.list_again("expired")
        else:
            self.refused(code if isinstance(code, int) else 500, message)

    def ended(self, seconds: float) -> None:
        """The watch has ended without an error, after this time."""
        if not self._lines:
            # A version of the future, after a restored backup, is watched in silence forever.
            self.list_again("quiet")
        self.delay = self._backoff.after_failure() if seconds < _SHORT_WATCH else 0.0

    def silent(self) -> None:
        """The watch was silent for too long."""
        self._count("silence")
        if not self._lines:
            self.list_again("quiet")
        self.delay = self._backoff.after_failure()

    def list_again(self, reason: str) -> None:
        """Forget the version, not the objects."""
        self.relists[reason] += 1
        # A webhook may be there again.
        self._candidates = tuple(sorted(self._candidates, key=self.kind.versions.index))
        self._restart_list()
        self.delay = self._backoff.before_relist()

    def _restart_list(self) -> None:
        self.step, self.continue_token, self._pages = "list", "", {}

    def refused(self, code: int, message: str, retry_after: float = 0.0) -> None:
        """A status other than 200, for any step."""
        self._count(str(code))
        if code == 404:
            self._missing(message)
        elif code == 410:
            self.list_again("expired")
        elif code == 403:
            self._denied(message)
        elif self.step == "discover":
            self._failed(f"status {code}: {message}", retry_after)
        else:
            listing = self.step == "list"
            self._failed(f"status {code}: {message}", retry_after)
            if code == 401 or len(self._candidates) > 1:
                # A list tells whether another version has to be read.
                self._restart_list()
            if listing and code >= 500:
                # What a conversion webhook that is gone leads to, and what is in front of a server says in its place.
                self._other_version(retry_after)

    def _missing(self, message: str) -> None:
        if self.step == "watch":
            self.relists["missing"] += 1
            self._restart_list()
            self.step, self.delay = self._first_step, self._backoff.after_failure()
        elif self.step == "list" and len(self._candidates) > 1:
            self._candidates, self.delay = self._candidates[1:], 0.0
            self._restart_list()
        else:
            self._not_installed(message)

    def _not_installed(self, message: str) -> None:
        """No such kind, now. Objects of one that was listed stay: it may be about to be installed anew."""
        self.absent, self.denied = not self.listed, None
        self.error = None if self.absent else f"{self.kind.plural} are no longer installed: {message}"
        self._candidates = self.kind.versions
        self._restart_list()
        # One that was there is probably being installed anew.
        delay = self._backoff.before_discovery if self.absent else self._backoff.after_failure
        self.step, self.delay = self._first_step, delay()

    def _denied(self, message: str) -> None:
        if self.step == "discover":
            # Each version is tried then.
            self._candidates, self.step, self.delay = self.kind.versions, "list", 0.0
            return
        self.denied = self.error = message
        # Without the right to watch, the list is all there is.
        self._restart_list()
        self.delay = self._backoff.after_failure()

    def unanswered(self) -> None:
        """No status line in time, as where the webhook that converts another version is gone."""
        self._count("timeout")
        self._failed("the server does not answer in time", 0.0)
        self._other_version()

    def broken(self, name: str, message: str) -> None:
        """A connection that failed, or an answer that cannot be read; the version is kept."""
        self._count(name)
        self._failed(message, 0.0)

    def _failed(self, message: str, retry_after: float) -> None:
        self.error = message
        self.delay = self._backoff.after_failure(retry_after)
        if self.step == "list":
            self._restart_list()

    def _other_version(self, retry_after: float = 0.0) -> None:
        """List another version: the stored one needs no webhook. Each one is tried before that is an error."""
        self._versions_failed += 1
        if len(self._candidates) > 1:
            if self._versions_failed % len(self._candidates) and not retry_after:
                self.error, self.delay = None, 0.0
            self._candidates = (*self._candidates[1:], self._candidates[0])
            self._restart_list()

    def _count(self, name: str) -> None:
        self.errors[name] += 1


def _part(value: Any, name: str) -> dict[str, Any]:
    part = value.get(name) if isinstance(value, dict) else None
    if not isinstance(part, dict):
        raise MalformedAnswer(f"no `{name}` where one is expected")
    return part


def _items(body: dict[str, Any]) -> list[Object]:
    items = body.get("items")
    if items is not None and not isinstance(items, list):
        raise MalformedAnswer("a list whose `items` are none")
    return items or []


def _key(item: Any) -> tuple[str, str]:
    metadata = _part(item, "metadata")
    name, namespace = metadata.get("name"), metadata.get("namespace", "")
    if not isinstance(name, str) or not isinstance(namespace, str):
        raise MalformedAnswer("an object without a name")
    return namespace, name
