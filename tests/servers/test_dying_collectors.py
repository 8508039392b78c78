"""`canary-mw serve` beside a LogService and a collector that hang, talk nonsense and die: no request is lost by it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector import TRACE, ZIPKIN, Zipkin
from load import load
from log_receiver import PLAIN, SERVICE, Receiver, receiving
from moods import Gate, changing
from servers import fetch, fetch_admin, free_port, mapping, process, run
from upstream import forever, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECONDS = 6.0


@pytest.fixture
def logs() -> Iterator[tuple[Receiver, int]]:
    with receiving() as (receiver, peer):
        yield receiver, peer.origin.port


def told_of_last(receiver: Receiver) -> bool:
    return any(each["request"]["path"] == "/last" for each in receiver.entries())


def traced_last(zipkin: Zipkin) -> bool:
    return any(each["traceId"] == TRACE for each in zipkin.spans)


def test_a_collector_and_a_log_service_that_die_under_load_cost_no_request(
    tmp_path: Path, logs: tuple[Receiver, int]
) -> None:
    receiver, log_port = logs
    zipkin, port, admin_port = Zipkin(), free_port(), free_port()
    path = tmp_path / "rules.yaml"

    async def main() -> str:
        async with serving(zipkin) as collector, serving(forever) as shop:
            gates = [Gate(log_port), Gate(collector.origin.port)]
            places = [f"127.0.0.1:{each.port}" for each in gates]
            path.write_text(
                mapping("shop", "/shop/", shop.origin.authority)
                + SERVICE.replace("service: logs", f"service: {places[0]}")
                + PLAIN
                + ZIPKIN.replace("service: collector", f"service: {places[1]}")
            )
            options = ["--port", str(port), "--admin-port", str(admin_port)]
            serve = process("serve", "--rules", str(path), *options, log=tmp_path / "log", wait_for=[port, admin_port])
            await asyncio.to_thread(serve.__enter__)
            try:
                async with changing(gates, 0.5), load(port) as asked:
                    await asyncio.sleep(SECONDS)
                    await asked.more()
                assert asked.lost == []
                # Both are told again; what was on its way to one that died is lost.
                while not (told_of_last(receiver) and traced_last(zipkin)):
                    await fetch(port, "/shop/last", headers=[("x-b3-traceid", TRACE), ("x-b3-spanid", TRACE[:16])])
                    await asyncio.sleep(0.05)
                metrics = (await fetch_admin(admin_port, "/metrics")).body.decode()
            finally:
                await asyncio.to_thread(serve.__exit__, None, None, None)
                for gate in gates:
                    await gate.close()
        return metrics

    metrics = run(main(), 100)
    assert 'canary_mw_spans_total{result="sent"}' in metrics
    output = (tmp_path / "log").read_text()
    # Once a minute each.
    for name in ("LogService als", "TracingService tracing"):
        assert output.count(f"{name} cannot be told") == 1
    assert "Traceback" not in output
