"""The upstream, our proxy and the servers of ASGI apps; every function starts one and yields a `Server`."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from . import apps, rules
from .processes import Failed, free_port, get, program, running
from .rules import GRAY, SERVICES

MANY = 1_000_000_000
THREADS = 16
_NGINX = """\
daemon off;
master_process off;
pid {folder}/{name}.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  server_tokens off;
  keepalive_requests {many};
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{body}}}
"""
_COMMANDS = {
    "uvicorn": "-m uvicorn --loop uvloop --http httptools --no-access-log --no-server-header --no-date-header"
    " --log-level warning --backlog 2048 --host 127.0.0.1",
    "granian": "-m granian --interface asgi --loop uvloop --log-level warning --host 127.0.0.1",
    "hypercorn": "-m hypercorn --worker-class uvloop --log-level warning --backlog 2048",
}

_GRANIAN_WSGI = "-m granian --interface wsgi --log-level warning --host 127.0.0.1"
_GUNICORN = "--worker-class gthread --workers 1 --keep-alive 60 --backlog 2048 --log-level warning --no-control-socket"


class Server(NamedTuple):
    """A running server: the processes that it consists of (their children belong to them), and its port."""

    pids: tuple[int, ...]
    port: int


class Upstream(NamedTuple):
    """The ports of the two services."""

    stable: int
    gray: int

    def port(self, service: str) -> int:
        """By name."""
        return self.gray if service == "gray" else self.stable


@contextmanager
def upstream(folder: Path, bodies: Sequence[int] = ()) -> Iterator[Upstream]:
    """Start the services: one nginx that answers a small JSON text at once.

    Args:
        bodies: sizes in bytes; `/body-SIZE` answers with so many.

    Raises:
        Missing: there is no nginx.
    """
    ports = Upstream(free_port(), free_port())
    for size in bodies:
        (folder / "bodies").mkdir(exist_ok=True)
        (folder / "bodies" / f"body-{size}").write_bytes(b"x" * size)
    body = "  open_file_cache max=100;\n" + "".join(
        f"  server {{ listen 127.0.0.1:{ports.port(name)} backlog=2048; default_type application/json;\n"
        f"    location /body- {{ root {folder}/bodies; sendfile on; }}\n"
        f'    location / {{ return 200 \'{{"service": "{name}"}}\'; }} }}\n'
        for name in SERVICES
    )
    with nginx_process("upstream", body, ports.stable, folder):
        yield ports


def nginx_process(name: str, body: str, port: int, folder: Path) -> AbstractContextManager[int]:
    """nginx in one process, with `body` in its http block.

    Raises:
        Missing: there is no nginx.
    """
    path = folder / f"{name}.conf"
    path.write_text(_NGINX.format(folder=folder, name=name, many=MANY, body=body), encoding="utf-8")
    command = [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(path), "-e", "stderr"]
    return running(name, command, port, folder)


@contextmanager
def canary_mw(
    folder: Path,
    ports: Upstream,
    count: int,
    *,
    path: Path | str | None = None,
    options: Sequence[str] = (),
    checked: bool = True,
) -> Iterator[Server]:
    """Our own standalone proxy.

    Args:
        path: its rules, by default `count` Mappings.
        options: more of `canary-mw serve`.
        checked: it has to route by the Mappings of `rules`.
    """
    port = free_port()
    targets = [f"--upstream={name}=http://127.0.0.1:{ports.port(name)}" for name in SERVICES]
    rules = path or rules_file(folder, count)
    # A row that measures the counters of the admin port says so.
    command = [sys.executable, "-m", "canary_mw", "serve", f"--rules={rules}", "--admin-port=0"]
    with running(f"canary-mw-{port}", [*command, f"--port={port}", *targets, *options], port, folder) as pid:
        yield routing(Server((pid,), port)) if checked else Server((pid,), port)


@contextmanager
def asgi(
    app: str, folder: Path, environ: Mapping[str, str] | None = None, *, server: str = "uvicorn", workers: int = 1
) -> Iterator[Server]:
    """An app of `apps` under a server for ASGI; uvicorn runs with uvloop and httptools, as our proxy does.

    Args:
        app: "bare", or a function that makes the app.
        server: "uvicorn", "granian" or "hypercorn".
    """
    port = free_port()
    target = f"{apps.__name__}:{app}"
    factory = [] if app == "bare" else ["--factory"]
    listen = [f"--bind=127.0.0.1:{port}"] if server == "hypercorn" else [f"--port={port}"]
    if server == "hypercorn":
        target, factory = target + ("()" if factory else ""), []
    command = [sys.executable, *_COMMANDS[server].split(), *listen, f"--workers={workers}", *factory, target]
    with running(f"{server}-{app}-{port}", command, port, folder, environ) as pid:
        yield Server((pid,), port)


@contextmanager
def wsgi(
    app: str, folder: Path, environ: Mapping[str, str] | None = None, *, server: str = "gunicorn"
) -> Iterator[Server]:
    """An app of `apps` under a server for WSGI, with threads.

    Args:
        app: "bare_wsgi", or a function that makes the app.
        server: "gunicorn", with its worker of that kind, or "granian".
    """
    port = free_port()
    target, made = f"{apps.__name__}:{app}", app != "bare_wsgi"
    if server == "granian":
        options = [*_GRANIAN_WSGI.split(), f"--blocking-threads={THREADS}", f"--port={port}"]
        options += ["--factory"] if made else []
    else:
        options = ["-m", "gunicorn", *_GUNICORN.split(), f"--threads={THREADS}", f"--bind=127.0.0.1:{port}"]
        target += "()" if made else ""
    with running(f"{server}-{app}-{port}", [sys.executable, *options, target], port, folder, environ) as pid:
        yield Server((pid,), port)


def rules_file(folder: Path, count: int, more: str = "") -> Path:
    """`count` Mappings as a file in a folder of its own, so that no log in it wakes a watcher.

    Args:
        more: a line for each Mapping.
    """
    path = folder / f"rules-{count}" / "rules.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(rules.text(count, more), encoding="utf-8")
    return path


def routing(server: Server) -> Server:
    """The same, once it is seen to route by prefix and header and to rewrite: what is measured must be right.

    Raises:
        Failed: it does not.
    """
    for headers, service in (({}, "stable"), (dict([GRAY]), "gray")):
        status, body = get(server.port, f"{rules.prefix(0)}item", headers)
        if status != 200 or json.loads(body) != {"service": service}:
            raise Failed(f"port {server.port} answers {status} {body!r} where {service} should")
    return server
