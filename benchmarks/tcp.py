"""TCP: what a byte and a connection of a TCPMapping cost, beside HAProxy and Envoy."""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from . import peers
from .compare import Options, Starter, start
from .processes import cpu_seconds, free_port, program, running
from .report import Section, spread
from .servers import Server

MIB = 256
CONNECTIONS = 1000
TITLE = f"{MIB} MiB over one connection, and {CONNECTIONS} connections with a byte each way, one after the other"
NOTES = """\
Each proxy is one process with one thread that serves, and leads to the same server. Bytes go from the client to the
server, 64 KiB at a time. CPU of the proxy alone, user and system; client and server are in another process. How fast it
goes is not compared: on few cores client and server take what the proxy leaves."""
OURS = "canary-mw"
# What a client begins with: bytes to be dropped, a byte to be sent back, or a question over HTTP whether it is there.
_DROP, _ECHO = b"d", b"e"
_HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_HAPROXY = """\
global
  nbthread 1
  maxconn 8192
defaults
  mode tcp
  timeout connect 3s
  timeout client 60s
  timeout server 60s
listen all
  bind 127.0.0.1:{port}
  server one 127.0.0.1:{upstream}
"""


def run(options: Options, folder: Path) -> Section:
    """Measure."""
    section = Section("TCP", TITLE, [NOTES])
    with _upstream() as upstream, ExitStack() as stack:
        starters: dict[str, Starter] = {
            OURS: _canary_mw(folder, upstream),
            "haproxy": _haproxy(folder, upstream),
            "envoy": _envoy(folder, upstream),
        }
        started = start(stack, starters, section)
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in started}
        for _ in range(options.rounds):
            for name, server in started.items():
                found[name][0].append(_cost(server, _stream) / MIB * 1e6)
                found[name][1].append(_cost(server, _connect) / CONNECTIONS * 1e6)
    section.table = [("server", "CPU us/MiB", "CPU us/connection")]
    section.table += [
        (name, spread(by_byte), spread(by_connection)) for name, (by_byte, by_connection) in found.items()
    ]
    for name, (by_byte, by_connection) in found.items():
        section.figure(f"CPU per MiB, {name}", by_byte, "us")
        section.figure(f"CPU per connection, {name}", by_connection, "us")
    return section


def _cost(server: Server, work: Callable[[int], None]) -> float:
    """CPU seconds of a proxy during some work."""
    before = cpu_seconds(server.pids)
    work(server.port)
    return cpu_seconds(server.pids) - before


def _stream(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(_DROP)
        chunk = bytes(65536)
        for _ in range(MIB * 16):
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
        # Once all of it has arrived.
        client.recv(1)


def _connect(port: int) -> None:
    for _ in range(CONNECTIONS):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(_ECHO)
            client.recv(1)


@contextmanager
def _upstream() -> Iterator[int]:
    """The server behind the proxies, in threads of this process."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def _serve(client: socket.socket) -> None:
    buffer = bytearray(262144)
    with client, suppress(OSError):
        first = client.recv(1)
        if first == _ECHO:
            client.sendall(first)
        elif first == _DROP:
            while client.recv_into(buffer):
                pass
            client.sendall(b".")
        elif first:
            client.recv(65536)
            client.sendall(_HEALTHY)


@contextmanager
def _canary_mw(folder: Path, upstream: int) -> Iterator[Server]:
    port, tcp_port = free_port(), free_port()
    path = folder / "tcp.yaml"
    path.write_text(
        "apiVersion: getambassador.io/v3alpha1\nkind: TCPMapping\nmetadata: {name: all}\n"
        f"spec: {{port: {tcp_port}, address: 127.0.0.1, service: '127.0.0.1:{upstream}'}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "canary_mw", "serve", f"--rules={path}", "--admin-port=0", f"--port={port}"]
    with running(f"canary-mw-{port}", command, port, folder) as pid:
        yield Server((pid,), tcp_port)


@contextmanager
def _haproxy(folder: Path, upstream: int) -> Iterator[Server]:
    port = free_port()
    path = folder / "haproxy-tcp.cfg"
    path.write_text(_HAPROXY.format(port=port, upstream=upstream), encoding="utf-8")
    with running("haproxy-tcp", [program("haproxy", "haproxy"), "-db", "-f", str(path)], port, folder) as pid:
        yield Server((pid,), port)


@contextmanager
def _envoy(folder: Path, upstream: int) -> Iterator[Server]:
    port = free_port()
    path = folder / f"envoy-tcp-{port}.json"
    path.write_text(json.dumps(peers.envoy_tcp_config(port, upstream)), encoding="utf-8")
    with running(f"envoy-tcp-{port}", peers.envoy_command(path), port, folder) as pid:
        yield Server((pid,), port)
