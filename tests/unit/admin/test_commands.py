"""Commands over the admin port: who may give them, which fit, and what they answer."""

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from admin_client import admin, fetch_app, loaded, validated
from kept_rollouts import SOMEBODY, KeptRollouts
from phase_table import OTHERWISE, TABLE, UNCHANGED
from servers import Answer, hello, mapping, run
from starlette.applications import Starlette

from canary_mw import CanaryMiddleware
from canary_mw.admin import create_admin
from canary_mw.admin.commands.tokens import TokenFile, checked, token_of
from canary_mw.admin.openapi import openapi
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError, StoreAway
from canary_mw.observability.prometheus import Metrics
from canary_mw.rollout.commands import COMMANDS, Command
from canary_mw.rollout.state import Phase

PATH = "/api/v1/releases/{name}/{command}"
OPERATE, STOP, PEER = (f"{each}-token-0123456789abcdef" for each in ("operate", "stop", "peer"))
TOKENS = f"# ours\n\noperate {OPERATE} alice of ops\nstop {STOP}\npeer {PEER}\n"
RELEASES = (
    mapping("svc", "/svc/", "svc")
    + mapping("svc-gray", "/svc/", "svc-gray")
    + mapping("old", "/old/", "old")
    + mapping("old-gray", "/old/", "old-gray")
    + mapping("a", "/split/", "a")
    + mapping("b", "/split/", "b", weight=20)
    + """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop
revision: "1.4.2"
stable: svc
gray: [svc-gray]
sticky: {header: x-user-id}
promote: manual
steps:
- setWeight: 5
- pause: {duration: 10m}
- setWeight: 25
- pause: {}
- setWeight: 100
bake: {duration: 30m}
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: by-hand
stable: old
gray: {old-gray: 20}
sticky: {header: x-user-id}
"""
)


@cache
def _store() -> RuleStore:
    """The rules of all tests: no command changes them."""
    return loaded(RELEASES)


class Box:
    """An admin app with tokens and releases that stay where they are.

    Attributes:
        file: of the tokens.
    """

    def __init__(self, folder: Path, phase: Phase = "Pending", tokens: str | None = TOKENS, **options: Any) -> None:
        self.store = _store()
        self.begin(phase)
        self.file = folder / "tokens"
        if tokens is not None:
            self.file.write_text(tokens)
            options["token_file"] = self.file
        self.app: Starlette = admin(store=self.store, rollouts=lambda: self.rollouts, clock=lambda: 1.0, **options)

    def begin(self, phase: Phase = "Pending") -> None:
        """Put all releases with steps into a phase."""
        self.rollouts = KeptRollouts(*self.store.table.documents.in_force, phase=phase)

    def give(
        self,
        command: str,
        token: str | None = OPERATE,
        *,
        name: str = "shop",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        query: str = "",
    ) -> Answer:
        """The answer to a command."""
        sent = [*headers]
        if token is not None:
            sent.append(("authorization", f"Bearer {token}"))
        return self.fetch(f"/api/v1/releases/{name}/{command}{query}", "POST", sent, body)

    def fetch(self, path: str, method: str = "GET", headers: Sequence[Any] = (), body: bytes = b"") -> Answer:
        return run(fetch_app(self.app, path, method, headers, body))

    def rollout(self, name: str = "shop") -> Any:
        """How far a release is now; the list is worked out for each question."""
        listed = validated(self.fetch("/api/v1/releases"), "/api/v1/releases")["releases"]
        return next(each["rollout"] for each in listed if each["name"] == name)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def error_of(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]["code"]


@pytest.mark.parametrize("phase", TABLE)
def test_each_command_does_in_each_phase_what_the_table_says(box: Box, phase: Phase) -> None:
    for command in (*COMMANDS, "full"):
        box.begin(phase)
        give_as_the_table_says(box, phase, command)


def give_as_the_table_says(box: Box, phase: Phase, command: str) -> None:
    expected = {**OTHERWISE, **TABLE[phase]}[command]
    before = box.rollout()
    query = {"set-weight": "?weight=10", "full": "?full=true"}.get(command, "")
    answer = box.give("promote" if command == "full" else command, query=query)
    after = box.rollout()
    if expected == 409:
        assert error_of(answer) == (409, "refused")
        assert f"release shop is {phase}" in json.loads(answer.body)["error"]["message"]
        assert after == before, "nothing is changed, and nothing is left for later"
        return
    value = validated(answer, PATH, method="post")
    assert (value["name"], value["rollout"]["phase"]) == ("shop", expected)
    assert value["rollout"] == after
    changed = after["version"] != before["version"]
    assert changed is ((command, phase) not in UNCHANGED)
    assert (command in before["commands"]) or command == "full"
    if changed:
        newest = after["history"][0]
        assert (newest["who"], newest["address"]) == ("alice of ops", "127.0.0.1")
        assert (newest["before"], newest["after"]) == (phase, expected)


def test_the_state_of_a_release_is_told_with_its_plan(box: Box) -> None:
    assert box.give("promote").status == 200
    rollout = box.rollout()
    assert (rollout["phase"], rollout["status"], rollout["revision"]) == ("Progressing", "Progressing", "1.4.2")
    assert (rollout["item"], rollout["items"], rollout["weight"]) == (1, 5, 5.0)
    assert (rollout["pause_seconds"], rollout["bake_seconds"], rollout["promote"]) == (600.0, 1800.0, "manual")
    assert rollout["controller"] == {"name": "process 4711", "here": True, "pods": None}
    assert [(each["item"], each["weight"], each["state"]) for each in rollout["steps"]] == [
        (1, 5.0, "current"),
        (3, 25.0, "ahead"),
        (5, 100.0, "ahead"),
    ]
    assert rollout["steps"][1]["until_promoted"]
    answer = box.fetch("/api/v1/releases/shop")
    assert validated(answer, "/api/v1/releases/{name}")["rollout"] == rollout


def test_no_answer_is_older_than_a_change_that_another_process_made(box: Box) -> None:
    for path in ("/api/v1/releases/shop", "/api/v1/overview"):
        assert b'"phase":"Pending"' in box.fetch(path).body
    box.rollouts.command("shop", Command(name="promote"), None, SOMEBODY)
    for path in ("/api/v1/releases/shop", "/api/v1/overview"):
        assert b'"phase":"Progressing"' in box.fetch(path).body


def test_a_release_without_steps_takes_abort_and_retry(box: Box) -> None:
    manual = box.rollout("by-hand")
    assert (manual["phase"], manual["commands"], manual["version"]) == ("Manual", ["abort"], 0)
    assert error_of(box.give("pause", name="by-hand")) == (409, "refused")
    assert validated(box.give("abort", name="by-hand"), PATH, method="post")["rollout"]["phase"] == "Aborted"
    assert validated(box.give("retry", name="by-hand"), PATH, method="post")["rollout"]["phase"] == "Manual"


def test_the_weight_of_a_command_may_come_as_query_or_as_json(box: Box) -> None:
    assert box.give("set-weight", query="?weight=12.5").status == 200
    assert box.rollout()["weight"] == 12.5
    assert box.give("set-weight", body=b'{"weight": 30}').status == 200
    assert box.rollout()["weight"] == 30
    assert box.give("promote", body=b'{"full": true}').status == 200
    assert box.rollout()["phase"] == "Baking"


@pytest.mark.parametrize(
    ("command", "query", "body", "code"),
    [
        ("set-weight", "", b"", "bad-weight"),
        ("set-weight", "?weight=101", b"", "bad-weight"),
        ("set-weight", "?weight=-1", b"", "bad-weight"),
        ("set-weight", "?weight=nan", b"", "bad-weight"),
        ("set-weight", "", b'{"weight": true}', "bad-weight"),
        ("set-weight", "", b'{"weight": null}', "bad-weight"),
        ("set-weight", "", b'{"weight": {}}', "bad-weight"),
        ("set-weight", "?full=true&weight=1", b"", "unknown-field"),
        ("pause", "?weight=5", b"", "unknown-field"),
        ("promote", "", b'{"until": "friday"}', "unknown-field"),
        ("promote", "?full=perhaps", b"", "bad-full"),
        ("promote", "", b"[1]", "bad-request"),
        ("promote", "", b"full", "bad-json"),
    ],
)
def test_what_is_not_understood_is_refused(box: Box, command: str, query: str, body: bytes, code: str) -> None:
    assert error_of(box.give(command, query=query, body=body)) == (400, code)
    assert box.rollout()["history"] == []


@pytest.mark.parametrize("name", ["nobody", "a", "", "shop/shop"])
def test_only_a_gray_release_takes_commands(box: Box, name: str) -> None:
    assert error_of(box.give("abort", name=name)) == (404, "unknown-release")


@pytest.mark.parametrize("command", ["reset", "", "rolled-back", "promote/"])
def test_only_commands_are_commands(box: Box, command: str) -> None:
    assert box.give(command).status in (403, 404)
    assert box.rollout()["version"] == 7


@pytest.mark.parametrize(
    ("given", "status"),
    [('"7"', 200), ("7", 200), ('W/"7"', 200), ("*", 200), ('"6"', 412), ('"8"', 412), ('"x"', 400), ('"7", "8"', 400)],
)
def test_a_command_may_be_for_the_version_that_was_looked_at(box: Box, given: str, status: int) -> None:
    assert box.fetch("/api/v1/releases/shop").header("etag") == '"7"'
    answer = box.give("pause", headers=[("if-match", given)])
    assert answer.status == status
    assert box.rollout()["version"] == (8 if status == 200 else 7)
    if status == 200:
        assert answer.header("etag") == '"8"'
        assert error_of(box.give("resume", headers=[("if-match", given.replace("*", "7"))])) == (412, "version-moved")


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        (None, 403, "no-token"),
        ("Bearer wrong", 401, "wrong-token"),
        ("Bearer ", 401, "wrong-token"),
        ("Bearer", 401, "wrong-token"),
        ("", 401, "wrong-token"),
        (f"Basic {OPERATE}", 401, "wrong-token"),
        (f"Bearer {OPERATE[:-1]}", 401, "wrong-token"),
        (f"Bearer {OPERATE}x", 401, "wrong-token"),
        (f"Bearer operate {OPERATE}", 401, "wrong-token"),
        (f"Bearer {PEER}", 403, "wrong-scope"),
        (f"Bearer {STOP}", 403, "wrong-scope"),
        (f"bearer  {OPERATE} ", 200, ""),
    ],
)
def test_a_command_needs_a_token_of_its_scope(box: Box, authorization: str | None, status: int, code: str) -> None:
    headers = [] if authorization is None else [("authorization", authorization)]
    answer = box.give("promote", None, headers=headers)
    assert answer.status == status
    assert box.rollout()["version"] == (8 if status == 200 else 7)
    if status != 200:
        assert error_of(answer) == (status, code)
        assert OPERATE.encode() not in answer.body
        assert (answer.header("www-authenticate") is not None) is (code in ("wrong-token", "wrong-scope"))


@pytest.mark.parametrize(("token", "may"), [(STOP, ("abort", "pause")), (PEER, ())])
def test_who_may_stop_may_do_nothing_else(box: Box, token: str, may: tuple[str, ...]) -> None:
    for command in COMMANDS:
        box.begin()
        answer = box.give(command, token, query="?weight=1" if command == "set-weight" else "")
        assert answer.status == (200 if command in may else 403)
        if command in may:
            assert json.loads(answer.body)["rollout"]["history"][0]["who"] == "stop, line 4"


@pytest.mark.parametrize("token", [OPERATE, STOP, PEER])
def test_a_command_that_is_none_is_told_to_whoever_has_a_token(box: Box, token: str) -> None:
    assert error_of(box.give("halt", token)) == (404, "unknown-command")
    assert box.rollout()["version"] == 7


def test_without_tokens_the_port_only_reads(tmp_path: Path) -> None:
    for box in (Box(tmp_path, tokens=None), Box(tmp_path, tokens="# none yet\n")):
        assert error_of(box.give("abort")) == (403, "read-only")
        assert error_of(box.give("abort", None)) == (403, "read-only")


def test_a_token_counts_from_the_moment_it_is_in_the_file_until_it_leaves_it(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    another = "another-token-0123456789abcdef"
    assert box.give("pause", another).status == 401
    box.file.write_text(f"operate {another}\n")
    assert box.give("pause", OPERATE).status == 401
    assert box.give("pause", another).status == 200
    swapped = box.file.with_name("..data")
    swapped.write_text(TOKENS)
    swapped.replace(box.file)
    assert (box.give("resume", another).status, box.give("resume", OPERATE).status) == (401, 200)
    box.file.unlink()
    with caplog.at_level(logging.WARNING, "canary_mw.admin"):
        assert [error_of(box.give("pause", OPERATE)) for _ in range(2)] == [(403, "read-only")] * 2
    assert [each.getMessage() for each in caplog.records] == [
        f"{box.file}: the tokens for commands cannot be read: No such file or directory"
    ]


def test_a_bad_line_keeps_no_other_one_from_counting(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hidden-token-0123456789abcdef"
    box.file.write_text(f"operat {secret}\noperate\nstop short\n{TOKENS}")
    with caplog.at_level(logging.WARNING, "canary_mw.admin"):
        assert box.give("pause", secret).status == 401
        assert box.give("pause", "short").status == 200
    messages = [each.getMessage() for each in caplog.records]
    assert messages == [
        f"{box.file}:1: a line of tokens begins with operate, stop or peer",
        f"{box.file}:2: there is no token behind operate",
        f"{box.file}:3: a token of less than 16 characters can be guessed: make one with openssl rand -hex 32",
    ]
    assert secret not in caplog.text


def test_no_answer_shows_a_token(box: Box) -> None:
    box.give("pause")
    for path in (
        "/api/v1/releases",
        "/api/v1/releases/shop",
        "/api/v1/about",
        "/api/v1/overview",
        "/rules",
        "/metrics",
    ):
        assert OPERATE.encode() not in box.fetch(path).body


def test_a_store_that_is_away_is_no_refusal(box: Box) -> None:
    box.rollouts.error = StoreAway("the store has not answered")
    answer = box.give("pause")
    assert error_of(answer) == (503, "store-away")
    assert answer.header("retry-after") == "5"


def test_where_nothing_drives_releases_there_are_no_commands(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    app = admin(RELEASES, token_file=file)

    async def main() -> None:
        headers = [("authorization", f"Bearer {OPERATE}")]
        answer = await fetch_app(app, "/api/v1/releases/shop/abort", "POST", headers)
        assert error_of(answer) == (503, "not-driven")
        answer = await fetch_app(app, "/api/v1/releases/shop")
        assert validated(answer, "/api/v1/releases/{name}")["rollout"] is None
        assert answer.header("etag") is None

    run(main())


def test_an_app_that_mounts_the_pages_takes_commands_for_its_middleware(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    served = CanaryMiddleware(hello, rules=StaticSource(RELEASES))
    served.start()
    try:
        app = create_admin(served.store, Metrics(), token_file=file)
        headers = [("authorization", f"Bearer {STOP}")]
        answer = run(fetch_app(app, "/api/v1/releases/shop/abort", "POST", headers))
        assert validated(answer, PATH, method="post")["rollout"]["phase"] == "Aborted"
        assert served.driven().controlled in (True, False)
    finally:
        served._stop()


@pytest.mark.parametrize(
    ("headers", "code"),
    [([("host", "evil.example")], "unknown-host"), ([("sec-fetch-site", "cross-site")], "cross-site")],
)
def test_other_sites_give_no_commands(tmp_path: Path, headers: list[tuple[str, str]], code: str) -> None:
    box = Box(tmp_path, host_names=())
    assert error_of(box.give("abort", headers=headers)) == (403, code)
    assert box.rollout()["version"] == 7


def test_the_pages_have_no_way_to_give_a_command(box: Box) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        assert box.fetch("/api/v1/releases/shop/abort", method).status == 405
    page = box.fetch("/ambassador/v0/diag/releases/shop").body
    assert b'method="post"' not in page.lower()
    assert box.fetch("/ambassador/v0/diag/releases/shop/abort", "POST").status == 405


def test_what_keeps_a_state_from_being_written_is_told(box: Box) -> None:
    box.rollouts.known["shop"] = {"stopped": True, "findings": ("the store of states cannot be written: disk full",)}
    rollout = box.rollout()
    assert rollout["stopped"]
    assert rollout["findings"] == ["the store of states cannot be written: disk full"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "the tokens for commands cannot be read"),
        ("", "there is no token (write a line: operate TOKEN)"),
        ("admin secret-0123456789\n", ":1: a line of tokens begins with operate, stop or peer"),
        ("x" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error_at_start(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        checked(path)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_good_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"operate \xff\xfe-0123456789abcdef  caf\xc3\xa9 \r\npeer p-0123456789abcdef\n")
    checked(path)
    first, _ = TokenFile(path).read()
    assert first.subject == "café"
    assert token_of((first,), b"\xff\xfe-0123456789abcdef") is first
    assert token_of((first,), b"") is None


def test_commands_are_described() -> None:
    described = openapi()["paths"][PATH]["post"]
    assert {each["name"] for each in described["parameters"]} == {"name", "command", "weight", "full", "If-Match"}
    assert described["security"] == [{"bearer": []}]
    assert {"200", "401", "403", "404", "409", "412", "default"} <= set(described["responses"])
