"""A uvicorn server that ends as it was asked to, and what its process needs."""

import resource
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import uvicorn

from canary_mw.client.tls import load_authorities, load_certificate
from canary_mw.server.settings import CERT_REQS, Settings


class Server(uvicorn.Server):
    """Exits with 0 after a signal; uvicorn raises it again when all is done, which looks like a kill."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Forget the signals that were obeyed."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def raise_file_limit() -> None:
    """Let this process, and those that it starts, have as many connections as the system allows.

    The usual soft limit of 1024 open files is there for programs that still call select().
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the most is more than the system means it to be, things stay as they are.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


_APP = "canary_mw.proxy:create_app"
# uvicorn's own exit status for an app that cannot start.
_NOT_STARTED = 3
# Seconds until a worker that is not up, or does not answer its parent, is given up. uvicorn's 5 are too few on a busy
# node: workers would be killed while they start, again and again, and a rolling restart would be called off.
_PATIENCE = 30


def run(settings: Settings) -> None:
    """Serve until a signal ends it; settings are read from the environment by each worker."""
    import uvicorn

    raise_file_limit()
    options: dict[str, Any] = {
        **tls_options(settings),
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "loop": "auto",
        "http": "canary_mw.protocol:GuardedProtocol",
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "access_log": False,
        "log_level": settings.log_level,
        "log_config": log_config(settings.log_level),
        "timeout_keep_alive": settings.keep_alive,
        "timeout_graceful_shutdown": settings.grace,
        "timeout_worker_healthcheck": _PATIENCE,
    }
    if settings.workers > 1:
        uvicorn.run(_APP, workers=settings.workers, **options)
        return
    server = Server(uvicorn.Config(_APP, **options))
    server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)


def tls_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options for TLS on our own port.

    Raises:
        ConfigError: a file cannot be used; uvicorn itself would show a traceback.
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
    """uvicorn's own configuration, with our loggers beside its own; the access log alone goes to stdout."""
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["formatters"]["canary"] = {"format": "%(message)s"}
    config["handlers"]["canary"] = {
        "class": "logging.StreamHandler",
        "formatter": "canary",
        "stream": "ext://sys.stdout",
    }
    config["loggers"]["canary_mw"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    config["loggers"]["canary_mw.access"] = {"handlers": ["canary"], "level": "INFO", "propagate": False}
    return config
