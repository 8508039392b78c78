"""`canary-mw top`: what it shows, and what its keys do."""

import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest
from admin_client import GOOD, loaded
from admin_examples import HOSTILE
from admin_release_examples import NOT_ENOUGH, OFF, OVERVIEW, SLOWER, WORSE
from admin_thread import served_in_thread
from click.testing import CliRunner
from recorded_figures import evidence, release_figures, steady
from servers import free_port

from canary_mw.admin import create_admin
from canary_mw.cli.main import main
from canary_mw.cli.terminal import fitted, visible, width
from canary_mw.cli.top.keys import State, pressed
from canary_mw.cli.top.view import Wanted, plain, view
from canary_mw.observability.prometheus import Metrics

FAILING = evidence('{"stable": 80, "gray": 20}', stable=(8000, 7900, 20), gray=(2000, 1900, 60))


def shown(wanted: Wanted = Wanted(), *releases: Any) -> list[str]:  # noqa: B008 - immutable
    overview = {**OVERVIEW, "releases": list(releases)} if releases else OVERVIEW
    return plain(view(overview, wanted)).splitlines()


def test_stable_stands_beside_gray_with_state_and_sentence() -> None:
    lines = shown(Wanted(120), WORSE)
    title = "gateway-7c9f-x2k4q · 4 workers · rules 42 live on 4 of 4 · 398 req/s · last 5 min"
    assert lines[0] == f"canary-mw top  {title}"
    assert shown(Wanted(80))[0].startswith("canary-mw top  4 workers · rules 42 live on 4 of 4 · 398 req/s · last ")
    assert lines[2].split() == ["Release", "State", "Gray", "req/s", "Errors", "95", "%", "interval", "p95"]
    stable, gray = lines[4:6]
    assert stable.split() == "checkout-2026-11 ▲ worse 20 % 166.2 0.41 % ··━··················· 118 ms".split()
    assert gray.split() == "shop.example /checkout/ 20.0 seen 41.6 3.14 % ··················╍╍╍╍ 118 ms".split()
    assert lines[7].startswith("▲ checkout-2026-11: Gray fails more often: 3.1 % of its requests against 0.4 %.")
    assert "  What to do: take gray back" in "\n".join(lines)


@pytest.mark.parametrize("columns", [40, 60, 80, 99, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_80_columns_have_no_interval(columns: int) -> None:
    wide = {**WORSE, "name": "检出服务" * 20}
    lines = shown(Wanted(columns), WORSE, SLOWER, wide, OFF)
    assert max(map(width, lines[1:])) <= max(columns, 66)
    assert ("95 % interval" in lines[2]) == (columns >= 100)


def test_names_of_others_move_nothing_on_the_terminal() -> None:
    hostile = {**WORSE, "name": f"\x1b[2J{HOSTILE}\n\r", "match": {"host": "a\x07", "prefix": "/\u2028"}}
    text = "\n".join(shown(Wanted(200), hostile))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", text)
    assert "U+001B[2J<script>" in text
    assert "U+202E" in text


def test_a_variant_without_requests_and_few_errors_are_told_as_such() -> None:
    lines = shown(Wanted(80), OFF)
    assert lines[4].split()[:4] == ["login-cookie", "⊖", "off", "0"]
    gray = {**NOT_ENOUGH["variants"]["shop-gray"], "errors": 0, "requests": 27}
    few = {**NOT_ENOUGH, "variants": {**NOT_ENOUGH["variants"], "shop-gray": gray}}
    assert "0 of 27" in shown(Wanted(80), few)[5]


@pytest.mark.parametrize(("phase", "sign"), [("RolledBack", "✖"), ("Progressing", "◌"), ("unheard of", "?")])
def test_a_release_with_steps_has_its_phase_beside_gray(phase: str, sign: str) -> None:
    release = {**WORSE, "rollout": {"phase": phase}}
    assert f"  {sign} {phase} " in shown(Wanted(120), release)[5]
    assert shown(Wanted(120), {**WORSE, "rollout": {"phase": "Manual"}}) == shown(Wanted(120), WORSE)


def test_several_gray_variants_have_a_line_each() -> None:
    variants = {**WORSE["variants"], "v3": WORSE["variants"]["shop-gray"]}
    several = {**WORSE, "variants": variants, "verdicts": {**WORSE["verdicts"], "v3": OFF["verdict"]}}
    lines = shown(Wanted(120), several)
    assert "/checkout/ shop-gray" in lines[5]
    assert "v3" in lines[6]
    assert "⊖ off" in lines[6]


def test_releases_are_found_sorted_and_chosen() -> None:
    def names(wanted: Wanted) -> list[str]:
        lines = [line for line in shown(wanted) if line.startswith(("  ", "› "))]
        return [line[2:].split()[0] for line in lines if re.search("[▲◆◷✓⊖] ", line)]

    assert names(Wanted(120))[0] == "checkout-2026-11"
    assert names(Wanted(120, sort="name"))[1:] == ["checkout-2026-11", "invoices-pdf", "login-cookie", "profile-api"]
    assert names(Wanted(120, find="PROFILE")) == ["profile-api"]
    assert "No release has this in its name." in shown(Wanted(find="nothing"))
    assert shown(Wanted(120, chosen=2))[-1].startswith("◷ invoices-pdf: Not enough yet")


def test_texts_are_fitted_by_the_columns_that_they_take() -> None:
    assert fitted("abc", 5) == "abc  "
    assert fitted("abc", 5, right=True) == "  abc"
    assert fitted("abcdef", 4) == "abc…"
    assert fitted("检出服务", 6) == "检出… "
    assert width("e\u0301") == 1
    assert visible("a\tb") == "aU+0009b"


def test_keys_change_what_is_shown() -> None:
    state = State()
    for keys, wanted in (
        ("1", {"window": "1m"}),
        ("5", {"window": "5m"}),
        ("f", {"window": "15m"}),
        ("h", {"window": "1h"}),
        ("s", {"sort": "name"}),
        ("sss", {"sort": "urgency"}),
        ("p", {"paused": True}),
        ("pp", {"paused": False}),
        ("/q1", {"find": "q1", "typing": True}),
        ("/ab\x7f\r", {"find": "a", "typing": False}),
        ("/ab\x1b", {"find": "", "typing": False}),
        ("jjk", {"chosen": 1}),
        ("k", {"chosen": 0}),
        ("\r", {"opened": True}),
        ("\r\r", {"opened": False}),
        ("q", {"ended": True}),
        ("x", {}),
    ):
        found = state
        for key in keys:
            found = pressed(found, key)
        assert found._asdict() == {**state._asdict(), **wanted}, keys


def failing_app() -> Any:
    found = release_figures(steady(800, 3), steady(200, 6), FAILING)
    return create_admin(loaded(GOOD), Metrics(), read_figures=lambda: found)


def test_once_it_is_text_by_the_answer_of_the_api() -> None:
    with served_in_thread(failing_app()) as port:
        url = f"http://127.0.0.1:{port}"
        result = CliRunner().invoke(main, ["top", "--admin", url, "--once", "--window", "1m"])
        assert result.exit_code == 0, result.output
        assert "last 1 min" in result.output
        assert "▲ shop: Gray fails more often: 3.0 % of its requests against 0.4 %." in result.output
        # Without a terminal it is the same.
        assert CliRunner().invoke(main, ["top", "--admin", url, "--window", "1m"]).output == result.output


def test_a_server_that_does_not_answer_is_an_error() -> None:
    result = CliRunner().invoke(main, ["top", "--once", "--admin", f"http://127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "cannot be reached" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_it_stays_until_q_is_pressed(no_color: str) -> None:
    with served_in_thread(failing_app()) as port:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "canary_mw", "top", "--admin", f"http://127.0.0.1:{port}"]
        environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", "NO_COLOR": no_color}
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
        os.close(slave)
        try:
            text = until_shown(master, "fails more often")
            os.write(master, b"/nothing\r")
            text += until_shown(master, "No release has this in its name.")
            os.write(master, b"\x1b")
            os.write(master, b"q")
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
            os.close(master)
    colours = re.findall(r"\x1b\[[0-9;]*3[0-9](?:;[0-9]+)*m", text)
    assert bool(colours) == (not no_color)


def until_shown(terminal: int, text: str) -> str:
    found = ""
    while text not in found:
        found += os.read(terminal, 65536).decode("utf-8", "replace")
    return found
