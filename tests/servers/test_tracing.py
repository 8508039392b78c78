"""`canary-mw serve --tracing`, with the SDK set up by the usual variables."""

import asyncio
from pathlib import Path

import pytest
from rules import document
from servers import fetch, free_port, process, run
from upstream import forever, serving

pytestmark = pytest.mark.slow


def test_each_worker_sends_its_last_spans_at_the_end(tmp_path: Path) -> None:
    rules, log, port = tmp_path / "rules.yaml", tmp_path / "log", free_port()
    rules.write_text(document("shop", prefix="/shop/"))

    async def main() -> None:
        async with serving(forever) as upstream:
            arguments = ["serve", "--rules", str(rules), "--port", str(port), "--workers", "2", "--admin-port", "0"]
            arguments += ["--upstream", f"*=http://127.0.0.1:{upstream.origin.port}", "--tracing"]
            variables = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "gate"}
            with process(*arguments, log=log, wait_for=[port], **variables) as proxy:
                for _ in range(5):
                    assert (await fetch(port, "/shop/cart?token=secret")).status == 200
                await asyncio.to_thread(proxy.stop)

    run(main(), 60)
    output = log.read_text()
    assert output.count('"name": "GET /shop/"') == output.count('"name": "GET shop"') == 5
    assert output.count('"service.name": "gate"') == 10
    assert "secret" not in output


def test_an_exporter_that_is_missing_stops_the_start_and_is_named(tmp_path: Path) -> None:
    rules, log = tmp_path / "rules.yaml", tmp_path / "log"
    rules.write_text(document("shop", prefix="/shop/"))
    arguments = ["serve", "--rules", str(rules), "--port", str(free_port()), "--admin-port", "0", "--tracing"]
    with process(*arguments, log=log, OTEL_TRACES_EXPORTER="zipkin") as proxy:
        assert proxy.child.wait(30) == 3
    assert "the exporter zipkin of OTEL_TRACES_EXPORTER is not installed" in log.read_text()
