"""The commands of `canary-mw release`: what they ask an admin port, what they print, and their exit codes."""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from canned_admin import CannedAdmin, canned_admin
from click.testing import CliRunner, Result
from rollout_examples import NAME, PROGRESSING, ROLLED_BACK, answer, change, listed, phase
from servers import free_port

from canary_mw.cli.main import main
from canary_mw.cli.release import waiting, watching

PATH = f"/api/v1/releases/{NAME}"
TOKEN = "operator-0123456789abcdef"
HELD = phase("Held", held_by="sample_ratio", reason="assignment is not as drawn")
COMPLETED = phase("Completed", weight=100.0)
FREE: dict[str, Any] = {"env": {"CANARY_MW_ADMIN_TOKEN_FILE": None, "CANARY_MW_STATE": None}}


def canary(canned: CannedAdmin | str, *arguments: str, **environ: str) -> Result:
    url = canned if isinstance(canned, str) else canned.url
    env = {**FREE["env"], "CANARY_MW_ADMIN": url, **environ}
    return CliRunner().invoke(main, ["release", *arguments], env=env)


def get_of(*rollouts: Any) -> dict[str, list[tuple[int, Any]]]:
    return {PATH: [(200, answer(each)) for each in rollouts]}


def token_file(folder: Path, text: str = f"operate {TOKEN}\n") -> str:
    path = folder / "tokens"
    path.write_text(text)
    return str(path)


def test_a_release_is_shown_as_text_and_as_json() -> None:
    with canned_admin(get_of(PROGRESSING)) as canned:
        assert "◌ Progressing" in canary(canned, "get", NAME).output
        assert json.loads(canary(canned, "get", NAME, "-o", "json").output)["rollout"]["item"] == 3
        history = canary(canned, "history", NAME)
        assert "Pending → Progressing" in history.output
        assert len(json.loads(canary(canned, "history", NAME, "-o", "json").output)) == 3


def test_all_releases_are_listed() -> None:
    answers = {"/api/v1/releases": [(200, {"releases": [listed("a", PROGRESSING), listed("b", None)]})]}
    with canned_admin(answers) as canned:
        assert canary(canned, "list").output.splitlines()[1].startswith("a     ◌ Progressing  3/9")
        assert len(json.loads(canary(canned, "list", "-o", "json").output)["releases"]) == 2


def test_a_release_without_a_state_has_no_history() -> None:
    with canned_admin(get_of(None)) as canned:
        assert canary(canned, "history", NAME).output.startswith("nothing raises this release by itself")
        assert canary(canned, "history", NAME, "-o", "json").output == "[]\n"


def test_the_words_of_a_refusal_are_the_error() -> None:
    with canned_admin({}) as canned:
        result = canary(canned, "get", NAME)
        assert (result.exit_code, result.output) == (1, "Error: nothing is here\n")
    assert "cannot be reached" in canary(f"http://127.0.0.1:{free_port()}", "get", NAME).output


def test_a_name_with_slashes_is_one_step_of_the_path() -> None:
    with canned_admin({"/api/v1/releases/team%2Fshop%3F": [(200, answer(PROGRESSING))]}) as canned:
        assert canary(canned, "get", "team/shop?").exit_code == 0


@pytest.mark.parametrize(
    ("rollout", "alone", "with_wait"),
    [
        (COMPLETED, 0, 0),
        (ROLLED_BACK, 1, 1),
        (phase("Aborted"), 1, 1),
        (HELD, 2, 2),
        (PROGRESSING, 0, 3),
        (phase("Paused"), 0, 3),
        (phase("Manual"), 4, 4),
        (None, 4, 4),
    ],
)
def test_the_exit_code_of_status_is_that_of_the_phase(rollout: Any, alone: int, with_wait: int) -> None:
    with canned_admin(get_of(rollout)) as canned:
        assert canary(canned, "status", NAME).exit_code == alone
        assert canary(canned, "status", NAME, "--wait", "--timeout", "0.3").exit_code == with_wait


def test_status_waits_for_the_end_past_what_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.0)
    away = phase("Held", held_by="evidence")
    with canned_admin(get_of(PROGRESSING, away, PROGRESSING, phase("Baking"), COMPLETED)) as canned:
        result = canary(canned, "status", NAME, "--wait")
        assert (result.exit_code, result.output) == (0, f"{NAME}: ✔ Completed step 3/9, weight 100 %\n")
        assert len(canned.asked) == 5


def test_what_keeps_gray_from_everybody_is_in_the_line() -> None:
    off = "all releases are stopped: everybody gets stable"
    with canned_admin(get_of(phase("Progressing", reason="the first step begins", findings=[off]))) as canned:
        assert canary(canned, "status", NAME).output.endswith(f": the first step begins; {off}\n")


def test_what_holds_a_release_for_long_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.0)
    monkeypatch.setattr(waiting, "_SETTLED", 0.0)
    with canned_admin(
        get_of(PROGRESSING, phase("Held", held_by="timeout", reason="50 requests are missing"))
    ) as canned:
        result = canary(canned, "status", NAME, "--wait")
        assert result.exit_code == 2
        assert result.output.endswith(": 50 requests are missing\n")


def test_a_server_that_is_away_is_waited_for() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert canary(url, "status", NAME).exit_code == 4
    assert canary(url, "status", NAME, "--wait", "--timeout", "0.1").exit_code == 3


def test_a_name_that_is_not_known_is_not_waited_for() -> None:
    with canned_admin({}) as canned:
        result = canary(canned, "status", NAME, "--wait")
        assert (result.exit_code, result.output) == (4, "Error: nothing is here\n")
        assert len(canned.asked) == 1


def test_a_server_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.0)
    answers = {PATH: [(503, {"error": {"code": "busy", "message": "later"}}), (200, answer(COMPLETED))]}
    with canned_admin(answers) as canned:
        assert canary(canned, "status", NAME, "--wait").exit_code == 0


@pytest.mark.parametrize(("text", "code"), [("1s", 3), ("0.2", 3), ("1 parsec", 2), ("-1", 2)])
def test_a_timeout_is_a_number_of_seconds_or_a_duration(text: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_mw.cli.release.waiting.time.monotonic", iter(range(0, 1000, 2)).__next__)
    with canned_admin(get_of(PROGRESSING)) as canned:
        assert canary(canned, "status", NAME, "--wait", f"--timeout={text}").exit_code == code


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["promote", NAME], "/promote"),
        (["promote", NAME, "--full"], "/promote?full=true"),
        (["abort", NAME], "/abort"),
        (["retry", NAME], "/retry"),
        (["undo", NAME], "/undo"),
        (["pause", NAME], "/pause"),
        (["resume", NAME], "/resume"),
        (["set-weight", NAME, "12.5"], "/set-weight?weight=12.5"),
    ],
)
def test_a_command_is_a_post_with_the_token(arguments: list[str], target: str, tmp_path: Path) -> None:
    path = PATH + target.partition("?")[0]
    with canned_admin({path: [(200, answer(phase("Paused")))]}) as canned:
        result = canary(canned, *arguments, "--token-file", token_file(tmp_path))
        assert result.exit_code == 0, result.output
        assert result.output == f"{NAME}: ‖ Paused step 3/9, weight 5 %, 7m12s of at least 10m\n"
        (asked,) = canned.asked
        assert (asked.method, asked.target) == ("POST", PATH + target)
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"
        assert "if-match" not in asked.headers
        assert json.loads(canary(canned, *arguments, "-o", "json", "--token-file", token_file(tmp_path)).output)[
            "rollout"
        ]


def test_a_command_may_be_for_one_version_alone(tmp_path: Path) -> None:
    moved = {"error": {"code": "version-moved", "message": "the state has moved on: it is at version 8"}}
    with canned_admin({f"{PATH}/pause": [(412, moved)]}) as canned:
        result = canary(canned, "pause", NAME, "--if-match", "7", "--token-file", token_file(tmp_path))
        assert canned.asked[0].headers["if-match"] == '"7"'
        assert (result.exit_code, result.output) == (1, "Error: the state has moved on: it is at version 8\n")


@pytest.mark.parametrize(
    ("text", "command", "sent"),
    [
        ("alone-0123456789abcdef\n", "retry", "alone-0123456789abcdef"),
        ("# ours\n\nstop s-token\noperate o-token ci\n", "abort", "o-token"),
        ("peer p-token\nstop s-token\n", "pause", "s-token"),
        ("peer p-token\nstop s-token\n", "retry", None),
        ("", "abort", None),
        ("peer p-token\n", "abort", None),
    ],
)
def test_the_file_may_be_that_of_the_server(text: str, command: str, sent: str | None, tmp_path: Path) -> None:
    with canned_admin({f"{PATH}/{command}": [(200, answer(PROGRESSING))]}) as canned:
        result = canary(canned, command, NAME, CANARY_MW_ADMIN_TOKEN_FILE=token_file(tmp_path, text))
        if sent is None:
            assert result.exit_code == 1
            assert "there is no token" in result.output
            assert "s-token" not in result.output
            assert not canned.asked
        else:
            assert canned.asked[0].headers["authorization"] == f"Bearer {sent}"


def test_without_a_token_nothing_is_asked(tmp_path: Path) -> None:
    with canned_admin({}) as canned:
        assert "this command needs a token of the server" in canary(canned, "retry", NAME).output
        missing = canary(canned, "retry", NAME, "--token-file", str(tmp_path / "none"))
        assert (missing.exit_code, canned.asked) == (1, [])
        assert "cannot be read" in missing.output


def test_everything_is_stopped_by_a_file_without_any_server(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    result = canary(nobody, "abort", "--all", "--state", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.output == f"everybody gets stable, as long as {tmp_path / 'stop'} is there\n"
    assert (tmp_path / "stop").read_bytes() == b""
    assert stat.S_IMODE(os.stat(tmp_path / "stop").st_mode) == 0o600
    assert canary(nobody, "abort", "--all", CANARY_MW_STATE=str(tmp_path)).exit_code == 0, "a second time, too"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "write the NAME of a release, or --all"),
        ([NAME, "--all", "--state", "."], "write the NAME of a release, or --all"),
        (["--all"], "--all needs the folder of the state"),
        (["--all", "--state", "/nowhere/at/all"], "/nowhere/at/all is no folder"),
        (["--all", "--state", "k8s://shop"], "k8s://shop is no folder: write --state and the run folder of a pod"),
    ],
)
def test_everything_is_stopped_only_as_it_is_meant(arguments: Sequence[str], says: str) -> None:
    result = canary("http://127.0.0.1:1", "abort", *arguments)
    assert result.exit_code in (1, 2)
    assert says in result.output


def watched(monkeypatch: pytest.MonkeyPatch, canned: CannedAdmin, looks: int, *arguments: str) -> str:
    """What a watch prints until it was about to ask again for the last time."""

    def sleep(_: float) -> None:
        if len(canned.asked) >= looks:
            raise KeyboardInterrupt

    monkeypatch.setattr("canary_mw.cli.release.watching.time.sleep", sleep)
    result = canary(canned, *arguments)
    assert result.exit_code == 1, "interrupted"
    return result.output


@pytest.mark.parametrize("arguments", [("watch", NAME), ("get", NAME, "--watch"), ("get", NAME, "-w")])
def test_a_watch_prints_each_transition_once(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    new = change("2026-11-27T14:06:00.000Z", "Progressing", "RolledBack", 3, 0.0, "gray fails more often")
    later = {**ROLLED_BACK, "history": [new, *PROGRESSING["history"]]}
    with canned_admin(get_of(PROGRESSING, PROGRESSING, later, later)) as canned:
        lines = watched(monkeypatch, canned, 4, *arguments).splitlines()
    assert len([line for line in lines if line.startswith("2026-")]) == 4
    assert lines[3] == "2026-11-27T14:06:00.000Z  Progressing → RolledBack  3  0 %  gray fails more often"


def test_a_watch_outlives_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = get_of(PROGRESSING)
    answers[PATH] += [(503, {"error": {"code": "busy", "message": "later"}})] * 2 + [(200, answer(ROLLED_BACK))]
    with canned_admin(answers) as canned:
        lines = watched(monkeypatch, canned, 4, "watch", NAME).splitlines()
    assert lines.count("the server is lost: later") == 1
    assert len([line for line in lines if line.startswith("2026-")]) == 3


def test_a_terminal_shows_the_newest_state_and_that_the_server_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sleep(_: float) -> None:
        if len(canned.asked) >= 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("canary_mw.cli.release.watching.time.sleep", sleep)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    answers = get_of(PROGRESSING, ROLLED_BACK)
    answers[PATH].append((503, {"error": {"code": "busy", "message": "later"}}))
    with canned_admin(answers) as canned, pytest.raises(KeyboardInterrupt):
        watching.watch_release(canned.url, NAME, "text")
    first, second, third = capsys.readouterr().out.split("\x1b[H\x1b[J")[1:]
    assert "Progressing" in first
    assert "RolledBack" in second
    assert "RolledBack" in third
    assert "The server is lost: later" in third


def test_a_watch_of_nothing_ends_at_once() -> None:
    with canned_admin({}) as canned:
        assert canary(canned, "watch", NAME).output == "Error: nothing is here\n"
