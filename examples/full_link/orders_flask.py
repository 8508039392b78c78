"""The second of three services in one lane: it has no release of its own, and carries the lane on.

STOCK=http://127.0.0.1:8003 gunicorn -b 127.0.0.1:8002 orders_flask:app
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from flask import Flask

from canary_mw import CanaryWSGIMiddleware, StaticSource, current, propagate

# Whom this service tells, and whom it believes, which is the first one.
propagate.install(["stock", "127.0.0.1"])

app = Flask(__name__)
app.wsgi_app = CanaryWSGIMiddleware(app.wsgi_app, rules=StaticSource(""), trusted=["127.0.0.1"])  # type: ignore[method-assign]

# A pool of threads does not know whose work it does, so it is told.
pool = propagate.carrying(ThreadPoolExecutor(4))


def ask_stock() -> Any:
    return requests.get(f"{os.environ['STOCK']}/stock", timeout=5).json()


@app.get("/orders")
def orders() -> dict[str, str]:
    found = current()
    return {"orders": found.lane if found is not None else "", **pool.submit(ask_stock).result()}
