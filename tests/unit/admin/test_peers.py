"""What pods ask each other over the admin port: evidence, and to believe in a rollback."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from admin_client import fetch_app, validated
from plans import MANUAL, RULES, Evidence
from servers import Answer, Pairs, run
from starlette.applications import Starlette

from canary_mw.admin import create_admin
from canary_mw.admin.openapi import openapi
from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.settings import Surroundings
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.prometheus import Metrics
from canary_mw.rollout.commands import Command, Who

OPERATE, STOP, PEER = (f"{each}-token-0123456789abcdef" for each in ("operate", "stop", "peer"))
EVIDENCE, TOLD = "/api/v1/evidence", "/api/v1/releases/svc-r/rolled-back"
WHO = Who("me", "10.0.0.9", 1.0)


class Pod:
    """A pod with its admin port, whose release is at its first step."""

    def __init__(self, path: Path, text: str = RULES) -> None:
        (path / "tokens").write_text(f"operate {OPERATE}\nstop {STOP}\npeer {PEER} pods\n")
        self.rules = RuleStore(StaticSource(text))
        self.rules.reload()
        self.rollouts = Rollouts(self.rules, str(path / "state"), lambda: None, Evidence, Surroundings())
        self.rollouts.start()
        self.app = create_admin(self.rules, Metrics(), token_file=path / "tokens", rollouts=lambda: self.rollouts)
        if text == RULES:
            self.give("promote")
            self.give("pause")

    def give(self, name: Any) -> None:
        self.rollouts.command("svc-r", Command(name=name), None, WHO)

    def ask(
        self, path: str, token: str | None = PEER, method: str = "GET", body: Any = None, app: Any = None
    ) -> Answer:
        headers: Pairs = [] if token is None else [("authorization", f"Bearer {token}")]
        data = b"" if body is None else json.dumps(body).encode()
        return run(fetch_app(app or self.app, path, method, headers, data))

    def tell(self, **body: Any) -> Answer:
        return self.ask(TOLD, method="POST", body=body)

    @property
    def state(self) -> Any:
        standing = self.rollouts.standing("svc-r")
        assert standing is not None
        return standing.state

    @property
    def weight(self) -> float:
        return self.rules.table.releases["svc-r"].effective_shares()["svc-gray"]


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    found = Pod(tmp_path)
    yield found
    found.rollouts.stop()


def code_of(answer: Answer) -> Any:
    return json.loads(answer.body)["error"]["code"]


REFUSED: list[tuple[str | None, int, str]] = [
    (None, 403, "no-token"),
    ("wrong-token-0123456789abcdef", 401, "wrong-token"),
    (OPERATE, 403, "wrong-scope"),
    (STOP, 403, "wrong-scope"),
]


def test_only_a_token_of_pods_gets_evidence_or_is_believed(pod: Pod) -> None:
    for token, status, code in REFUSED:
        for answer in (pod.ask(EVIDENCE, token), pod.ask(TOLD, token, "POST", {"attempt": 1})):
            assert (answer.status, code_of(answer)) == (status, code)
            assert b"token-0123" not in answer.body
    assert pod.state.phase == "Paused"


def test_a_port_without_tokens_gives_nothing(pod: Pod) -> None:
    app = create_admin(pod.rules, Metrics(), rollouts=lambda: pod.rollouts)
    for path, method in ((EVIDENCE, "GET"), (TOLD, "POST")):
        answer = pod.ask(path, PEER, method, {"attempt": 1}, app)
        assert (answer.status, code_of(answer)) == (403, "read-only")
    assert pod.ask(EVIDENCE, method="POST").status == 405


def test_evidence_has_a_cursor_and_is_given_once(pod: Pod) -> None:
    first = pod.ask(EVIDENCE)
    assert (first.status, first.body) == (200, b"evidence")
    assert first.header("content-type") == "application/octet-stream"
    assert first.header("x-canary-mw-cursor") == "cursor"
    again = pod.ask(f"{EVIDENCE}?since=cursor")
    assert (again.status, again.body, again.header("x-canary-mw-cursor")) == (304, b"", "cursor")
    assert pod.ask(f"{EVIDENCE}?since=older").status == 200
    described = openapi()["paths"][EVIDENCE]["get"]
    assert {"200", "304", "401", "403"} <= set(described["responses"])


def test_who_asks_for_evidence_controls_so_this_pod_need_not_judge_alone(pod: Pod) -> None:
    opened = pod.rollouts._controller.opened
    assert opened is not None
    pod.rollouts.stop()
    opened.latches._cells[1] = 0
    assert not opened.latches.is_beaten()
    pod.ask(EVIDENCE)
    assert opened.latches.is_beaten()


@pytest.mark.parametrize("phase", ["RolledBack", "Aborted"])
def test_a_pod_that_has_taken_a_release_back_is_believed_at_once(pod: Pod, phase: str) -> None:
    assert pod.weight == 5
    answer = pod.tell(attempt=1, phase=phase, reason="gray fails more often")
    value = validated(answer, "/api/v1/releases/{name}/rolled-back", method="post")
    assert (answer.status, value["name"], value["attempt"], value["lowered"]) == (200, "svc-r", 1, True)
    assert pod.weight == 0
    assert (pod.state.phase, pod.state.reason, pod.state.weight) == (phase, "gray fails more often", 0)
    last = pod.state.history[-1]
    assert (last.who, last.address) == ("pods", "127.0.0.1")
    # Another one says the same.
    again = pod.tell(attempt=1, reason="it fails here too")
    assert (again.status, json.loads(again.body)["lowered"]) == (200, False)
    assert pod.state.reason == "gray fails more often"


def test_the_latch_is_set_before_anything_is_stored(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = pod.rollouts._controller.opened
    assert opened is not None
    seen: list[bool] = []
    write = type(opened.store).compare_and_set

    def looked(store: Any, *args: Any) -> Any:
        seen.append(opened.latches.is_set("svc-r", 1))
        return write(store, *args)

    monkeypatch.setattr(type(opened.store), "compare_and_set", looked)
    pod.tell(attempt=1)
    assert seen == [True]


def test_an_attempt_that_is_over_is_not_taken_back_again(pod: Pod) -> None:
    pod.give("abort")
    pod.give("retry")
    assert pod.state.attempt == 2
    answer = pod.tell(attempt=1, reason="late")
    assert (answer.status, json.loads(answer.body)["lowered"]) == (200, False)
    assert pod.state.phase != "RolledBack"
    assert not pod.state.latched


def test_a_newer_attempt_counts_before_its_state_is_known(pod: Pod) -> None:
    assert json.loads(pod.tell(attempt=2).body)["lowered"] is True
    assert pod.weight == 0
    opened = pod.rollouts._controller.opened
    assert opened is not None
    assert opened.latches.is_set("svc-r", 2)
    assert not opened.latches.is_set("svc-r", 3)
    answer = pod.tell(attempt=1_000_000)
    assert (answer.status, code_of(answer)) == (409, "refused")


BODIES: list[Any] = [{}, [], None, 1, {"attempt": 1, "phase": "Completed"}, {"attempt": 1, "phase": ["RolledBack"]}]


def test_a_message_that_is_none_takes_nothing_back(pod: Pod) -> None:
    for body in (*BODIES, *({"attempt": each} for each in (0, -1, True, "1", 1 << 40))):
        assert pod.ask(TOLD, method="POST", body=body).status == 400, body
    assert pod.weight == 5


def test_a_release_that_is_unknown_is_refused(pod: Pod) -> None:
    answer = pod.ask("/api/v1/releases/other/rolled-back", method="POST", body={"attempt": 1})
    assert (answer.status, code_of(answer)) == (409, "refused")


def test_a_release_without_steps_that_was_aborted_elsewhere_is_off_here(tmp_path: Path) -> None:
    pod = Pod(tmp_path, MANUAL)
    assert pod.weight == 20
    assert json.loads(pod.tell(attempt=1, phase="Aborted").body)["lowered"] is True


def test_a_port_of_no_middleware_has_no_evidence(pod: Pod) -> None:
    app: Starlette = create_admin(pod.rules, Metrics(), token_file=_tokens(pod), rollouts=lambda: None)
    ask = partial(pod.ask, app=app)
    assert [code_of(ask(EVIDENCE)), code_of(ask(TOLD, PEER, "POST", {"attempt": 1}))] == ["not-driven"] * 2


def _tokens(pod: Pod) -> Path:
    return Path(str(pod.rollouts._named)).parent / "tokens"
