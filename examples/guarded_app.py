"""An app in FastAPI that asks `auth_service.py` about every request but those of probes.

See `auth_service.py` for how to run both.
"""

import os
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header

from canary_mw import CanaryMiddleware

RULES = str(Path(__file__).with_name("auth_rules"))
AUTH_URL = os.environ.get("AUTH_URL", "http://127.0.0.1:3000")

app = FastAPI()
app.add_middleware(CanaryMiddleware, rules=RULES, local="shop", upstreams={"auth": AUTH_URL})


@app.get("/shop/")
async def shop(x_user: Annotated[str, Header()], x_group: Annotated[str, Header()]) -> dict[str, str]:
    """Only the auth service can have set these headers."""
    return {"user": x_user, "group": x_group}


@app.get("/healthz")
async def health() -> dict[str, str]:
    """Nobody is asked about a probe."""
    return {"status": "ok"}
