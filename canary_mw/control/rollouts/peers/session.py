"""What asks and tells the other pods, in an event loop of its own."""

import asyncio
import json
import logging
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote
from weakref import WeakMethod

from canary_mw.control.rollouts.peers.addresses import Address, pods_of, text_of
from canary_mw.control.rollouts.peers.client import NoAnswer, PeerClient
from canary_mw.control.rollouts.peers.known import KnownPod, KnownPods, noted_of
from canary_mw.exceptions import CanaryError, ConfigError, EvidenceRefused
from canary_mw.host import HostLogger
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.kinds import ENDPOINT_SLICES
from canary_mw.kubernetes.reflector import Reflector
from canary_mw.kubernetes.watch import Follower
from canary_mw.rollout.state import ReleaseState
from canary_mw.upstreams.discovery.endpoint_slices import SERVICE_NAME, slice_of

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

# Seconds between two questions to a pod, and between two looks whether to ask.
INTERVAL = 2.0
_LOOK = 0.1
# Pods that are asked at once.
_AT_ONCE = 32
# Looks for the list of pods before nobody is told of a rollback, and seconds before each further try to tell one.
_LISTED_WITHIN = 30
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)


class Place(NamedTuple):
    """Where the other pods are found.

    Attributes:
        connect: gives the way to the API, and the namespace of the Service; raises CanaryError where there is none.
        service: its name.
        port: the admin port of this process, for a Service that has none named `admin`.
    """

    connect: Callable[[], tuple[Connection, str]]
    service: str
    port: int


class Session:
    """What runs in the loop. It refers to no `Peers`."""

    def __init__(
        self,
        place: Place,
        token: Callable[[], str],
        take: "WeakMethod[Callable[[bytes], bool]]",
        note: Callable[[bytes], object],
        known: KnownPods,
    ) -> None:
        self._place, self._token, self._take, self._note, self._known = place, token, take, note, known
        self.wanted_until = float("-inf")
        self._client: PeerClient | None = None
        self._reflector: Reflector = Reflector(ENDPOINT_SLICES, "", optional=False, keep=slice_of)
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._said = ""

    def start(self) -> None:
        """Begin; called in the loop."""
        self._client = PeerClient(self._token)
        self._run(self._follow())
        self._run(self._ask_again_and_again())

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()

    def _run(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        """Follow the EndpointSlices of the Service."""
        while True:
            try:
                connection, namespace = self._place.connect()
                break
            except (CanaryError, OSError) as exc:
                self._known.error = f"they cannot be found: {exc}"
                await asyncio.sleep(INTERVAL)
        self._reflector = Reflector(ENDPOINT_SLICES, namespace, optional=False, keep=slice_of)
        selector = f"{SERVICE_NAME}={self._place.service}"
        await Follower(self._reflector, connection, selector, self._listed).run()

    def _listed(self) -> None:
        """The API has said something."""
        reflector, known = self._reflector, self._known
        known.note_right(monotonic(), denied=reflector.denied is not None)
        if reflector.listed:
            self._adopt()
        if reflector.error is not None:
            known.error = f"their EndpointSlices cannot be read: {reflector.error}"

    def _adopt(self) -> None:
        """Take over the list as it was read last."""
        known = self._known
        before = len(known.pods)
        known.adopt(pods_of(self._reflector.objects.values(), self._place.port), monotonic())
        if not known.pods:
            known.error = f"the Service {self._place.service} has no pods: --peers names the Service of these pods"
        elif len(known.pods) != before:
            self._tell_workers(asks=False)

    def _tell_workers(self, *, asks: bool) -> None:
        self._note(json.dumps(noted_of(self._known, monotonic(), asks=asks)).encode())

    async def _ask_again_and_again(self) -> None:
        due = monotonic()
        while True:
            now = monotonic()
            if now >= due and now < self.wanted_until and self._known.pods:
                due = now + INTERVAL
                await self._pull()
                self._tell_workers(asks=True)
                self._say()
            await asyncio.sleep(_LOOK)

    async def _pull(self) -> None:
        pods = [(address, pod) for address, pod in self._known.pods.items() if not pod.is_own]
        await asyncio.gather(*(self._ask(address, pod) for address, pod in pods))

    async def _ask(self, address: Address, pod: KnownPod) -> None:
        assert self._client is not None
        take = self._take()
        try:
            async with self._at_once:
                answer = await self._client.evidence(address, pod.cursor)
            if answer.data is not None and take is not None:
                pod.is_own = take(answer.data)
                pod.cursor = answer.cursor
            pod.heard_at, pod.error = monotonic(), ""
        except NoAnswer as exc:
            pod.error = str(exc)
        except (EvidenceRefused, ConfigError) as exc:
            pod.error = f"is not heard: {exc}"

    def _say(self) -> None:
        """Log what is wrong with the pods, once until that changes."""
        errors = sorted(f"{text_of(address)} {pod.error}" for address, pod in self._known.pods.items() if pod.error)
        if (text := "; ".join(errors)) != self._said:
            self._said = text
            if text:
                logger.warning("no release is raised while evidence of pods is missing: %s", text)
            else:
                logger.info("all pods report again")

    def tell(self, state: ReleaseState) -> None:
        """See `Peers.tell_lowered`."""
        body = json.dumps({"attempt": state.attempt, "phase": state.phase, "reason": state.reason[:1000]}).encode()
        self._run(self._tell_all(f"/api/v1/releases/{quote(state.name, safe='')}/rolled-back", body))

    async def _tell_all(self, path: str, body: bytes) -> None:
        for _ in range(_LISTED_WITHIN):
            if self._known.listed_at is None:
                await asyncio.sleep(INTERVAL)
        for address, pod in self._known.pods.items():
            if not pod.is_own:
                self._run(self._tell(address, path, body))

    async def _tell(self, address: Address, path: str, body: bytes) -> None:
        assert self._client is not None
        reason = ""
        for pause in (*PAUSES, 0.0):
            try:
                status = await self._client.tell(address, path, body)
                if status in (200, 404, 409):
                    return
                reason = f"answers with status {status}"
            except NoAnswer as exc:
                reason = str(exc)
            except ConfigError as exc:
                reason = f"cannot be told: {exc}"
            await asyncio.sleep(pause)
        logger.warning("the pod %s was not told of a rollback: it %s", text_of(address), reason)
