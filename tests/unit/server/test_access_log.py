"""Where the access log of the standalone proxy goes: standard output in batches, or the handlers of loggers."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rules import document
from servers import fetch, run, serving_app
from upstream import Peer, serving

from canary_mw.exceptions import ConfigError
from canary_mw.observability.access_log import AccessLog, access_logger
from canary_mw.server.access_log import open_access_log
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings


def without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logger as in `serve`; called in a test, since pytest adds handlers when a test begins."""
    monkeypatch.setattr(access_logger, "handlers", [])
    monkeypatch.setattr(access_logger, "propagate", False)
    monkeypatch.setattr(access_logger, "level", logging.NOTSET)
    access_logger.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def cache_of_levels() -> Iterator[None]:
    yield
    access_logger.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize("style", ["json", "text"])
def test_lines_go_to_standard_output_and_the_last_ones_are_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    without_handlers(monkeypatch)
    (tmp_path / "rules.yaml").write_text(document("shop", prefix="/shop/"))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"hello")

    async def main() -> None:
        async with serving(script) as upstream:
            seen.append(upstream.origin.port)
            rules, url = (str(tmp_path / "rules.yaml"),), f"*=http://127.0.0.1:{upstream.origin.port}"
            app = Proxy(Settings(rules=rules, upstream=(url,), access_log=True, access_log_format=style))
            async with serving_app(app, lifespan="on") as port:
                headers = [("x-request-id", "7f3a"), ("content-length", "3")]
                await fetch(port, "/shop/cart?secret", "POST", headers=headers, body=b"abc")
                await fetch(port, "/nothing")

    seen: list[int] = []
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        run(main())
    first, second = (tmp_path / "out").read_text().splitlines()
    assert "secret" not in first
    if style == "text":
        assert first.split(" ", 2)[1:] == ["127.0.0.1", first.split(" ", 2)[2]]
        assert f'"POST /shop/cart" 200 {first.split()[5]} shop shop stable - 127.0.0.1:{seen[0]} 3 5 1 7f3a' in first
        return
    fields = json.loads(first)
    assert {name: fields[name] for name in ("method", "path", "status", "mapping", "variant", "client")} == {
        "method": "POST",
        "path": "/shop/cart",
        "status": 200,
        "mapping": "shop",
        "variant": "stable",
        "client": "127.0.0.1",
    }
    assert (fields["upstream"], fields["tries"], fields["request_id"]) == (f"127.0.0.1:{seen[0]}", 1, "7f3a")
    assert (fields["bytes_in"], fields["bytes_out"]) == (3, 5)
    other = json.loads(second)
    assert (other["status"], other["mapping"], other["bytes_in"]) == (404, None, 0)
    assert "upstream" not in other


def test_a_logger_with_a_handler_gets_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    without_handlers(monkeypatch)
    assert open_access_log("json", print)[1] is not None
    monkeypatch.setattr(access_logger, "handlers", [logging.NullHandler()])
    assert open_access_log("json", print)[1] is None


def test_a_standard_output_without_a_descriptor_leaves_it_to_the_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    without_handlers(monkeypatch)
    for output in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stdout", output)
        assert open_access_log("json", print)[1] is None


def test_who_asks_for_the_log_gets_it_whatever_the_level_of_other_loggers_is(monkeypatch: pytest.MonkeyPatch) -> None:
    without_handlers(monkeypatch)
    open_access_log("json", print)
    assert access_logger.isEnabledFor(logging.INFO)


def test_a_level_that_was_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    without_handlers(monkeypatch)
    monkeypatch.setattr(access_logger, "level", logging.WARNING)
    open_access_log("json", print)
    assert not access_logger.isEnabledFor(logging.INFO)


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="CANARY_MW_ACCESS_LOG_FORMAT is 'xml'"):
        Settings(access_log_format="xml")
    with pytest.raises(ConfigError, match="use json or text"):
        AccessLog("xml")


def test_a_line_that_cannot_be_written_counts_as_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    without_handlers(monkeypatch)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        app = Proxy(Settings(access_log=True, admin_port=1))
        assert app._log_writer is not None
        assert app._metrics is not None
        app._log_writer.add("a line")
        app._log_writer.close()
    assert app._metrics.read(0.0).counters["access_log_dropped_lines",] == 1
