"""Run the standalone proxy under uvicorn: exit status, open files, TLS of the port, logging."""

import resource
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import uvicorn

from canary_mw.client.tls import load_authorities, load_certificate
from canary_mw.server.app import Proxy
from canary_mw.server.app import create_app as create_proxy
from canary_mw.server.settings import CERT_REQS, Settings

_APP = "canary_mw.server.runner:create_app"
# Seconds after which a thread that waits for the interpreter gets it. With Python's 5 ms every step of a request (a
# read, a write, a turn of the loop) would wait as long while rules are reloaded. Nothing else is slower for it.
_SWITCH_INTERVAL = 0.00005
# uvicorn's exit status for an app that cannot start.
_STARTUP_FAILURE = 3
# Seconds until a worker that has not started, or does not answer its parent, is killed. uvicorn's default of 5 is too
# short on a busy node: workers would be killed again and again while they start, and a rolling restart would stop.
_WORKER_HEALTHCHECK_TIMEOUT = 30


class Server(uvicorn.Server):
    """Exits with 0 after a signal; uvicorn raises the signal again after shutdown, which looks like a kill."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Forget the signals that were handled, so that they are not raised again."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def create_app() -> Proxy:
    """The app of `canary-mw serve`, in whose process nothing else runs.

    Raises:
        ConfigError: a setting is invalid.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
    return create_proxy()


def raise_file_limit() -> None:
    """Allow this process, and those that it starts, as many connections as the system permits.

    The usual soft limit of 1024 open files exists for programs that still call select().
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems report a hard limit above what they accept; the soft limit then stays as it is.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(settings: Settings) -> None:
    """Serve until a signal; each worker reads its settings from the environment."""
    raise_file_limit()
    options: dict[str, Any] = {
        **tls_options(settings),
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "loop": "auto",
        "http": "canary_mw.protocol:GuardedProtocol",
        "ws": "websockets-sansio",
        "ws_per_message_deflate": False,
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "access_log": False,
        "log_level": settings.log_level,
        "log_config": log_config(settings.log_level),
        "timeout_keep_alive": settings.keep_alive,
        "timeout_graceful_shutdown": settings.grace,
        "timeout_worker_healthcheck": _WORKER_HEALTHCHECK_TIMEOUT,
    }
    if settings.workers > 1:
        uvicorn.run(_APP, workers=settings.workers, **options)
        return
    server = Server(uvicorn.Config(_APP, **options))
    server.run()
    if not server.started:
        sys.exit(_STARTUP_FAILURE)


def tls_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options for TLS on the port of the proxy.

    Raises:
        ConfigError: a file cannot be used; uvicorn would print a traceback instead.
    """
    if settings.ssl_certfile is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, settings.ssl_certfile, settings.ssl_keyfile)
    if settings.ssl_ca_certs is not None:
        load_authorities(context, settings.ssl_ca_certs)
    return {
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
        "ssl_ca_certs": settings.ssl_ca_certs,
        "ssl_cert_reqs": CERT_REQS.index(settings.ssl_cert_reqs),
    }


def log_config(level: str) -> dict[str, Any]:
    """uvicorn's logging configuration plus the loggers of this package.

    Lines have the time, and the number of the process, because each worker says the same.
    """
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["formatters"]["default"]["fmt"] = "%(asctime)s %(levelprefix)s [%(process)d] %(message)s"
    config["loggers"]["canary_mw"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    # Without a handler the proxy writes its lines itself, in batches.
    config["loggers"]["canary_mw.access"] = {"handlers": [], "level": "INFO", "propagate": False}
    return config
