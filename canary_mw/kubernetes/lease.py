"""A Lease: a lock in the cluster that one process holds at a time, for what writes into the cluster.

The rules of the election are those of client-go: the lock belongs to who has written its name last, as long as the
Lease changes at least once in its duration. Clocks of other machines do not count: the time that somebody else has
written is compared with itself only.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.api import Api, Refused
from canary_mw.kubernetes.reflector import MalformedAnswer

_VERSION = "coordination.k8s.io/v1"
_JSON = "application/json"

Object = dict[str, Any]


class Lease:
    """A lock, for one task of one process.

    `try_hold` is called again and again, several times in each duration. What is written under the lock is written
    while `held` is true.

    Args:
        identity: who this process is, different for each.
        duration: whole seconds that the lock is held without being renewed.
        create: whether the Lease is made where it is missing; a pod seldom has the right.
        clock: a monotonic clock, in seconds.

    Attributes:
        holder: who held it when it was read last, "" for nobody.
        seen_at: when it was seen to change last, by the clock.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: int = 15,
        create: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if duration < 1:
            raise ConfigError(f"the duration of the Lease {name} is {duration}", hint="use 1 second or more")
        self._api, self._identity, self._duration, self._create, self._clock = api, identity, duration, create, clock
        self._all = f"/apis/{_VERSION}/namespaces/{namespace}/leases"
        self._name, self._place = name, f"{self._all}/{name}"
        self._held_until = 0.0
        self.holder = ""
        # What was read last.
        self._seen: tuple[Any, ...] = ()
        self.seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether this process holds the lock now, by its own clock."""
        return self._clock() < self._held_until

    async def try_hold(self) -> bool:
        """Take the lock, or renew it; returns whether it is held.

        Raises:
            ConfigError: there is no such Lease.
            Refused, Unanswered, MalformedAnswer: the server does not answer as it should; see `held`.
            httpx.HTTPError, OSError: it cannot be reached; see `held`.
        """
        began = self._clock()
        try:
            lease = await self._api.get(self._place, {}, _JSON)
        except Refused as exc:
            if exc.code != 404:
                raise
            return await self._make(began)
        spec = _part(lease, "spec")
        return await self._write(lease, spec, began) if self._is_free(lease, spec) else False

    async def look(self) -> None:
        """See who holds it, and leave it as it is; raises as `try_hold`, and nothing where it is missing."""
        try:
            lease = await self._api.get(self._place, {}, _JSON)
        except Refused as exc:
            if exc.code != 404:
                raise
        else:
            self._note(lease, _part(lease, "spec"))

    async def release(self, *, unsure: bool = False) -> None:
        """Give the lock up, so that the next holder does not wait; raises as `try_hold`.

        Args:
            unsure: it may be held although this object does not know: a request was not waited for.
        """
        if not self.held and not unsure:
            return
        self._held_until = 0.0
        lease = await self._api.get(self._place, {}, _JSON)
        spec = _part(lease, "spec")
        if spec.get("holderIdentity") == self._identity:
            await self._put({**lease, "spec": {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}})

    def _note(self, lease: Object, spec: Object) -> None:
        """Note who holds it, and whether it has changed."""
        self.holder = str(spec.get("holderIdentity") or "")
        seen = self.holder, spec.get("renewTime"), _part(lease, "metadata").get("resourceVersion")
        if seen != self._seen:
            self._seen, self.seen_at = seen, self._clock()

    def _is_free(self, lease: Object, spec: Object) -> bool:
        self._note(lease, spec)
        holder = self.holder
        if holder == self._identity:
            return True
        # Somebody else's: also where this process has held it before.
        self._held_until = 0.0
        duration = spec.get("leaseDurationSeconds")
        kept = duration if isinstance(duration, int) else self._duration
        return not holder or self._clock() >= self.seen_at + kept

    async def _make(self, began: float) -> bool:
        if not self._create:
            hint = "the chart makes it; or apply one, for pods have no right to"
            raise ConfigError(f"there is no Lease {self._name}", hint=hint)
        body = {
            "apiVersion": _VERSION,
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {**self._claim(), "acquireTime": _now()},
        }
        try:
            await self._api.post(self._all, body)
        except Refused as exc:
            if exc.reason != "AlreadyExists":
                raise
            return False
        self._held_until = began + self._duration
        self.holder = self._identity
        return True

    async def _write(self, lease: Object, spec: Object, began: float) -> bool:
        claim = {**spec, **self._claim()}
        if spec.get("holderIdentity") != self._identity:
            transitions = spec.get("leaseTransitions")
            claim |= {"acquireTime": _now(), "leaseTransitions": (transitions or 0) + 1}
        if not await self._put({**lease, "spec": claim}):
            self._held_until = 0.0
            return False
        self._held_until = began + self._duration
        self.holder = self._identity
        return True

    async def _put(self, lease: Object) -> bool:
        """Write it as it was read; False if somebody else has written it meanwhile."""
        try:
            await self._api.put(self._place, lease)
        except Refused as exc:
            if exc.code == 409:
                return False
            raise
        return True

    def _claim(self) -> Object:
        return {"holderIdentity": self._identity, "leaseDurationSeconds": self._duration, "renewTime": _now()}


def _now() -> str:
    """The time as a server reads it: with exactly six digits behind the point, and `Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _part(value: Any, name: str) -> Object:
    part = value.get(name) if isinstance(value, dict) else None
    if not isinstance(part, dict):
        raise MalformedAnswer(f"a Lease without `{name}`")
    return part
