"""What the guarded protocol takes from the inside of uvicorn, checked when it is imported.

uvicorn may change these names in any release. A version that does not have them is refused with the command that
installs one that has; a version that is newer or older than those that are tried is used, and a warning says so.
"""

import inspect
import logging

import uvicorn

from canary_mw.exceptions import ConfigError

logger = logging.getLogger("canary_mw.protocol")

# The range of the extra `serve` in pyproject.toml.
TRIED_FROM, TRIED_BELOW = (0, 53), (0, 55)
REMEDY = "pip install 'canary-mw[serve]' brings a version that is tried"

PROTOCOL_METHODS = (
    "_get_upgrade",
    "_should_upgrade",
    "_start_asgi_task",
    "connection_lost",
    "connection_made",
    "data_received",
    "eof_received",
    "handle_websocket_upgrade",
    "on_body",
    "on_message_complete",
    "on_response_complete",
    "shutdown",
    "timeout_keep_alive_handler",
)
WEBSOCKET_METHODS = (
    "connection_lost",
    "data_received",
    "handle_close",
    "handle_connect",
    "handle_cont",
    "handle_parser_exception",
    "handle_ping",
    "keepalive_timeout",
    "on_task_complete",
    "receive",
    "resume_writing",
    "send",
    "send_500_response",
    "shutdown",
)
CYCLE_METHODS = ("receive", "run_asgi", "send", "send_500_response")
CYCLE_ARGUMENTS = (
    "scope",
    "transport",
    "flow",
    "logger",
    "access_logger",
    "access_log",
    "default_headers",
    "message_event",
    "expect_100_continue",
    "keep_alive",
    "on_response",
)

try:
    from uvicorn._types import HTTPScope
    from uvicorn.protocols.http.flow_control import service_unavailable
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.protocols.utils import ClientDisconnected, get_client_addr, get_path_with_query_string
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from uvicorn.server import ServerState
except ImportError as exc:
    raise ConfigError(f"uvicorn {uvicorn.__version__} does not fit the guarded protocol: {exc}", hint=REMEDY) from exc

__all__ = [
    "ClientDisconnected",
    "HTTPScope",
    "HttpToolsProtocol",
    "RequestResponseCycle",
    "ServerState",
    "WebSocketsSansIOProtocol",
    "get_client_addr",
    "get_path_with_query_string",
    "service_unavailable",
]


def missing_names(protocol: type, cycle: type, websocket: type = WebSocketsSansIOProtocol) -> list[str]:
    """What is not there of all that is overridden or called, as `Class.name`."""
    names = [(protocol, name) for name in PROTOCOL_METHODS] + [(cycle, name) for name in CYCLE_METHODS]
    names += [(websocket, name) for name in WEBSOCKET_METHODS]
    found = [f"{owner.__name__}.{name}" for owner, name in names if not hasattr(owner, name)]
    arguments = inspect.signature(cycle).parameters
    return found + [f"{cycle.__name__}({name}=)" for name in CYCLE_ARGUMENTS if name not in arguments]


def check_version(version: str, missing: list[str]) -> str | None:
    """A warning about a version that is not tried, None for one that is.

    Raises:
        ConfigError: names are missing, so that this version cannot serve.
    """
    if missing:
        raise ConfigError(f"uvicorn {version} does not fit the guarded protocol: no {', '.join(missing)}", hint=REMEDY)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if TRIED_FROM <= numbers < TRIED_BELOW:
        return None
    return f"uvicorn {version} is not tried with the guarded protocol; {REMEDY}"


_warning = check_version(uvicorn.__version__, missing_names(HttpToolsProtocol, RequestResponseCycle))
if _warning:
    logger.warning("%s", _warning)
