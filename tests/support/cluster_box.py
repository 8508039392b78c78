"""A cluster in a box: an API server, two versions of a service, and a proxy that reads its rules from the API."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from clusters import kubeconfig
from fake_apiserver import FakeApi
from servers import Process, fetch, fetch_admin, free_port, process, serving_app
from upstream import Peer, serving

CANARY = "system:serviceaccount:shop:canary"
READ = [
    {"apiGroups": [group], "resources": [plural], "verbs": ["list", "watch"]}
    for group, plural in (("", "services"), ("networking.k8s.io", "ingresses"), ("getambassador.io", "mappings"))
]


def rule(name: str, port: int, weight: int | None = None) -> str:
    more = "" if weight is None else f"weight: {weight}\n"
    head = f"---\napiVersion: getambassador.io/v2\nkind: Mapping\nname: {name}\nprefix: /shop/\n"
    return f'{head}service: 127.0.0.1:{port}\nrewrite: ""\n{more}'


class Version:
    """A version of the service: what it answers, and how many requests have reached it."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.asked = answer, 0

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.asked += 1
            await peer.answer(self.answer)


class Box:
    """A cluster in a box: an API server, a stable and a gray version, and a proxy.

    Attributes:
        ports: those of the stable and of the gray version.
        api_port: where the API is served, while it is.
    """

    def __init__(self, folder: Path, api: FakeApi, stable: Version, gray: Version, ports: tuple[int, int]) -> None:
        self.folder, self.api, self.ports = folder, api, ports
        self.stable, self.gray = stable, gray
        self.api_port, self.port, self.admin = free_port(), free_port(), free_port()
        self.proxy: Process

    def weigh(self, weight: int) -> None:
        """Write both Services, gray with a weight."""
        self.api.annotate("shop", "shop-stable", rule("stable", self.ports[0]))
        self.api.annotate("shop", "shop-gray", rule("gray", self.ports[1], weight))

    def map(self, weight: int, *, prefix: str = "/shop/", ending: str = "") -> None:
        """Write both Mappings, gray with a weight."""
        spec = {"prefix": prefix, "rewrite": ""}
        gray, stable = (f"127.0.0.1:{port}" for port in self.ports[::-1])
        if not self.api.objects.get(("mappings.getambassador.io", "shop", f"stable{ending}")):
            self.api.map("shop", f"stable{ending}", {**spec, "service": stable})
        self.api.map("shop", f"gray{ending}", {**spec, "service": gray, "weight": weight})

    @contextlib.contextmanager
    def serve(self, name: str, *options: str, module: str = "canary_mw") -> Iterator[Process]:
        """Run a proxy, which `port`, `admin` and `proxy` are about from now on."""
        path = kubeconfig(self.folder, f"http://127.0.0.1:{self.api_port}", token="mine")
        self.port, self.admin = free_port(), free_port()
        address = f"k8s://shop?kubeconfig={path}"
        ports = ["--port", str(self.port), "--admin-port", str(self.admin)]
        arguments = ["serve", "--rules", address, *ports, *options]
        support = str(Path(__file__).parent)
        with process(*arguments, log=self.folder / name, module=module, PYTHONPATH=support) as self.proxy:
            yield self.proxy

    @contextlib.asynccontextmanager
    async def api_served(self) -> AsyncIterator[None]:
        """Serve the API on its port."""
        async with serving_app(self.api.app, lifespan="off", port=self.api_port) as _:
            yield

    async def ready(self, status: int = 200) -> str:
        """What /readyz?verbose says, as soon as it has this status."""
        for port in (self.port, self.admin):
            # Not in this loop, which serves the API.
            await asyncio.to_thread(self.proxy.wait_for_port, port)
        while True:
            found = await fetch_admin(self.admin, "/readyz?verbose")
            if found.status == status:
                return found.body.decode()
            await asyncio.sleep(0.02)

    async def says(self, text: str) -> None:
        """Wait until /readyz?verbose says something."""
        while text not in (await fetch_admin(self.admin, "/readyz?verbose")).body.decode():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

    async def weighs(self, mapping: str, percent: float) -> None:
        """Wait until a Mapping has this share of its group."""
        while self._percents(json.loads((await fetch_admin(self.admin, "/rules")).body)).get(mapping) != percent:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    @staticmethod
    def _percents(rules: Any) -> dict[str, float]:
        return {each["mapping"]: each["percent"] for group in rules["groups"] for each in group["members"]}

    async def answer_to(self, user: str) -> bytes:
        """The version that a user gets."""
        return (await fetch(self.port, "/shop/", headers=[("x-user-id", user)])).body

    async def all_from(self, who: bytes) -> None:
        """Wait until fifty requests one after the other are answered by one version."""
        row = 0
        while row < 50:
            found = await fetch(self.port, "/shop/")
            assert found.status in (200, 404), found
            row = row + 1 if found.body == who else 0

    async def both(self) -> Counter[bytes]:
        """Who answers 200 requests, after each version has answered one."""
        seen: Counter[bytes] = Counter()
        while len(seen) < 2:
            seen[(await fetch(self.port, "/shop/")).body] += 1
        return Counter([(await fetch(self.port, "/shop/")).body for _ in range(200)])


@contextlib.asynccontextmanager
async def box(folder: Path, *kinds: Any) -> AsyncIterator[Box]:
    stable, gray = Version(b"stable"), Version(b"gray")
    async with serving(stable) as one, serving(gray) as other:
        api = FakeApi(*kinds, token="admin", users={"mine": CANARY})
        api.grant("shop", CANARY, READ)
        yield Box(folder, api, stable, gray, (one.origin.port, other.origin.port))
        api.drop_watches(hard=True)
