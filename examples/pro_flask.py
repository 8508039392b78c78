"""A shop in Flask whose signed-in users with the plan "pro" get its gray version.

gunicorn --chdir examples flask_gray_app:app --bind 127.0.0.1:9001 &
gunicorn --chdir examples pro_flask:app --bind 127.0.0.1:8000 --threads 16 &
curl -H 'authorization: Bearer ida-token' http://127.0.0.1:8000/shop/
"""

import os
from pathlib import Path
from typing import Any

from flask import Flask, g, request

import canary_mw
import canary_mw.flask

RULES = Path(__file__).with_name("pro_rules")
GRAY_URL = os.environ.get("SHOP_GRAY_URL", "http://127.0.0.1:9001")
PLANS = {"ida": "pro", "otto": "free"}

app = Flask(__name__)


@app.before_request
def sign_in() -> None:
    """Sign in by a token. Yours is an extension, as Flask-Login."""
    name = request.headers.get("authorization", "").removeprefix("Bearer ").removesuffix("-token")
    g.user = {"id": name, "plan": PLANS[name]} if name in PLANS else None


# Behind what signs in.
canary_mw.flask.init_app(app, rules=RULES, local="shop-stable", upstreams={"shop-gray": GRAY_URL})


@canary_mw.user
def user(environ: dict[str, Any]) -> Any:
    """Who is signed in; with Flask-Login it is `current_user`."""
    return g.user


@app.get("/shop/")
def shop() -> dict[str, str]:
    """Return the version that answers."""
    return {"version": "stable"}
