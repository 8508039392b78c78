"""Flask: in which order its functions run, what they see, and that bodies pass as they come."""

import json
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from direct import ask_wsgi, environ_of
from flask import Blueprint, Flask, Response, abort, g, request, stream_with_context
from rules import document
from shells import service

import canary_mw.flask
from canary_mw import ConfigError, predicate, user
from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.audience import registry
from canary_mw.middleware.frameworks.kept_input import KeptInput
from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer

RULES = (
    document("shop", prefix="/shop/")
    + document("gray", prefix="/shop/", weight=0)
    + "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\nstable: shop\ngray: {gray: 100}\n"
    + "sticky: [{user: id}]\naudience: {user: {plan: pro}}\n"
)
PRO = ("x-login", "pro")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers ends with it."""
    monkeypatch.setattr(registry, "users", [])


class Log(Observer):
    """Keeps the records."""

    def __init__(self) -> None:
        self.ends: list[Finished] = []

    def finished(self, record: Finished) -> None:
        """See `Observer`."""
        self.ends.append(record)


LOG = Log()


@pytest.fixture(params=[False, True], ids=["unobserved", "observed"])
def app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """An app that signs in by a header, with a middleware whose gray service is in the process."""
    LOG.ends.clear()
    yield from made(observers=[LOG] if request.param else [])


def made(**options: Any) -> Iterator[Flask]:
    flask = Flask("shop")

    @flask.before_request
    def sign_in() -> None:
        g.order = ["sign in"]
        if request.headers.get("x-form"):
            g.order.append(request.form.get("token", ""))
        plan = request.headers.get("x-login")
        g.user = {"id": 1, "plan": plan} if plan else None

    services = {"gray": service(b"gray ")("wsgi")}
    middleware = canary_mw.flask.init_app(flask, StaticSource(RULES), local="shop", services=services, **options)
    user(lambda environ: g.user)
    yield flask
    middleware.close()


def ask(app: Flask, target: str, *headers: tuple[str, str], **more: Any) -> Any:
    return ask_wsgi(app, environ_of(target, headers, **more))


def test_functions_before_and_after_a_request_run_once_and_in_order(app: Flask) -> None:
    seen: list[list[str]] = []
    blue = Blueprint("blue", "blue")

    def noting(name: str) -> Callable[[], None]:
        return lambda: g.order.append(name)

    app.before_request(noting("later"))
    blue.before_request(noting("blueprint"))
    blue.add_url_rule("/shop/", view_func=lambda: g.order.append("view") or {"a": 1})
    app.register_blueprint(blue)

    @app.after_request
    def after(response: Response) -> Response:
        seen.append([*g.order, response.get_data(as_text=True)])
        response.headers["x-after"] = "1"
        return response

    local, gray = ask(app, "/shop/"), ask(app, "/shop/", PRO)
    assert seen == [["sign in", "later", "blueprint", "view", '{"a":1}\n'], ["sign in", "gray "]]
    assert (local.header("x-after"), gray.header("x-after")) == ("1", "1")
    assert (local.header("x-canary-variant"), gray.header("x-canary-variant")) == ("stable", "gray")


def test_a_later_function_may_answer_and_handlers_of_errors_do(app: Flask) -> None:
    @app.before_request
    def stop() -> Any:
        return ("stopped", 402) if request.headers.get("x-stop") else None

    @app.errorhandler(LookupError)
    def handled(error: LookupError) -> Any:
        return f"handled {error}", 418

    @app.get("/shop/<what>")
    def view(what: str) -> Any:
        if what == "abort":
            abort(409)
        raise LookupError(what)

    assert ask(app, "/shop/a", ("x-stop", "1")).status == 402
    assert (ask(app, "/shop/a").status, ask(app, "/shop/a").body) == (418, b"handled a")
    assert ask(app, "/shop/abort").status == 409
    assert ask(app, "/shop/a", ("x-stop", "1")).header("x-canary-variant") == "stable"


def test_an_error_that_nobody_handles_is_that_of_flask(app: Flask) -> None:
    @app.get("/shop/")
    def view() -> Any:
        raise ZeroDivisionError("of the view")

    assert ask(app, "/shop/").status == 500
    app.testing = True
    with pytest.raises(ZeroDivisionError):
        ask(app, "/shop/")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_a_form_that_was_read_before_is_forwarded_whole(app: Flask, kind: str) -> None:
    body = b"token=abc&x=" + b"y" * 70_000
    if kind.startswith("multipart"):
        head = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        body = head % (b"token", b"abc") + head % (b"x", b"y" * 70_000) + b"--b--\r\n"
    seen: list[str] = []

    @app.post("/shop/")
    def view() -> str:
        seen.append(request.form["token"])
        return "ok"

    headers = (("x-form", "1"), ("content-type", kind))
    assert ask(app, "/shop/", PRO, *headers, body=body, method="POST").body == b"gray " + body
    assert ask(app, "/shop/", *headers, body=body, method="POST").body == b"ok"
    assert seen == ["abc"]


def test_a_view_that_streams_is_not_collected(app: Flask) -> None:
    closed: list[str] = []

    @app.get("/shop/")
    def view() -> Any:
        def pieces() -> Iterator[str]:
            try:
                while True:
                    yield f"{request.path} "
            finally:
                closed.append("closed")

        return Response(stream_with_context(pieces()), mimetype="text/plain")

    started: list[Any] = []

    def start_response(*given: Any) -> Any:
        started.append(given)
        return bytes

    body = app(environ_of("/shop/"), start_response)
    chunks = iter(body)
    assert [next(chunks) for _ in range(3)] == [b"/shop/ "] * 3
    assert started[0][0] == "200 OK"
    body.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]
    assert [each.reason for each in LOG.ends] in ([], ["client left"])


def test_an_answer_of_another_service_is_not_collected(app: Flask) -> None:
    closed: list[str] = []

    class Endless:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            return b"piece"

        def close(self) -> None:
            closed.append("closed")

    def gray(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/event-stream")])
        return Endless()

    made = Flask("other")
    middleware = canary_mw.flask.init_app(made, StaticSource(RULES), local="shop", services={"gray": gray})
    user(lambda environ: {"id": 1, "plan": "pro"})
    body = made(environ_of("/shop/"), lambda *given: bytes)
    chunks = iter(body)
    assert [next(chunks) for _ in range(3)] == [b"piece"] * 3
    body.close()  # type: ignore[attr-defined]
    assert closed == ["closed"]
    middleware.close()


def test_an_app_has_one_middleware(app: Flask) -> None:
    with pytest.raises(ConfigError, match="already"):
        canary_mw.flask.init_app(app, StaticSource(RULES), local="shop")


def test_a_request_in_a_thread_sees_its_own_user(app: Flask) -> None:
    app.add_url_rule("/shop/", view_func=lambda: {"plan": g.user and g.user["plan"]})
    predicate("of g", timeout=20, threaded=True)(lambda head, environ: g.user["plan"] == "pro")
    wrong: list[Any] = []

    def run(number: int) -> None:
        for turn in range(20):
            plan = "pro" if (number + turn) % 2 else "free"
            answer = ask(app, "/shop/", ("x-login", plan))
            if answer.body != b"gray " if plan == "pro" else json.loads(answer.body) != {"plan": "free"}:
                wrong.append((plan, answer))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_kept_of_an_input_can_be_read_again() -> None:
    for limit, expected in ((100, b"one\ntwo\nthree"), (5, b"three")):
        kept = KeptInput(BytesIO(b"one\ntwo\nthree"), limit)
        assert (kept.readline(), kept.read(2), kept.readline(1), kept.read(1)) == (b"one\n", b"tw", b"o", b"\n")
        assert kept.again().read() == expected
    kept = KeptInput(BytesIO(b"one\ntwo\nthree"), 100)
    assert kept.readlines(1) == [b"one\n"]
    assert kept.read(1) == b"t"
    again = kept.again()
    assert (again.read(2), again.readline(1), again.readline()) == (b"on", b"e", b"\n")
    assert [again.readline(1), *again] == [b"t", b"wo\n", b"three"]
    kept = KeptInput(BytesIO(b"one\ntwo"), 100)
    assert [*kept] == [b"one\n", b"two"]
    assert kept.again().readlines() == [b"one\n", b"two"]
    assert KeptInput(BytesIO(b"unread"), 100).again().read() == b"unread"
