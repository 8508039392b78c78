"""Predicates of the app, and its function of the user: the same in both middlewares."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth_rules import auth_service
from direct import asked, scope_of
from middlewares import current, middleware
from rules import document
from servers import Pairs, respond
from wsgiservers import respond as wsgi_respond

from canary_mw import ConfigError, predicate, user
from canary_mw.control.sources.static import StaticSource
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.audience import registry
from canary_mw.routing.person import Person, Question
from canary_mw.routing.releases.overridden import LatchedRelease
from canary_mw.routing.releases.override import LatchCell, Override
from canary_mw.routing.table import RouteTable

pytestmark = pytest.mark.usefixtures("interface")

MAPPINGS = (
    document("shop", prefix="/shop/")
    + document("gray", prefix="/shop/", weight=0)
    + document("other", prefix="/other/", service="shop")
)
BETA = "audience: {predicate: beta}"
NOT_BETA = "audience: {not: {predicate: beta}}"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers ends with it."""
    monkeypatch.setattr(registry, "predicates", {})
    for module in ("answers", "registry"):
        monkeypatch.setattr(f"canary_mw.middleware.audience.{module}.predicates", registry.predicates)
    monkeypatch.setattr(registry, "users", [])


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What hangs waits for this, until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def rules(*lines: str) -> str:
    head = "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\nstable: shop\ngray: {gray: 100}\n"
    return MAPPINGS + head + "sticky: [{header: x-user}]\n" + "".join(f"{line}\n" for line in lines)


def served(text: str, **options: Any) -> tuple[Any, Counter[tuple[str, ...]]]:
    """A middleware of the rules around "app", with the service "gray" in the process; and what it counts."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"app")

    async def gray(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"gray")

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        return wsgi_respond(start_response, b"app")

    def wsgi_gray(environ: Any, start_response: Any) -> Any:
        return wsgi_respond(start_response, b"gray")

    asgi = current() == "asgi"
    services: Any = {"gray": gray if asgi else wsgi_gray}
    given = {"rules": StaticSource(text), "local": "shop", "services": services, **options}
    made = middleware(app if asgi else wsgi_app, **given)
    counts: Counter[tuple[str, ...]] = Counter()
    made.answers._tally = lambda *key, count=1: counts.update([key])
    return made, counts


ME = (("x-user", "me"),)


def bodies(text: str, *requests: tuple[str, Pairs], **options: Any) -> tuple[list[bytes], Counter[tuple[str, ...]]]:
    """The answers to requests, one after the other; and what was counted."""
    made, counts = served(text, **options)
    return [answer.body for answer in asked(made, *requests)], counts


def test_a_predicate_decides_with_head_and_scope_or_environ() -> None:
    seen: list[Any] = []

    @predicate("beta")
    def beta(head: Any, place: Any) -> bool:
        seen.append(place["path"] if "path" in place else place["PATH_INFO"])
        return bool(head.header(b"x-tester") == b"1")

    found, counts = bodies(rules(BETA), ("/shop/a", [*ME, ("x-tester", "1")]), ("/shop/b", ME))
    assert found == [b"gray", b"app"]
    assert seen == ["/shop/a", "/shop/b"]
    assert counts == {("predicates", "beta", "true"): 1, ("predicates", "beta", "false"): 1}


async def asynchronous(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("wrap", [lambda value: value, asynchronous], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("value", "result"), [(True, "true"), (False, "false"), (None, "false"), (1, "error"), ("no", "error")]
)
def test_only_true_is_true_and_what_is_no_answer_is_an_error(
    wrap: Any, value: Any, result: str, threaded: bool
) -> None:
    predicate("beta", timeout=20, threaded=threaded)(lambda head, place: wrap(value))
    found, counts = bodies(rules(BETA), ("/shop/", ME))
    assert found == [b"gray" if value is True else b"app"]
    assert counts == {("predicates", "beta", result): 1}


def failing(head: Any, place: Any) -> bool:
    raise ZeroDivisionError("of the app")


async def failing_later(head: Any, place: Any) -> bool:
    raise TimeoutError("of the app")


async def cancelled(head: Any, place: Any) -> bool:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return True


@pytest.mark.parametrize("text", [rules(BETA), rules(NOT_BETA)], ids=["beta", "not beta"])
@pytest.mark.parametrize("function", [failing, failing_later])
def test_a_predicate_that_raises_draws_nobody_and_is_logged_once(
    text: str, function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    predicate("beta", timeout=20)(function)
    found, counts = bodies(text, ("/shop/", ME), ("/shop/", ME))
    assert found == [b"app", b"app"]
    assert counts == {("predicates", "beta", "error"): 2}
    (record,) = [each for each in caplog.records if each.name == "canary_mw.audience"]
    assert record.getMessage().startswith(f"predicate beta ({function.__name__}) has failed")
    assert record.exc_info is not None


@pytest.mark.parametrize("text", [rules(BETA), rules(NOT_BETA)], ids=["beta", "not beta"])
@pytest.mark.parametrize("threaded", [False, True], ids=["async", "threaded"])
def test_a_predicate_that_hangs_is_left_behind(text: str, threaded: bool, never: threading.Event) -> None:
    async def waiting(head: Any, place: Any) -> bool:
        await asyncio.Event().wait()
        return True

    predicate("beta", timeout=0.01, threaded=threaded)((lambda head, place: never.wait()) if threaded else waiting)
    found, counts = bodies(text, ("/shop/", ME), ("/shop/", ME))
    assert found == [b"app", b"app"]
    assert counts == {("predicates", "beta", "timeout"): 2}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_what_would_end_a_thread_of_ours_is_an_error(error: type[BaseException]) -> None:
    @predicate("beta", timeout=5, threaded=True)
    def ending(head: Any, place: Any) -> bool:
        raise error

    # More than there are threads.
    found, counts = bodies(rules(NOT_BETA), *[("/shop/", ME)] * 20)
    assert (found, counts) == ([b"app"] * 20, {("predicates", "beta", "error"): 20})


def test_what_a_predicate_calls_may_be_cancelled() -> None:
    @predicate("beta")
    def calling(head: Any, place: Any) -> bool:
        raise asyncio.CancelledError

    found, counts = bodies(rules(NOT_BETA), ("/shop/", ME))
    assert (found, counts) == ([b"app"], {("predicates", "beta", "error"): 1})


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_would_end_the_loop_beside_the_threads_is_an_error(error: type[BaseException]) -> None:
    async def ending(head: Any, place: Any) -> bool:
        raise error

    if current() == "wsgi":
        predicate("beta", timeout=20)(ending)
        found, counts = bodies(rules(NOT_BETA), ("/shop/", ME), ("/shop/", ME))
        assert (found, counts) == ([b"app"] * 2, {("predicates", "beta", "error"): 2})


def test_a_predicate_that_is_cancelled_by_the_app_is_an_error() -> None:
    if current() == "asgi":
        predicate("beta", timeout=20)(cancelled)
        found, counts = bodies(rules(NOT_BETA), ("/shop/", ME))
        assert (found, counts) == ([b"app"], {("predicates", "beta", "error"): 1})


def test_who_is_late_three_times_in_a_minute_is_not_called_for_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now, calls = [1000.0], [0]

    @predicate("beta", timeout=1)
    def slow(head: Any, place: Any) -> bool:
        calls[0] += 1
        now[0] += 2 if calls[0] < 5 else 0
        return True

    made, counts = served(rules(BETA))
    made.answers.clock = lambda: now[0]
    for step, called in ((0, 1), (60, 2), (0, 3), (0, 4), (0, 4), (55, 4)):
        now[0] += step
        assert asked(made, ("/shop/", ME))[0].body == b"app"
        assert calls[0] == called
    now[0] += 5
    assert asked(made, ("/shop/", ME))[0].body == b"gray"
    assert counts == {("predicates", "beta", "timeout"): 6, ("predicates", "beta", "true"): 1}
    assert any("late three times in a minute" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize("audience", [BETA, NOT_BETA])
def test_a_predicate_that_nobody_registered_draws_nobody(audience: str, caplog: pytest.LogCaptureFixture) -> None:
    found, counts = bodies(rules(audience), ("/shop/", ME))
    assert found == [b"app"]
    assert counts == {("predicates", "beta", "unknown"): 1}
    assert any(
        "warning predicate-unknown GrayRelease r: there is no predicate beta" in each.getMessage()
        for each in caplog.records
    )


def test_a_predicate_is_asked_only_where_its_answer_counts() -> None:
    calls: list[str] = []

    @predicate("beta")
    def beta(head: Any, place: Any) -> bool:
        calls.append(head.path.decode())
        return False

    text = rules(
        "audience: {any: [{header: {x-staff: y}}, {all: [{header: {x-a: b}}, {predicate: beta}]}, {predicate: beta}]}",
        "choice: {header: x-gray}",
        "never: {ids: [anna]}",
    )
    found, _ = bodies(
        text,
        ("/shop/choice", [*ME, ("x-gray", "gray")]),
        ("/shop/list", [("x-user", "anna")]),
        ("/shop/staff", [*ME, ("x-staff", "y")]),
        ("/other/", ME),
        ("/shop/asked", ME),
    )
    assert found == [b"gray", b"app", b"gray", b"app", b"app"]
    assert calls == ["/shop/asked"]


def test_a_predicate_is_asked_once_a_request_also_for_two_releases() -> None:
    calls: list[str] = []

    @predicate("beta")
    def beta(head: Any, place: Any) -> bool:
        calls.append(head.path.decode())
        return True

    behind = document("behind", prefix="/shop", weight=0, service="gray") + rules(BETA)[len(MAPPINGS) :].replace(
        "name: r\nstable: shop\ngray: {gray: 100}", "name: q\ngray: {behind: 100}"
    )
    front = rules(BETA).replace("stable: shop\n", "").replace(document("shop", prefix="/shop/"), "")
    found, _ = bodies(front.replace("gray: {gray: 100}", "gray: {gray: 0}") + behind, ("/shop/", ME))
    assert (found, calls) == ([b"gray"], ["/shop/"])


def test_without_consent_no_cookie_is_set_or_read() -> None:
    predicate("agreed")(lambda head, place: head.header(b"x-agreed") == b"y")
    text = rules("missing: cookie", "cookie: {consent: agreed}").replace("sticky: [{header: x-user}]\n", "")
    made, _ = served(text)
    (first,) = asked(made, ("/shop/", []))
    assert (first.body, first.header("set-cookie")) == (b"app", None)
    (agreed,) = asked(made, ("/shop/", [("x-agreed", "y")]))
    assert agreed.body == b"gray"
    cookie = (agreed.header("set-cookie") or "").partition(";")[0]
    assert cookie.startswith("cmw_id=")
    assert asked(made, ("/shop/", [("cookie", cookie)]))[0].body == b"app"


PRO = "audience: {user: {plan: pro}}"
NOT_FREE = "audience: {not: {user: {plan: free}}}"


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("wrap", [lambda value: value, asynchronous], ids=["sync", "async"])
def test_the_function_of_the_user_gives_the_user(wrap: Any, threaded: bool) -> None:
    calls: list[str] = []

    @user(timeout=20, threaded=threaded)
    def found_user(place: Any) -> Any:
        path = place["path"] if "path" in place else place["PATH_INFO"]
        calls.append(path)
        return wrap({"plan": path.rpartition("/")[2]})

    found, counts = bodies(rules(PRO), ("/shop/pro", ME), ("/shop/free", ME), ("/other/pro", ME))
    assert found == [b"gray", b"app", b"app"]
    assert calls == ["/shop/pro", "/shop/free"]
    assert not counts


@pytest.mark.parametrize("audience", [PRO, NOT_FREE])
def test_where_the_function_of_the_user_fails_nobody_is_drawn(audience: str, caplog: pytest.LogCaptureFixture) -> None:
    @user
    def broken(place: Any) -> Any:
        raise KeyError("of the app")

    assert bodies(rules(audience), ("/shop/", ME))[0] == [b"app"]
    assert "the function of the user" in caplog.text


def test_a_key_may_be_of_the_user_that_the_function_gives() -> None:
    user(lambda place: {"id": 42})
    text = rules().replace("[{header: x-user}]", "[{user: id}]")
    assert bodies(text, ("/shop/", []))[0] == [b"gray"]


@pytest.mark.parametrize("given", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"timeout": "1"}])
def test_a_limit_that_cannot_be_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="no number of seconds"):
        predicate("beta", **given)
    with pytest.raises(ConfigError, match="no number of seconds"):
        user(**given)


@pytest.mark.parametrize("name", ["", None, lambda head, place: True])
def test_a_predicate_needs_a_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="no name of a predicate"):
        predicate(name)


def granting(request: httpx.Request) -> httpx.Response:
    """An AuthService that lets everybody in who has a token, and says which plan the token has."""
    plan = request.headers.get("authorization")
    return httpx.Response(200, headers={"x-plan": plan}) if plan else httpx.Response(401)


def for_pro(head: Any, place: Any) -> bool:
    """By the head, and by what the app would see."""
    seen = place["headers"] if "headers" in place else [(b"x-plan", place.get("HTTP_X_PLAN", "").encode())]
    return head.header(b"x-plan") == b"pro" and (b"x-plan", b"pro") in seen


def test_a_predicate_sees_what_the_auth_service_grants_and_not_what_a_client_forges() -> None:
    predicate("beta")(for_pro)
    text = rules(BETA) + auth_service(allowed_authorization_headers="[x-plan]")
    found, _ = bodies(
        text,
        ("/shop/", [*ME, ("authorization", "pro")]),
        ("/shop/", [*ME, ("authorization", "free"), ("x-plan", "pro")]),
        ("/shop/", [*ME, ("x-plan", "pro")]),
        transports={"auth": httpx.MockTransport(granting)},
    )
    assert found == [b"gray", b"app", b""]


def test_a_variant_that_is_guarded_is_reached_by_nobody_unasked() -> None:
    predicate("beta")(lambda head, place: True)
    text = rules(BETA).replace("service: shop\n", "service: shop\nbypass_auth: true\n", 1)
    found, _ = bodies(
        text + auth_service(),
        ("/shop/", [*ME, ("authorization", "any")]),
        ("/shop/", ME),
        transports={"auth": httpx.MockTransport(granting)},
    )
    assert found == [b"gray", b""]


def test_what_another_canary_mw_has_sent_is_decided_without_a_question() -> None:
    calls: list[str] = []

    @predicate("beta")
    def beta(head: Any, place: Any) -> bool:
        calls.append("asked")
        return True

    comment = RouteTable.from_yaml(rules(BETA)).mappings[0].via_comment.decode()
    found, _ = bodies(rules(BETA), ("/shop/", [*ME, ("via", f"1.1 canary-mw-other {comment}")]))
    assert (found, calls) == ([b"app"], [])


def test_a_release_that_was_taken_back_asks_nobody() -> None:
    latch = LatchCell(memoryview(bytearray(8)).cast("Q"))
    written = RouteTable.from_yaml(rules(BETA)).releases["r"].written
    release = LatchedRelease(written, Override(weights={"gray": 100}, attempt=3, latch=latch), latch)
    questions: list[Question] = []
    head, person = RequestHead("GET", "/shop/", [("x-user", "me")]), Person(questions=questions)
    assert (release.assign(head, person, 0.0).reason, questions) == ("audience", [Question("beta")])
    latch.cells[0] = 3
    assert (release.assign(head, person, 0.0).reason, questions) == ("rolled_back", [Question("beta")])


def test_a_user_that_comes_late_is_known_and_one_that_does_not_come_is_nobody() -> None:
    now = [0.0]

    @user(timeout=1)
    def slow(place: Any) -> Any:
        now[0] += 5
        return {"plan": "pro"}

    made, _ = served(rules(PRO))
    made.answers.clock = lambda: now[0]
    assert [answer.body for answer in asked(made, *[("/shop/", ME)] * 5)] == [b"gray"] * 5

    @user(timeout=0.01)
    async def hanging(place: Any) -> Any:
        await asyncio.Event().wait()

    assert bodies(rules(NOT_FREE), ("/shop/", ME))[0] == [b"app"]


def test_a_websocket_asks_as_a_request_does() -> None:
    if current() == "wsgi":
        return
    decisions: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        decisions.append(scope["canary_mw"].release)

    predicate("beta")(lambda head, scope: scope["type"] == "websocket" and head.header(b"x-user") == b"me")
    made: Any = middleware(app, rules=StaticSource(rules(BETA)), local=("shop", "gray"))

    async def main() -> None:
        for name in ("me", "other"):
            scope = {**scope_of("/shop/", [("x-user", name)]), "type": "websocket", "scheme": "ws"}
            del scope["method"]
            await made(scope, asyncio.Event().wait, asyncio.Event().wait)
        await made.aclose()

    asyncio.run(main())
    assert [(each.variant, each.reason) for each in decisions] == [("gray", "sticky"), ("stable", "audience")]
