"""A Flask app behind the middleware, for servers in processes of their own: `PREFORKED_RULES` names its rules."""

import os
from typing import Any

import flask

from canary_mw import CanaryWSGIMiddleware

app = flask.Flask(__name__)


@app.get("/shop/")
def shop() -> Any:
    """A page."""
    return "stable"


app.wsgi_app = CanaryWSGIMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, rules=os.environ["PREFORKED_RULES"], local="shop-stable"
)
