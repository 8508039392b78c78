"""An ordinary app of Flask. `ordinary_flask:served` is for servers that import it."""

import time
from collections.abc import Iterator
from typing import Any

import flask
from ordinary import EVENTS, KEY, digest, wrapped_if_told

from canary_mw.types import WSGIApp

pages = flask.Blueprint("pages", __name__)


@pages.get("/")
def home() -> Any:
    """A page that caches may keep."""
    if flask.request.headers.get("if-none-match") == '"1"':
        return "", 304, {"etag": '"1"'}
    return {"hello": "world"}, 200, {"etag": '"1"', "cache-control": "no-store"}


@pages.post("/login")
def login() -> Any:
    """Begins a session."""
    flask.session["user"] = flask.request.form["user"]
    return flask.redirect(flask.url_for("pages.me"), 303)


@pages.get("/me")
def me() -> Any:
    """Who has begun the session."""
    return flask.session.get("user", "nobody")


@pages.route("/upload", methods=["POST", "PUT"])
def upload() -> Any:
    """Takes a body."""
    return digest(flask.request.get_data()), 201


@pages.get("/stream")
def stream() -> Any:
    """A body in pieces, with a pause after each."""
    pause = float(flask.request.args.get("pause", 0))

    def chunks() -> Iterator[bytes]:
        for event in EVENTS:
            yield event
            time.sleep(pause)

    return flask.Response(chunks(), mimetype=flask.request.args.get("type", "text/plain"))


@pages.get("/where/<path:path>")
def where(path: str) -> Any:
    """All that the app knows of the target."""
    request = flask.request
    return [path, request.path, request.script_root, request.query_string.decode(), request.url, request.root_url]


@pages.route("/cookies", methods=["GET", "DELETE"])
def cookies() -> Any:
    """Two cookies."""
    response = flask.Response(status=204)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2", path="/sub")
    return response


@pages.get("/fails")
def fails() -> Any:
    """A mistake."""
    raise LookupError("as it happens")


@pages.get("/sub/items/<int:number>/")
def item(number: int) -> Any:
    """A page whose address ends with a slash."""
    return {"number": number}


def app() -> WSGIApp:
    """The app."""
    made = flask.Flask("ordinary", static_folder=None)
    made.secret_key = KEY
    made.register_blueprint(pages)
    return made


def served() -> WSGIApp:
    """See the module."""
    return wrapped_if_told(app())
