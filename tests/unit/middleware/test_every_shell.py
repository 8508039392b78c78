"""What must be the same in every place where a middleware can be: around apps, and inside of frameworks.

The user signs in inside of the framework, and the release asks for the plan of that user.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth_rules import auth_service
from direct import Direct
from rules import document
from shells import ASGI_SHELLS, SHELLS, Shop, service, shop

from canary_mw import Metrics, current, predicate, propagate, record, user
from canary_mw.middleware.audience import registry
from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer
from canary_mw.propagate import context
from canary_mw.testing import all_stable, gray_answered_by

every_shell = pytest.mark.parametrize("shell", SHELLS)

PRO, FREE = ("x-login", "1:pro"), ("x-login", "2:free")
GRAY = {"gray": service(b"gray ", 200, (b"set-cookie", b"a=1"), (b"set-cookie", b"a=2"))}
MAPPINGS = (
    document("shop", prefix="/shop/")
    + document("gray", prefix="/shop/", weight=0)
    + document("elsewhere", prefix="/elsewhere/", service="gray")
)


def rules(*lines: str, audience: str = "{user: {plan: pro}}", gray: str = "{gray: 100}", stable: str = "shop") -> str:
    head = "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\n"
    fields = (f"stable: {stable}", f"gray: {gray}", "sticky: [{user: id}]", f"audience: {audience}", *lines)
    return MAPPINGS + head + "".join(f"{each}\n" for each in fields)


RULES = rules()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers ends with it."""
    monkeypatch.setattr(registry, "users", [])
    before = dict(registry.predicates)
    yield
    registry.predicates.clear()
    registry.predicates.update(before)


def told(answer: Direct) -> Any:
    """What the view of the shop has told."""
    assert answer.status == 200
    return json.loads(answer.body)


def ask(shell: str, text: str, *headers: tuple[str, str], **more: Any) -> Direct:
    with shop(shell, text, GRAY, **more) as served:
        return served.ask("/shop/", *headers)


@pytest.mark.parametrize("shell", [*SHELLS, "fastapi"])
def test_the_plan_of_the_signed_in_user_decides(shell: str) -> None:
    with shop(shell, RULES, GRAY) as served:
        pro, free, nobody = served.ask_all(("/shop/", [PRO]), ("/shop/", [FREE]), ("/shop/", []))
    assert (pro.body, pro.header("x-canary-variant")) == (b"gray ", "gray")
    for answer, plan in ((free, "free"), (nobody, None)):
        assert answer.header("x-canary-variant") == "stable"
        assert answer.header("x-page") == "1"
        assert told(answer)["variant"] == "stable"
        assert (told(answer)["user"] or {}).get("plan") == plan


NAMES = "x-user user plan x-plan session canary-mw.user canary-mw-user x-canary-lane x-canary-variant".split()


@every_shell
def test_forged_headers_change_nothing(shell: str) -> None:
    cookie = ("cookie", "plan=pro; user=pro; session=pro; cmw_in_r=gray")
    forged = [[FREE, cookie, (name, value)] for name in NAMES for value in ("pro", "r=gray", '{"plan":"pro"}')]
    with shop(shell, RULES, GRAY) as served:
        for answer in served.ask_all(*(("/shop/?plan=pro&user=pro", headers) for headers in forged)):
            assert (told(answer)["variant"], told(answer)["lane"]) == ("stable", None)


@every_shell
def test_the_lane_of_a_trusted_peer_counts(shell: str) -> None:
    lane = ("x-canary-lane", "r=gray")
    assert ask(shell, RULES, FREE, lane, trusted=["127.0.0.1"]).body == b"gray "


@every_shell
def test_a_request_is_forwarded_with_its_body_and_all_cookies_come_back(shell: str) -> None:
    with shop(shell, RULES, GRAY) as served:
        answer = served.ask("/shop/", PRO, method="POST", body=b"of the client" * 9000)
    assert answer.body == b"gray " + b"of the client" * 9000
    cookies = [value.strip() for name, value in answer.headers if name.lower() == "set-cookie"]
    assert [each for each in cookies if each.startswith("a=")] == ["a=1", "a=2"]


@every_shell
def test_a_path_that_the_framework_does_not_know_is_forwarded(shell: str) -> None:
    with shop(shell, RULES, GRAY) as served:
        found, missing = served.ask_all(("/elsewhere/x", []), ("/nowhere/", []))
    assert (found.status, found.body) == (200, b"gray ")
    assert missing.status == 404


@every_shell
def test_the_view_reads_its_body_and_may_stream(shell: str, recwarn: pytest.WarningsRecorder) -> None:
    with shop(shell, RULES, GRAY) as served:
        assert told(served.ask("/shop/", FREE, method="POST", body=b"posted"))["body"] == "posted"
        if shell != "django sync in asgi":
            # There Django itself warns that it has to collect the stream.
            answer = served.ask("/shop/stream", FREE)
            assert (answer.body, answer.header("x-canary-variant")) == (b"one two", "stable")


@every_shell
def test_a_session_may_say_who_is_drawn(shell: str) -> None:
    text = rules(audience="{session: {plan: pro}}")
    assert ask(shell, text, PRO).body == b"gray "
    assert told(ask(shell, text, FREE))["variant"] == "stable"


@every_shell
def test_a_function_of_the_user_goes_first(shell: str) -> None:
    with shop(shell, RULES, GRAY) as served:
        user(lambda place: {"id": 1, "plan": "pro"})
        assert served.ask("/shop/", FREE).body == b"gray "


async def hanging(head: Any, place: Any) -> bool:
    await asyncio.Event().wait()
    return True


def raising(head: Any, place: Any) -> bool:
    raise ZeroDivisionError("of the app")


@every_shell
@pytest.mark.parametrize(
    ("function", "result", "negated"),
    [
        (raising, "error", False),
        (hanging, "timeout", True),
        (lambda head, place: "yes", "error", False),
        (lambda head, place: "no", "error", True),
        (None, "unknown", True),
    ],
    ids=["raises", "hangs", "lies", "lies in negation", "is not there"],
)
def test_a_predicate_that_gives_no_answer_draws_nobody(shell: str, function: Any, result: str, negated: bool) -> None:
    if function is not None:
        predicate("beta", timeout=0.01 if function is hanging else 20)(function)
    with shop(shell, rules(audience="{not: {predicate: beta}}" if negated else "{predicate: beta}"), GRAY) as served:
        assert told(served.ask("/shop/", PRO))["variant"] == "stable"
        assert served.counts == {("predicates", "beta", result): 1}


@every_shell
@pytest.mark.parametrize("threaded", [False, True])
def test_a_predicate_is_asked_below_what_signs_in(shell: str, threaded: bool) -> None:
    seen: list[Any] = []

    @predicate("beta", timeout=20, threaded=threaded)
    def beta(head: Any, place: Any) -> bool:
        seen.append(threading.current_thread().name)
        return bool(head.header(b"x-login") == b"1:pro")

    with shop(shell, rules(audience="{predicate: beta}"), GRAY) as served:
        pro, free, _ = served.ask_all(("/shop/", [PRO]), ("/shop/", [FREE]), ("/elsewhere/", [PRO]))
    assert (pro.body, told(free)["variant"]) == (b"gray ", "stable")
    assert len(seen) == 2
    assert all((name == "canary-mw-predicates") is threaded for name in seen)


FALLBACK = "fallback: {methods: [GET, POST], body: 100, budget: {percent: 100, min: 100}}"


@every_shell
def test_stable_answers_where_gray_fails(shell: str) -> None:
    failing = {"gray": service(b"gray is ill", 503)}
    with shop(shell, rules(FALLBACK), failing) as served:
        answer = served.ask("/shop/", PRO, method="POST", body=b"kept")
        plain = served.ask("/elsewhere/", PRO)
    assert (told(answer)["app"], told(answer)["body"]) == ("shop", "kept")
    assert told(answer)["user"]["plan"] == "pro"
    assert (plain.status, plain.body) == (503, b"gray is ill")


@every_shell
@pytest.mark.parametrize("status", [503, 0])
def test_another_service_answers_where_gray_is_the_app_itself_and_fails(shell: str, status: int) -> None:
    turned = rules(FALLBACK.replace("{methods", "{on: [500, 503], methods"), gray="{shop: 100}", stable="gray")
    with shop(shell, turned.replace("weight: 0\n", ""), GRAY) as served:
        answer = served.ask(f"/shop/status/{status}", PRO, method="POST", body=b"kept")
        fine = served.ask("/shop/", PRO)
    assert (answer.status, answer.body) == (200, b"gray kept")
    assert told(fine)["variant"] == "shop"


@every_shell
def test_an_anonymous_visitor_gets_a_cookie_from_whoever_answers(shell: str) -> None:
    for weight in (0, 100):
        text = rules("missing: cookie", audience="{not: {user: {plan: pro}}}", gray=f"{{gray: {weight}}}")
        answer = ask(shell, text)
        assert answer.header("x-canary-variant") == ("gray" if weight else "stable")
        cookies = [value for name, value in answer.headers if name.lower() == "set-cookie"]
        assert sum(value.strip().startswith("cmw_id=") for value in cookies) == 1


class Log(Observer):
    """Keeps the records."""

    def __init__(self) -> None:
        self.ends: list[Finished] = []

    def finished(self, record: Finished) -> None:
        """See `Observer`."""
        self.ends.append(record)


@every_shell
def test_observers_hear_of_every_request_once(shell: str) -> None:
    log = Log()
    with shop(shell, RULES, GRAY, observers=[log]) as served:
        found = served.ask_all(("/shop/", [PRO]), ("/shop/", [FREE]), ("/shop/status/418", [FREE]))
    assert [each.status for each in log.ends] == [200, 200, 418]
    assert [each.mapping for each in log.ends] == ["gray", "shop", "shop"]
    assert [each.bytes_out for each in log.ends] == [len(each.body) for each in found]


@every_shell
def test_what_the_view_records_counts_for_the_variant(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    monkeypatch.setattr(context, "_names", set())

    def recording(*about: Any) -> dict[str, Any]:
        record("seen")
        return {}

    monkeypatch.setattr("shells.page", recording)
    with shop(shell, rules(gray="{gray: 0}"), GRAY, observers=[metrics]) as served:
        assert served.ask("/shop/", PRO).status == 200
    assert 'canary_mw_events_total{name="seen",release="r",variant="stable"} 1.0' in str(metrics.render())


def granting(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200 if "authorization" in request.headers else 401, headers={"x-added": "granted"})


@every_shell
def test_the_view_gets_what_an_auth_service_grants_and_nobody_else_can_add(shell: str) -> None:
    text = RULES + auth_service(allowed_authorization_headers="[x-added]")
    with shop(shell, text, GRAY, transports={"auth": httpx.MockTransport(granting)}) as served:
        asked = served.ask("/shop/", FREE, ("authorization", "me"), ("x-added", "forged"))
        assert told(asked)["added"] == "granted"
        assert served.ask("/shop/", FREE, ("x-added", "forged")).status == 401


@every_shell
def test_a_view_that_raises_is_handled_by_its_framework(shell: str) -> None:
    log = Log()
    with shop(shell, RULES, GRAY, observers=[log]) as served:
        try:
            assert served.ask("/shop/status/0", FREE).status == 500
        except ZeroDivisionError:
            # Plain apps, Starlette and FastAPI leave it to the server.
            assert shell in ("asgi", "wsgi", "starlette", "fastapi")
    assert len(log.ends) == 1


@every_shell
def test_shops_answer_in_their_own_way(shell: str) -> None:
    with shop(shell, MAPPINGS, GRAY) as served:
        assert isinstance(served, Shop)
        assert served.ask("/shop/status/409").status == 409
        assert served.ask("/shop/status/409").header("x-canary-variant") is None


@every_shell
def test_the_view_knows_its_lane_and_tells_others_of_it(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lanes(*about: Any) -> dict[str, Any]:
        found = current()
        return {"lane": found and found.lane, "header": propagate.header()}

    monkeypatch.setattr("shells.page", lanes)
    before = ("x-canary-lane", "before=blue")
    with shop(shell, RULES, GRAY, trusted=["127.0.0.1"]) as served:
        trusted = served.ask("/shop/", FREE, before)
        assert told(trusted)["lane"] == "r=stable, before=blue"
        assert told(trusted)["header"] == {"x-canary-lane": "r=stable, before=blue"}
    assert current() is None
    with shop(shell, RULES, GRAY) as served:
        assert told(served.ask("/shop/", FREE, before))["lane"] == "r=stable"


@every_shell
def test_a_lane_of_a_variant_that_is_not_there_is_stable(shell: str) -> None:
    with shop(shell, RULES, GRAY, trusted=["127.0.0.1"]) as served:
        assert told(served.ask("/shop/", PRO, ("x-canary-lane", "r=novel")))["variant"] == "stable"


@every_shell
def test_an_answer_to_head_has_no_body(shell: str) -> None:
    with shop(shell, RULES, {"gray": service(b"")}) as served:
        answer = served.ask("/shop/", PRO, method="HEAD")
        assert (answer.status, answer.body, answer.header("x-canary-variant")) == (200, b"", "gray")


@every_shell
def test_a_suite_of_tests_sees_stable_alone_or_its_own_gray_version(shell: str) -> None:
    with shop(shell, RULES) as served, all_stable():
        assert told(served.ask("/shop/", PRO))["app"] == "shop"
    gray = service(b"of the test ")("asgi" if shell in ASGI_SHELLS else "wsgi")
    with shop(shell, RULES) as served, gray_answered_by(gray):
        assert served.ask("/shop/", PRO).body == b"of the test "
