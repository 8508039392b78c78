"""Commands and hooks of releases with real processes: the proxy with workers, its admin port, and the command line."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hook_server import HookServer, hook_server
from kept_rollouts import state_in
from phase_table import OTHERWISE, TABLE, UNCHANGED
from servers import Answer, Process, fetch_admin, free_port, mapping, process, run

from canary_mw.cli.main import main
from canary_mw.control.rollouts.sqlite import SQLiteStore
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.rollout.commands import COMMANDS
from canary_mw.run_folder.folder import Folder

OPERATE, STOP = "operate-token-0123456789abcdef", "stop-token-0123456789abcdef"
VERSION = 1


def release(name: str, more: str = "", first: str = "1h", second: str = "duration: 1h") -> str:
    """A release with steps that wait for a human, and its Mappings."""
    return (
        mapping(f"{name}-stable", f"/{name}/", "stable")
        + mapping(f"{name}-gray", f"/{name}/", "gray", weight=0)
        + f"""\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: {name}
stable: {name}-stable
gray: [{name}-gray]
sticky: {{header: x-user-id}}
promote: manual
steps:
- setWeight: 5
- pause: {{duration: {first}}}
- setWeight: 25
- pause: {{{second}}}
- setWeight: 100
bake: {{duration: 1h}}
{more}"""
    )


class Box(NamedTuple):
    """A proxy that runs.

    Attributes:
        folder: of its rules, tokens and states.
    """

    running: Process
    folder: Path
    admin: int

    def give(self, release: str, command: str, *headers: tuple[str, str], query: str = "") -> Answer:
        """The answer to a command."""
        path = f"/api/v1/releases/{release}/{command}{query}"
        return run(fetch_admin(self.admin, path, "POST", headers))

    def rollouts(self) -> dict[str, Any]:
        """How far all releases are."""
        listed = json.loads(run(fetch_admin(self.admin, "/api/v1/releases")).body)["releases"]
        return {each["name"]: each["rollout"] for each in listed}

    def canary(self, *arguments: str) -> tuple[int, str]:
        """The exit code and output of `canary-mw release`."""
        environ = {
            "CANARY_MW_ADMIN": f"http://127.0.0.1:{self.admin}",
            "CANARY_MW_ADMIN_TOKEN_FILE": str(self.folder / "tokens"),
        }
        result = CliRunner().invoke(main, ["release", *arguments], env=environ)
        return result.exit_code, result.output


@contextmanager
def serving(folder: Path, rules: str, *, workers: int = 2) -> Iterator[Box]:
    """A proxy with rules, tokens and a folder of states."""
    (folder / "rules.yaml").write_text(rules)
    (folder / "tokens").write_text(f"operate {OPERATE} alice\nstop {STOP}\n")
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    port, admin = free_port(), free_port()
    options = {
        "--rules": folder / "rules.yaml",
        "--state": folder / "state",
        "--admin-token-file": folder / "tokens",
        "--port": port,
        "--admin-port": admin,
        "--workers": workers,
        "--upstream": "*=http://127.0.0.1:9",
        "--hook-hosts": "127.0.0.1",
    }
    words = [str(each) for pair in options.items() for each in pair]
    with process("serve", *words, log=folder / "log", wait_for=(port, admin)) as running:
        yield Box(running, folder, admin)


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


@pytest.mark.slow
def test_each_command_does_in_each_phase_what_the_table_says(tmp_path: Path) -> None:
    """One release for each phase and command, whose state was stored before; then every command is given once."""
    cases = {f"{phase}-{command}".lower(): (phase, command) for phase in TABLE for command in (*COMMANDS, "full")}
    rules = "".join(map(release, cases))
    store = RuleStore(StaticSource(rules))
    store.reload()
    (tmp_path / "state").mkdir(mode=0o700)
    states = SQLiteStore(Folder(str(tmp_path / "state")))
    for document in store.table.documents.in_force:
        assert states.compare_and_set(document.name, state_in(document, cases[document.name][0]), None) == VERSION
    states.close()
    with serving(tmp_path, rules) as box:
        before = box.rollouts()
        assert {name: each["phase"] for name, each in before.items()} == {name: case[0] for name, case in cases.items()}
        refuse_strangers_and_stale_versions(box)
        for name, (phase, command) in cases.items():
            expected = {**OTHERWISE, **TABLE[phase]}[command]
            query = {"set-weight": "?weight=10", "full": "?full=true"}.get(command, "")
            match = ("if-match", json.dumps(str(before[name]["version"])))
            given = "promote" if command == "full" else command
            answer = box.give(name, given, bearer(OPERATE), match, query=query)
            assert answer.status == (409 if expected == 409 else 200), (name, answer.body)
        ends = {name: {**OTHERWISE, **TABLE[phase]}[command] for name, (phase, command) in cases.items()}
        ends = {name: cases[name][0] if end == 409 else end for name, end in ends.items()}
        after = rollouts_in(box, ends)
        for name, (phase, command) in cases.items():
            same = {**OTHERWISE, **TABLE[phase]}[command] == 409 or (command, phase) in UNCHANGED
            assert (after[name]["version"] == before[name]["version"]) is same, name
            if not same:
                newest = after[name]["history"][0]
                assert (newest["who"], newest["address"]) == ("alice", "127.0.0.1"), name
                assert box.running.output.count(f"Release {name} ") == 1, "a line for each transition"
    assert OPERATE not in box.running.output


def rollouts_in(box: Box, phases: dict[str, str]) -> dict[str, Any]:
    """How far all releases are, once the worker that is asked has heard of what the others have stored."""
    end = time.monotonic() + 20
    while True:
        found = box.rollouts()
        wrong = {name: each["phase"] for name, each in found.items() if each["phase"] != phases[name]}
        if not wrong:
            return found
        assert time.monotonic() < end, wrong


def refuse_strangers_and_stale_versions(box: Box) -> None:
    name = "progressing-pause"
    assert box.give(name, "pause").status == 403
    assert box.give(name, "pause", bearer("wrong-token-0123456789abcdef")).status == 401
    assert box.give(name, "promote", bearer(STOP)).status == 403
    assert box.give(name, "pause", bearer(OPERATE), ("if-match", '"99"')).status == 412
    assert box.give("nobody", "pause", bearer(OPERATE)).status == 404


HOOKS = """\
hooks:
- {{type: confirm-rollout, url: "{url}/gate", timeout: 5s}}
- {{type: rollback, url: "{url}/rollback", timeout: 5s}}
- {{type: event, url: "{url}/event", timeout: 5s}}
"""


@pytest.mark.slow
def test_hooks_open_the_first_step_take_the_release_back_and_hear_of_each_transition_once(tmp_path: Path) -> None:
    with hook_server() as hook:
        hook.status = {"/gate": 503, "/rollback": 404}
        more = HOOKS.format(url=hook.url().rstrip("/"))
        rules = release("shop", more, "1s", "").replace("promote: manual\n", "")
        with serving(tmp_path, rules, workers=2) as box:
            paths = iter_paths(hook)
            events = [body for path, body in until(paths, "Pending") if path == "/event"]
            assert box.rollouts()["shop"]["phase"] == "Pending"
            assert box.canary("status", "shop", "--wait", "--timeout", "0.1")[0] == 3
            hook.status["/gate"] = 200
            events += [body for path, body in until(paths, "Paused") if path == "/event"]
            hook.status["/rollback"] = 200
            events += [body for path, body in until(paths, "RolledBack") if path == "/event"]
            code, text = box.canary("status", "shop", "--wait", "--timeout", "30")
            assert (code, "RolledBack" in text) == (1, True)
            assert [each["phase"] for each in events] == phases_up_to(box, "RolledBack")
            assert events[-1]["metadata"]["eventType"] == "Warning"


def phases_up_to(box: Box, phase: str) -> list[str]:
    """The phases of a history, once the worker that is asked has heard of the last one."""
    while True:
        _, text = box.canary("history", "shop", "-o", "json")
        phases = [each["after"] for each in reversed(json.loads(text))]
        if phases[-1] == phase:
            return phases


def iter_paths(hook: HookServer) -> Iterator[tuple[str, Any]]:
    while True:
        posted = hook.next()
        yield posted.path, posted.body


def until(paths: Iterator[tuple[str, Any]], phase: str) -> Iterator[tuple[str, Any]]:
    """What is posted up to the event about a phase."""
    for path, body in paths:
        yield path, body
        if path == "/event" and body["phase"] == phase:
            return
