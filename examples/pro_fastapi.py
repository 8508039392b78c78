"""A shop in FastAPI whose signed-in users with the plan "pro" get its gray version.

uvicorn --app-dir examples gray_app:app --port 9001 &
uvicorn --app-dir examples pro_fastapi:app --port 8000 &
curl -H 'authorization: Bearer ida-token' http://127.0.0.1:8000/shop/
"""

import os
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from canary_mw import CanaryMiddleware

RULES = Path(__file__).with_name("pro_rules")
GRAY_URL = os.environ.get("SHOP_GRAY_URL", "http://127.0.0.1:9001")
PLANS = {"ida": "pro", "otto": "free"}


class User(BaseUser):
    """Who is signed in; the release reads `id` and `plan`."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.plan = PLANS[name]

    @property
    def is_authenticated(self) -> bool:
        """A user that there is."""
        return True


class Tokens(AuthenticationBackend):
    """Signs in by a token. Yours looks into a session or a JWT that it has verified."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """The user of a request."""
        name = conn.headers.get("authorization", "").removeprefix("Bearer ").removesuffix("-token")
        return (AuthCredentials(["authenticated"]), User(name)) if name in PLANS else None


app = FastAPI()
# The last one that is added is the outermost: it has signed the user in when the first one asks who it is.
app.add_middleware(CanaryMiddleware, rules=RULES, local="shop-stable", upstreams={"shop-gray": GRAY_URL})
app.add_middleware(AuthenticationMiddleware, backend=Tokens())


@app.get("/shop/")
async def shop(request: Request) -> dict[str, str]:
    """Return the version that answers."""
    return {"version": "stable"}
