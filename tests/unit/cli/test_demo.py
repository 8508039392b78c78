"""The demo as a user sees it: the table, the hints, the file to edit, and its end."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from admin_client import loaded
from click import ClickException
from click.testing import CliRunner
from click.testing import Result as CliResult
from servers import hello, respond
from servers import run as run_async
from upstream import Peer, serving

from canary_mw.cli import demo
from canary_mw.cli.demo_report import table_rows
from canary_mw.cli.demo_requests import Batch, Result, send_request
from canary_mw.cli.demo_verdict import RELEASE, Faults, first_step_within, phase_within, resume
from canary_mw.cli.main import main
from canary_mw.client.aio.client import HTTP11Client
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.routing.table import RouteTable
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

ROW = re.compile(r"^(.*?) +(stable|gray) +([\d,]+) +([\d.]+) % +([\d.]+) % +[\d.]+ ms +[\d.]+ ms$", re.M)


def once(*arguments: str) -> CliResult:
    """Run the demo with --once in this process, and restore the handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return CliRunner().invoke(main, ["demo", "--once", *arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def shown() -> str:
    """The output of one run in a pipe."""
    result = once("--port", "0")
    assert result.exit_code == 0, result.output
    return result.output


def test_one_run_shows_the_shares_that_the_rules_promise(shown: str) -> None:
    stable, gray, header = ROW.findall(shown)
    assert [row[:2] for row in (stable, gray, header)] == [
        ("setWeight: 20", "stable"),
        ("setWeight: 20", "gray"),
        ("headers: gray: true", "gray"),
    ]
    assert [row[3] for row in (stable, gray, header)] == ["80.0", "20.0", "100.0"]
    assert abs(float(stable[4]) - 80) <= 4
    assert abs(float(gray[4]) - 20) <= 4
    assert header[4] == "100.0"
    assert int(stable[2].replace(",", "")) + int(gray[2]) == 2000
    assert header[2] == "200"


def test_one_run_ends_after_the_table_and_is_plain_in_a_pipe(shown: str) -> None:
    assert ROW.search(shown.rstrip().splitlines()[-1])
    assert "curl" not in shown
    assert shown.isascii()
    assert not set(shown) & {"\x1b", "\r"}
    assert shown.count("Sending 2,200 requests") == 1


def test_the_columns_of_the_table_stand_below_each_other(shown: str) -> None:
    table = shown.rstrip().splitlines()[-4:]
    assert table[0].startswith("rule ")
    assert len({len(line) for line in table}) == 1
    assert {line.rindex(word) for line, word in zip(table, ("variant", "stable", "gray", "gray"), strict=True)} == {21}


def test_a_taken_port_is_named_and_a_free_one_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = once("--port", str(port))
    assert result.exit_code == 0
    first, second, *_ = result.output.splitlines()
    found = re.fullmatch(rf"Port {port} is taken; using (\d+) instead\.", first)
    assert found is not None
    assert f"http://127.0.0.1:{found[1]}/svc/" in second


def test_a_port_outside_the_range_is_refused() -> None:
    result = once("--port", "65536")
    assert result.exit_code == 2
    assert "65536" in result.output


@contextmanager
def running(*shell: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The demo in a process of its own, serving, and the lines that it has printed so far.

    Args:
        shell: what runs its command.
    """
    command = [*shell, sys.executable, "-m", "canary_mw", "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            yield child, until_line(child, "Serving until Ctrl-C")
        finally:
            child.kill()


def until_line(child: subprocess.Popen[str], start: str) -> list[str]:
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(start):
            return lines
    raise AssertionError("\n".join(lines))


def fetch(url: str, headers: dict[str, str] | None = None) -> str:
    with urlopen(Request(url, headers=headers or {}), timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def test_the_hints_work_and_an_edit_of_the_rules_goes_live() -> None:
    with running() as (_, lines):
        hints = [line.strip() for line in lines if "curl " in line]
        assert len(hints) == 3
        url = hints[0].removeprefix("curl ")
        assert hints[1:] == [f"curl -H 'gray: true' {url}", f"for i in $(seq 10); do curl -s {url}; done"]
        assert fetch(url) in ("service-stable answers GET /\n", "service-gray answers GET /\n")
        assert fetch(url, {"gray": "true"}) == "service-gray answers GET /\n"
        found = re.search(r"^Edit (.*): a change is live within a second, ", "\n".join(lines), re.M)
        assert found is not None
        rules = Path(found[1])
        rules.write_text(rules.read_text().replace('"true"', '"yes"'))
        while fetch(url, {"gray": "yes"}) != "service-gray answers GET /\n":
            pass


@pytest.mark.slow
def test_the_command_of_the_hints_holds_the_release() -> None:
    # As after `make demo`, which puts nothing on the path.
    with running("env", "PATH=/usr/bin:/bin") as (child, lines):
        command = next(line.strip() for line in lines if " release pause " in line).split()
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 0, result.stderr
        assert "Paused" in result.stdout
        until_line(child, f"Release {RELEASE} goes from Progressing to Paused")


def test_a_release_that_does_not_go_on_ends_the_demo_with_the_reason() -> None:
    async def refusing(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 409 Conflict\r\ncontent-length: 11\r\n\r\nit is Held.")

    async def scenario() -> None:
        client = HTTP11Client()
        async with serving(refusing) as upstream:
            try:
                await resume(client, upstream.origin, "token")
            finally:
                await client.aclose()

    with pytest.raises(ClickException, match=r"the release does not go on: it is Held\."):
        run_async(scenario())


@pytest.mark.slow
def test_the_page_shows_requests_that_go_on() -> None:
    with running() as (_, lines):
        found = next(line for line in lines if line.startswith("Look at it: "))
        page = found.removeprefix("Look at it: ")
        assert "svc-2026-11" in fetch(page)
        api = page.partition("/ambassador/")[0] + "/api/v1/overview"
        first = json.loads(fetch(api))["totals"]["requests"]
        while json.loads(fetch(api))["totals"]["requests"] <= first:
            pass


def release_in(phase: str) -> Callable[[Peer], Awaitable[None]]:
    """An admin port whose one release is in this phase."""
    verdict = {"sentence": f"It is {phase}.", "what_to_do": "mend gray"}
    rollout = {"phase": phase, "attempt": 1, "reason": "gray fails more often"}
    body = json.dumps({"name": RELEASE, "verdict": verdict, "rollout": rollout}).encode()

    async def admin(peer: Peer) -> None:
        while await peer.request():
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    return admin


def watched(phase: str, seconds: float) -> dict[str, Any]:
    async def scenario() -> dict[str, Any]:
        client = HTTP11Client()
        async with serving(release_in(phase)) as upstream:
            try:
                return await phase_within(seconds, "RolledBack", client, upstream.origin)
            finally:
                await client.aclose()

    return run_async(scenario())


def test_the_demo_waits_until_the_release_is_rolled_back_and_not_longer() -> None:
    assert watched("RolledBack", 30)["rollout"]["reason"] == "gray fails more often"
    with pytest.raises(ClickException, match=r"not RolledBack within 0\.1 seconds; .*last: It is Held\."):
        watched("Held", 0.1)


def test_the_demo_says_that_a_release_does_not_begin() -> None:
    store = loaded(demo.rules_text())
    with pytest.raises(ClickException, match=r"the release has not begun within 0\.1 seconds"):
        run_async(first_step_within(0.1, store))


def test_gray_fails_as_many_requests_as_it_is_told() -> None:
    async def answered(percent: float) -> int:
        faults, statuses = Faults(), []
        faults.percent = percent

        async def send(message: Message) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        async def receive() -> Message:
            return {}

        for _ in range(1000):
            await faults.before(hello)({"type": "http"}, receive, send)
        return statuses.count(503)

    assert [run_async(answered(percent)) for percent in (0, 3, 100)] == [0, 32, 1000]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("percent", ["3", "30"])
def test_a_gray_that_fails_is_rolled_back_within_a_minute(percent: str) -> None:
    result = once("--port", "0", "--fault", percent)
    assert result.exit_code == 0, result.output
    assert "Rolled back in attempt 1: everybody is on stable." in result.output
    assert "fails more often" in result.output
    assert f"What to do: mend gray; then `canary-mw release retry {RELEASE}`" in result.output


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_gray_that_does_no_harm_gets_all_steps() -> None:
    with running() as (child, lines):
        page = next(line for line in lines if line.startswith("Look at it: ")).removeprefix("Look at it: ")
        until_line(child, f"Release {RELEASE} goes from Baking to Completed")
        assert "Completed: gray gets 100 %." in fetch(page)


# As a shell without job control starts what ends with "&".
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


@pytest.mark.parametrize(
    ("number", "shell"),
    [
        (signal.SIGINT, ()),
        pytest.param(signal.SIGTERM, (), marks=pytest.mark.slow),
        (signal.SIGTERM, IN_BACKGROUND),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM in the background"],
)
def test_it_ends_cleanly_when_interrupted(number: signal.Signals, shell: tuple[str, ...]) -> None:
    with running(*shell) as (child, lines):
        rules = Path(next(line for line in lines if line.startswith("Edit "))[len("Edit ") :].partition(": a ")[0])
        assert rules.exists()
        child.send_signal(number)
        rest, _ = child.communicate(timeout=30)
    *going_on, empty, stopped = rest.splitlines()
    assert (empty, stopped) == ("", "Stopped.")
    assert all(line.startswith(("Release svc-2026-11 ", "rules ")) for line in going_on), rest
    assert child.returncode == 0
    assert not rules.parent.exists()


def on_terminal(**environ: str) -> str:
    """The output of one run on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "canary_mw", "demo", "--once", "--port", "0"]
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**inherited, **environ}) as child:
        os.close(theirs)
        output = b"".join(iter(lambda: read_terminal(ours), b""))
    os.close(ours)
    assert child.returncode == 0
    return output.decode()


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux reports that the other side was closed
        return b""


@pytest.mark.slow
def test_on_a_terminal_it_is_coloured_and_progress_is_one_redrawn_line() -> None:
    output = on_terminal()
    assert "\x1b[32mstable" in output
    assert "\x1b[35mgray" in output
    (progress,) = [line for line in output.split("\n") if "Sending" in line]
    assert progress.count("\r") > 10


@pytest.mark.slow
def test_no_color_is_respected_on_a_terminal() -> None:
    output = on_terminal(NO_COLOR="1")
    assert ROW.search(output.replace("\r\n", "\n"))
    assert not re.search(r"\x1b\[\d*m", output)


def test_failed_requests_are_counted_logged_and_end_with_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(service: str) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await respond(send, f"{service} is ill\n".encode(), 500 if service == "service-gray" else 200)

        return app

    monkeypatch.setattr(demo, "_upstream", broken)
    monkeypatch.setattr(demo, "BATCHES", [Batch("some", {"gray": "true"}, 3)])
    result = once("--port", "0")
    assert result.exit_code == 1
    assert "3 of 3 requests failed" in result.output
    assert [r.getMessage() for r in caplog.records if r.name == "canary_mw.demo"] == [
        "a request was answered 500: service-gray is ill"
    ] * 3


def test_an_answer_that_is_cut_off_is_a_failed_request() -> None:
    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nserv")
        peer.finish()

    async def scenario() -> Result:
        client = HTTP11Client()
        async with serving(cut) as upstream:
            result = await send_request(client, upstream.origin, UpstreamRequest("x", "GET", b"/", [(b"host", b"x")]))
            await client.aclose()
        return result

    assert run_async(scenario()).service is None


def test_a_request_that_no_rule_takes_has_no_row() -> None:
    results = [Result("service-stable", 0.1)]
    assert list(table_rows(Batch("none", {}, 1), results, RouteTable.build([]))) == []


def test_a_service_that_never_answered_has_a_row_without_times() -> None:
    # As the release is in its first step.
    text = demo.rules_text().replace("{mappings: [svc_gray_mapping]}", "{mappings: [svc_gray_mapping], weight: 20}")
    steps, rest = text.partition("steps:\n")[0], text.partition("sticky:")[2]
    table = RouteTable.from_yaml(f"{steps}sticky:{rest}")
    results = [Result("service-stable", seconds) for seconds in (0.002, 0.001, 0.1)]
    assert list(table_rows(Batch("setWeight: 20", {}, 3), results, table)) == [
        ("setWeight: 20", "stable", "3", "80.0 %", "100.0 %", "2.00 ms", "100.00 ms"),
        ("setWeight: 20", "gray", "0", "20.0 %", "0.0 %", "-", "-"),
    ]
