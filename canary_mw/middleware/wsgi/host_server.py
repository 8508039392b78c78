"""What the server around a middleware adds to responses on its own: `date` and `server`."""

from functools import lru_cache

from canary_mw.types import Environ, ExcInfo, StartResponse, Write

_DATE_AND_SERVER = frozenset(("date", "server"))
# By the first word of `SERVER_SOFTWARE`, in lower case. Some add them where a response has none, Werkzeug always.
_ADDED = {
    **dict.fromkeys(("werkzeug", "waitress", "gunicorn", "cheroot", "wsgiserver", "granian"), _DATE_AND_SERVER),
    "gevent": frozenset(("date",)),
}


def without_own_headers(environ: Environ, start_response: StartResponse) -> StartResponse:
    """A `start_response` that drops what the server adds: a client gets one of each, and that of its server."""
    own = _added_by(environ.get("SERVER_SOFTWARE", ""))
    if not own:
        return start_response

    def start(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        return start_response(status, [pair for pair in headers if pair[0].lower() not in own], exc_info)

    return start


@lru_cache(16)
def _added_by(software: str) -> frozenset[str]:
    name = software.partition("/")[0].partition(" ")[0].lower()
    return _ADDED.get(name, frozenset())
