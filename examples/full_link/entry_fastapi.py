"""The first of three services in one lane: it decides who is gray, and asks the second one.

ORDERS=http://127.0.0.1:8002 uvicorn entry_fastapi:app --port 8001
"""

import os

import httpx
from fastapi import FastAPI, Request

from canary_mw import CanaryMiddleware, propagate

# From now on the requests of httpx, requests and aiohttp tell the hosts of the release of the lane.
propagate.install()

app = FastAPI()
# One process is both versions.
rules = os.path.join(os.path.dirname(__file__), "entry.yaml")
app.add_middleware(CanaryMiddleware, rules=rules, local=("entry", "entry-gray"))


@app.get("/checkout")
async def checkout(request: Request) -> dict[str, str]:
    async with httpx.AsyncClient() as client:
        behind = (await client.get(f"{os.environ['ORDERS']}/orders")).json()
    return {"entry": request.scope["canary_mw"].release.variant, **behind}
