"""The app of a pod: FastAPI with the middleware, whose settings are variables. It is the stable version itself."""

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from canary_mw import CanaryMiddleware


def create_app() -> FastAPI:
    """The app behind the middleware."""
    app = FastAPI()

    @app.get("/{path:path}")
    async def read(path: str) -> PlainTextResponse:
        return PlainTextResponse("stable")

    app.add_middleware(CanaryMiddleware)
    return app
