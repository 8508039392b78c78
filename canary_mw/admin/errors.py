"""Answers of the admin port that are errors."""

from collections.abc import Mapping as Dict

from starlette.responses import JSONResponse

from canary_mw.admin.models.common import ErrorAnswer


class Refused(Exception):
    """A request that cannot be answered.

    Args:
        code: stable, lower-case, words joined by "-".
        message: what is wrong, and what to do.
        headers: more of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: Dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def error_response(status: int, code: str, message: str, headers: Dict[str, str] | None = None) -> JSONResponse:
    """The answer with an error."""
    body: ErrorAnswer = {"error": {"code": code, "message": message}}
    return JSONResponse(body, status, dict(headers or {}))
