"""The second service of `lane_chain`: Flask, without a release; it asks the third one also while it sends its body."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import flask
from lane_chain import sync_clients, told

from canary_mw import CanaryWSGIMiddleware, StaticSource, current, propagate


def create_app() -> Any:
    """The app, which believes its machine."""
    told("STOCK")
    gets = [*sync_clients().values()]
    pool = propagate.carrying(ThreadPoolExecutor(8))
    app = flask.Flask(__name__)

    def lane() -> str:
        found = current()
        return "" if found is None else found.lane

    @app.get("/orders/<int:number>")
    def orders(number: int) -> Any:
        user = flask.request.headers["x-user"]
        get = partial(gets[number % 3], f"{os.environ['STOCK']}/stock", {"x-user": user})
        if number % 4 == 1:
            return {"user": user, "orders": lane(), **pool.submit(get).result()}
        if number % 4 == 2:
            gets[number % 3](f"{os.environ['STOCK']}/to-foreign", {"x-user": user})
        if number % 4 == 3:

            def body() -> Iterator[bytes]:
                yield b"   "
                yield json.dumps({"user": user, "orders": lane(), **get()}).encode()

            return flask.Response(body(), mimetype="application/json")
        return {"user": user, "orders": lane(), **get()}

    @app.get("/to-foreign")
    def to_foreign() -> Any:
        return flask.redirect(f"{os.environ['FOREIGN']}/redirected")

    return CanaryWSGIMiddleware(app, rules=StaticSource(""), trusted=["127.0.0.1"])
