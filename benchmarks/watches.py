"""WATCHES: what it costs each worker that rules come from the API of a cluster, with one worker and with four."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import servers
from .compare import Options
from .processes import Failed, children, free_port, get, resident
from .report import Section, spread

SERVICES = 1_000
KINDS = 2
TITLE = f"rules of {SERVICES:,} Services from the API of a cluster"
NOTES = f"""\
Each of {SERVICES:,} Services has one Mapping in its annotation; Ingresses are watched too, and the kind Mapping is not
installed. The API is a stub on this machine. `files`: the same rules from a file. Per worker: median of the workers,
between the smallest and the largest, a second after all of them are ready. One worker has the watches, their thread and
connections; the others follow its snapshots."""
_START = 60.0


class Api:
    """As much of an API server as a source asks for: lists, and watches in which nothing happens but what is told.

    Args:
        rules: the text of the annotation of each Service.
    """

    def __init__(self, rules: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._open: dict[asyncio.StreamWriter, str] = {}
        self._version = 1
        self._lists = {"services": _service_list(rules), "ingresses": _list([])}

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self._open)

    def change(self, number: int, rules: str) -> None:
        """Tell that a Service has changed; in the loop that serves this."""
        self._version += 1
        event = {"type": "MODIFIED", "object": _service(number, rules, self._version)}
        line = json.dumps(event).encode() + b"\n"
        for writer, target in self._open.items():
            if "/services?" in target:
                writer.write(b"%x\r\n%b\r\n" % (len(line), line))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ")[1].decode()
                await reader.readexactly(_length(head))
                if "watch=1" in target:
                    await self._watch(target, reader, writer)
                    return
                body = self._lists.get(target.partition("?")[0].rpartition("/")[2])
                status = "404 Not Found" if body is None else "200 OK"
                body = body or b"{}"
                writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _watch(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = target
        try:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            await reader.read()
        finally:
            del self._open[writer]


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx.
    """
    section = Section("WATCHES", TITLE, [NOTES])
    section.table = [("rules", "workers", "RSS MiB", "threads", "descriptors", "watches in all")]
    with serving(Api(list(map(_mapping, range(SERVICES))))) as (api, _), servers.upstream(folder) as ports:
        address = address_of(api, folder)
        rules = folder / "services.yaml"
        rules.write_text("".join(map(_mapping, range(SERVICES))), encoding="utf-8")
        for workers in (1, 4):
            for name, path in (("files", str(rules)), ("k8s://", address)):
                memory, threads, files, watches = _measured(folder, ports, path, workers, api)
                row = spread(memory), spread(threads, 0), spread(files, 0), str(watches)
                section.table.append((name, str(workers), *row))
                if name == "k8s://":
                    section.figure(f"RSS per worker of {workers}", memory, "MiB")
                    section.at_most(f"watches of {workers} workers", [watches], KINDS, "", 0)
    return section


def _measured(
    folder: Path, ports: servers.Upstream, rules: str, workers: int, api: Api
) -> tuple[list[float], list[float], list[float], int]:
    """Memory in MiB, threads and descriptors of each worker, and how many watches there are."""
    admin = free_port()
    options = [f"--admin-port={admin}", f"--workers={workers}"]
    with servers.canary_mw(folder, ports, 0, path=rules, options=options, checked=False) as server:
        (parent,) = server.pids
        pids = [parent] if workers == 1 else _workers(parent)
        _wait_until_ready(admin, workers)
        time.sleep(1)
        if rules.startswith("k8s://") and not api.watches:
            raise Failed("the proxy watches nothing")
        return (
            [resident([pid]) / (1 << 20) for pid in pids],
            [float(len(os.listdir(f"/proc/{pid}/task"))) for pid in pids],
            [float(len(os.listdir(f"/proc/{pid}/fd"))) for pid in pids],
            api.watches,
        )


def _workers(parent: int) -> list[int]:
    # Python has a process of its own that tracks what is shared.
    return [pid for pid in children(parent) if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _wait_until_ready(port: int, workers: int) -> None:
    """Each worker gets some of the connections."""
    row, end = 0, time.monotonic() + _START
    while row < 12 * workers:
        if time.monotonic() > end:
            raise Failed("the proxy has not read its rules")
        row = row + 1 if get(port, "/readyz")[0] == 200 else 0


@contextmanager
def serving(api: Api) -> Iterator[tuple[Api, asyncio.AbstractEventLoop]]:
    """The API, and its loop in a thread."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.start_server(api.answer, "127.0.0.1", api.port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield api, loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _length(head: bytes) -> int:
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)


def _list(items: list[Any]) -> bytes:
    return json.dumps({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}).encode()


def _service_list(rules: Sequence[str]) -> bytes:
    return _list([_service(number, text, 1) for number, text in enumerate(rules)])


def _service(number: int, rules: str, version: int) -> dict[str, Any]:
    place = {"name": f"s{number}", "namespace": "shop", "resourceVersion": str(version)}
    return {"metadata": {**place, "annotations": {"getambassador.io/config": rules}}}


def address_of(api: Api, folder: Path) -> str:
    """What `--rules` is given."""
    path = folder / "kubeconfig"
    path.write_text(json.dumps(_config(api.port)), encoding="utf-8")
    return f"k8s://shop?kubeconfig={path}"


def _mapping(number: int) -> str:
    head = f"---\napiVersion: getambassador.io/v2\nkind: Mapping\nname: m{number}\nprefix: /m{number}/\n"
    return f"{head}service: stable-{number}\n"


def _config(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
