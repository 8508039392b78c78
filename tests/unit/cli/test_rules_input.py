"""Where `check` and `explain` find rules and requests: files, standard input, pipes, variables."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rules import document

from canary_mw.cli.main import main

RULES = document("stable", prefix="/svc/") + document("gray", prefix="/svc/", weight=20)
REQUEST = {"method": "GET", "path": "/svc/"}

# JSON allows half a pair; the rules put the address of the client into a header.
SURROGATE = json.dumps({"rules": document("a"), "requests": [{"method": "GET", "path": "/a/", "client": "\ud800"}]})


def invoke(*arguments: str, stdin: str | bytes | None = None, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, env=environ)


@contextmanager
def pipe(text: str) -> Iterator[str]:
    """The path of a pipe with a text in it, as a shell gives it for `<(command)`."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    try:
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(RULES)
    return "rules.yaml"


def test_check_reads_standard_input() -> None:
    assert invoke("check", "-", stdin=RULES).stderr == "2 Mappings: clean\n"
    broken = invoke("check", "-", stdin=RULES + document("c", weight="x"))
    assert broken.exit_code == 1
    assert broken.stdout.startswith("<stdin>:20: error wrong-type Mapping c: weight")


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_standard_input_is_read_under_each_of_its_names(path: str) -> None:
    assert invoke("check", path, "-", stdin=RULES).stderr == "2 Mappings: clean\n"
    assert "20 %  gray" in invoke("explain", path, "GET", "/svc/", stdin=RULES).stdout
    assert "standard input holds the requests" in invoke("explain", path, "--batch", stdin="").stderr


@pytest.mark.parametrize("arguments", [["check", "-"], ["explain", "-", "GET", "/"], ["explain", "--batch"]])
def test_closed_standard_input_is_wrong_usage(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(click.UsageError, match="standard input is closed"):
        main.main(arguments, standalone_mode=False)


def test_a_stream_that_cannot_be_opened_is_a_finding() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        path = f"/dev/fd/{ours.fileno()}"
        assert invoke("check", path).stdout.startswith(f"{path}: error unreadable-file cannot be read: ")


@pytest.mark.parametrize("text", [RULES.encode("utf-16"), RULES.encode("utf-8-sig")])
def test_standard_input_may_have_a_byte_order_mark(text: bytes) -> None:
    assert invoke("check", "-", stdin=text).stderr == "2 Mappings: clean\n"


def test_standard_input_that_is_no_text_is_a_finding() -> None:
    outcome = invoke("check", "-", stdin=b"a: \xff\n")
    assert outcome.exit_code == 1
    assert outcome.stdout.startswith("<stdin>:1: error unreadable-file is not UTF-8 at byte 3")


def test_a_pipe_of_the_shell_is_read_to_its_end() -> None:
    with pipe(RULES) as path:
        assert invoke("check", path).stderr == "2 Mappings: clean\n"
    with pipe(RULES) as path:
        assert "20 %  gray" in invoke("explain", path, "GET", "/svc/").stdout
    assert "error no-mappings" in invoke("check", os.devnull).stdout


def test_another_fifo_is_not_opened(rules: str) -> None:
    os.mkfifo("fifo")
    outcome = invoke("check", rules, "fifo")
    assert (outcome.exit_code, outcome.stderr) == (1, "2 Mappings: 1 error\n")


def test_files_and_standard_input_are_read_together_and_each_once(rules: str) -> None:
    outcome = invoke("check", rules, "-", rules, "-", stdin=document("c"))
    assert outcome.stderr == "3 Mappings: clean\n"


def test_explain_reads_standard_input() -> None:
    assert "20 %  gray" in invoke("explain", "-", "GET", "/svc/", stdin=RULES).stdout


def test_without_a_path_the_rules_are_those_of_the_variable(rules: str) -> None:
    Path("more.yaml").write_text(document("c"))
    both = f" {rules} :more.yaml:"
    assert invoke("check", CANARY_MW_RULES=both).stderr == "3 Mappings: clean\n"
    assert "20 %  gray" in invoke("explain", "GET", "/svc/", CANARY_MW_RULES=both).stdout
    # A path that is given counts instead.
    assert invoke("check", "more.yaml", CANARY_MW_RULES=rules).stderr == "1 Mapping: clean\n"
    assert "100 %  stable  c" in invoke("explain", "more.yaml", "GET", "/c/", CANARY_MW_RULES=rules).stdout


def test_without_any_rules_the_way_to_give_them_is_named() -> None:
    for arguments in (["check"], ["explain", "GET", "/"]):
        outcome = invoke(*arguments)
        assert outcome.exit_code == 2
        assert "CANARY_MW_RULES" in outcome.stderr
    missing = invoke("check", CANARY_MW_RULES="nowhere")
    assert missing.exit_code == 2
    assert "nowhere" in missing.stderr


def test_the_ambassador_id_of_the_environment_counts_as_for_serve() -> None:
    text = document(ambassador_id="mine")
    assert invoke("check", "-", stdin=text).exit_code == 1
    assert invoke("check", "-", stdin=text, CANARY_MW_AMBASSADOR_ID="mine").exit_code == 0
    assert "100 %  stable  a" in invoke("explain", "-", "GET", "/a/", "--ambassador-id", "mine", stdin=text).stdout


def test_warnings_fail_with_strict_and_notices_do_not() -> None:
    assert invoke("check", "-", stdin=document(weight=20)).exit_code == 0
    assert invoke("check", "-", "--strict", stdin=document(weight=20)).exit_code == 1
    outcome = invoke("check", "-", "--strict", stdin=document(docs="{}"))
    assert (outcome.exit_code, outcome.stderr) == (0, "1 Mapping: 1 notice\n")


def test_check_for_a_middleware_takes_a_lone_weight_and_knows_the_service_of_the_app() -> None:
    text = document("shop-gray", weight=20)
    assert "lone-weight" in invoke("check", "-", stdin=text).stdout
    outcome = invoke("check", "-", "--local", "shop-grey", stdin=text)
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("--local: warning unknown-local no Mapping leads to shop-grey")
    assert invoke("check", "-", "--local", "Shop-Gray", stdin=text).stderr == "1 Mapping: clean\n"


def test_check_compares_upstreams_with_the_rules() -> None:
    outcome = invoke("check", "-", "--upstream", "stable=http://a:1", "--upstream", "grey=http://a:2", stdin=RULES)
    assert [line.split(" ")[:3] for line in outcome.stdout.splitlines()] == [
        ["--upstream:", "warning", "unused-upstream"],
        ["<stdin>:8:", "warning", "no-upstream"],
    ]
    both = "stable=http://a:1, gray=http://a:2,http://a:3"
    assert invoke("check", "-", stdin=RULES, CANARY_MW_UPSTREAM=both).stderr == "2 Mappings: clean\n"
    wrong = invoke("check", "-", "--upstream", "gray=127.0.0.1:9001", stdin=RULES)
    assert wrong.exit_code == 2
    assert "upstream gray" in wrong.stderr


def batch(*lines: str | bytes, paths: tuple[str, ...] = ()) -> tuple[int, list[Any]]:
    """The exit code and the answers to lines of a batch."""
    stdin = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    outcome = invoke("explain", *paths, "--batch", stdin=stdin)
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.output
    return outcome.exit_code, [json.loads(line) for line in outcome.stdout.splitlines()]


def test_a_line_of_a_batch_without_rules_gets_those_of_the_path(rules: str) -> None:
    own = json.dumps({"rules": document("own"), "requests": [{"method": "GET", "path": "/own/"}]})
    code, (first, second) = batch(json.dumps({"requests": [REQUEST]}), own, paths=(rules,))
    assert code == 0
    assert [each["mapping"] for each in first["results"][0]["candidates"]] == ["gray", "stable"]
    assert [each["mapping"] for each in second["results"][0]["candidates"]] == ["own"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("x", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "no JSON object"),
        ('{"rules": 1, "requests": []}', "rules must be a text, not 1"),
        ('{"rules": ""}', "requests must be a list"),
        ('{"rules": "", "requests": {}}', "requests must be a list"),
        ('{"requests": []}', "rules are missing"),
        ('{"rules": "", "requests": [], "mode": "novelty"}', "use standalone or middleware"),
        ('{"rules": "", "requests": [], "local": ["a"]}', "local must be a text"),
        ('{"rules": "", "requests": ["a"]}', "requests[0] must be an object"),
        ('{"rules": "", "requests": [{"method": "GET"}]}', "requests[0].path is missing"),
        ('{"rules": "", "requests": [{"method": 1, "path": "/"}]}', "requests[0].method must be a text"),
        ('{"rules": "", "requests": [{"method": "GET", "path": "/", "host": 1}]}', "requests[0].host must be a text"),
        ('{"rules": "", "requests": [{"method": "GET", "path": "/", "client": 1}]}', "requests[0].client must be"),
        (
            '{"rules": "", "requests": [{"method": "GET", "path": "/", "headers": {"a": 1}}]}',
            "requests[0].headers must",
        ),
        ('{"rules": "", "requests": [{"method": "GET", "path": "/", "headers": [["a"]]}]}', "requests[0].headers must"),
        ('{"rules": "", "requests": [{"method": "GET", "path": "/", "headers": "a"}]}', "requests[0].headers must"),
        (SURROGATE, "cannot be encoded"),
    ],
)
def test_a_bad_line_of_a_batch_is_answered_with_its_number_and_the_others_as_ever(line: str | bytes, text: str) -> None:
    good = json.dumps({"rules": RULES, "requests": [REQUEST]})
    code, (first, bad, last) = batch(good, "", line, good)
    assert code == 1
    assert first == last
    assert len(first["results"]) == 1
    assert (sorted(bad), bad["line"]) == (["error", "line"], 3)
    assert text in bad["error"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-"], "standard input holds the requests"),
        (["nowhere"], "nowhere"),
        (["--local", "a"], "--local has no effect with --batch"),
        (["-H", "a: b"], "-H has no effect with --batch"),
        (["--host", "localhost"], "--host has no effect with --batch"),
        (["--json"], "--json has no effect with --batch"),
    ],
)
def test_wrong_usage_of_a_batch_is_explained(arguments: list[str], text: str) -> None:
    outcome = invoke("explain", *arguments, "--batch", stdin="")
    assert outcome.exit_code == 2
    assert text in outcome.stderr


def test_the_help_describes_what_is_read_and_written() -> None:
    assert all(word in invoke("explain", "--help").stdout for word in ("rules", "mode", "local", "requests", '"line"'))
    assert "standard input" in invoke("check", "--help").stdout
    assert invoke("-V").stdout == invoke("--version").stdout
