"""Every target on its seeds and on what hypothesis draws: the same inputs on every run, unless one asks for news."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz import strict
from fuzz.guarding import run_client
from fuzz.pipes import cut
from fuzz.seeds import SEEDS
from fuzz.strategies import inputs
from fuzz.targets import TARGETS

# Each is as long as it is worth: what runs in a loop costs more than what does not.
EXAMPLES = dict.fromkeys(TARGETS, 150) | {
    "source": 40,
    "rules": 100,
    "guard": 120,
    "upstream_answers": 120,
    "whole_proxy": 80,
}


@pytest.fixture(autouse=True)
def _without_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_what_must_hold_holds_for_the_seeds(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_what_must_hold_holds_for_whatever_is_drawn(name: str) -> None:
    profile = settings()
    examples = EXAMPLES[name] if profile.derandomize else profile.max_examples

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(inputs(name))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()
    assert all(SEEDS.values())


# What judges has to be right itself.

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /a HTTP/1.1\nHost: x\n\n\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/2.0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
    ],
)
def test_the_strict_parser_refuses_what_could_be_read_in_two_ways(data: bytes) -> None:
    with pytest.raises(strict.Unclear):
        strict.request(data)


@pytest.mark.parametrize("data", [GET[:-1], b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", b""])
def test_the_strict_parser_waits_for_the_rest(data: bytes) -> None:
    with pytest.raises(strict.Incomplete):
        strict.request(data)


def test_the_strict_parser_finds_where_a_request_ends() -> None:
    chunked = b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nT: u\r\n\r\n"
    sized = b"POST /c HTTP/1.1\r\nContent-Length: 2\r\n\r\nde"
    found = strict.requests(chunked + sized + GET + b"rubbish\r\n\r\n")
    assert [(each.line[1], each.body) for each in found] == [(b"/b", b"abc"), (b"/c", b"de"), (b"/a", b"")]


def test_the_strict_parser_passes_over_informational_answers() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    found = strict.answer(early + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", b"GET")
    assert (found.line, found.headers, found.body) == ((b"1.1", b"200"), ((b"content-length", b"2"),), b"ab")
    assert strict.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", b"HEAD").body == b""
    assert strict.answer(b"HTTP/1.1 200 OK\r\n\r\nabc", b"GET").open


def test_the_segments_of_a_cut_are_the_whole() -> None:
    data = bytes(range(256))
    assert [*cut(data, 0)] == [data]
    assert b"".join(cut(data, 7)) == data
    assert {len(segment) for segment in cut(data, 7)} > {7, 1, 3, 14}


def test_the_guard_target_sees_what_the_app_got() -> None:
    outcome = run_client(GET * 2 + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", 5)
    assert outcome.statuses == [b"200"] * 3
    assert [body for _, body in outcome.app.whole] == [b"", b"", b"hi"]


def test_an_input_can_be_run_again_by_itself(tmp_path: Path) -> None:
    here = Path(__file__).parent.parent
    command = [sys.executable, "-m", "fuzz", "header_values"]
    (tmp_path / "input").write_bytes(b"%REQ(x)%\n")
    said = subprocess.run([*command, str(tmp_path / "input")], cwd=here, capture_output=True, text=True, check=True)
    assert said.stdout == "header_values: 9 bytes, and all holds\n"
    unknown = subprocess.run([*command[:-1], "nothing"], cwd=here, capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "nothing is not a target; known are yaml, documents" in unknown.stderr
