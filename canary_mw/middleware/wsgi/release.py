"""The headers of a release on the answers of a WSGI app."""

from canary_mw.forwarding.release_headers import ReleaseHeaders
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.wsgi.in_process import text_pairs
from canary_mw.routing.table import RouteTable
from canary_mw.types import ExcInfo, StartResponse, Write


def with_headers(start_response: StartResponse, headers: ReleaseHeaders | None) -> StartResponse:
    """A `start_response` that adds the headers of a release; without any, the given one."""
    if headers is None:
        return start_response

    def start(status: str, pairs: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return start_response(status, text_pairs(headers.add(int(status[:3]), raw)), exc_info)

    return start


def noting(start_response: StartResponse, head: RequestHead, table: RouteTable) -> StartResponse:
    """A `start_response` that notes the headers for the LogServices of a table; without any, the given one."""
    if not table.settings.logs:
        return start_response

    def start(status: str, pairs: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        head.answered = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return start_response(status, pairs, exc_info)

    return start
