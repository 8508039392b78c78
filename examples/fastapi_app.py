"""A shop in FastAPI that forwards a part of its requests to its gray version.

uvicorn --app-dir examples gray_app:app --port 9001 &
uvicorn --app-dir examples fastapi_app:app --port 8000 &
curl -H 'gray: true' http://127.0.0.1:8000/shop/
"""

import os
from pathlib import Path

from fastapi import FastAPI, Request

from canary_mw import CanaryMiddleware

RULES = os.environ.get("SHOP_RULES", str(Path(__file__).with_name("fastapi_rules")))
# In a cluster, DNS resolves the services of the rules. Elsewhere their URLs have to be given.
GRAY_URL = os.environ.get("SHOP_GRAY_URL", "http://127.0.0.1:9001")

app = FastAPI()
app.add_middleware(CanaryMiddleware, rules=RULES, local="shop-stable", upstreams={"shop-gray": GRAY_URL})


@app.get("/shop/")
async def shop(request: Request) -> dict[str, str | None]:
    """Return the version that answers and the Mapping that chose it."""
    decision = request.scope["canary_mw"]
    return {"version": "stable", "mapping": decision and decision.mapping.name}


@app.get("/about")
async def about() -> dict[str, str]:
    """No Mapping matches this path, so the app always answers it."""
    return {"version": "stable"}
