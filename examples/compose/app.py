"""A service that answers with its version, for compose.yaml. It runs in the image of canary-mw, which has Starlette."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def version(request: Request) -> JSONResponse:
    """Return the version that answers and the path that it got."""
    return JSONResponse({"version": os.environ["VERSION"], "path": request.url.path})


app = Starlette(routes=[Route("/{path:path}", version)])
