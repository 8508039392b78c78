"""The standalone proxy with a TracingService: its fast path steps aside, on open connections too."""

import asyncio
from pathlib import Path

import pytest
from collector import ZIPKIN, Zipkin
from servers import mapping, run
from standalone import HANDLERS, Noting, listening, wire_to
from upstream import forever, serving, until

from canary_mw.observability.spans import destination

RULES = mapping("shop", "/shop/", "shop")


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_document_counts_for_the_next_request_of_an_open_connection(
    tmp_path: Path, handler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "INTERVAL", 0.0)
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    zipkin = Zipkin()

    async def main() -> None:
        async with serving(zipkin) as collector, serving(forever) as shop:
            app = Noting(path, shop.origin.port, handler=handler, named={"collector": collector.origin.port})
            store = app._middleware.store
            async with listening(app) as (port, _), wire_to(port) as client:
                await client.get()
                await client.get()
                before = len(app.came)
                path.write_text(RULES + ZIPKIN)
                await asyncio.to_thread(store.reload)
                assert [(await client.get(path)).status for path in (b"/shop/", b"/none/")] == [200, 404]
                await until(lambda: len(zipkin.spans) == 3)
        assert before == (1 if handler == "fast_path" else 2)
        assert app.came[before:] == ["whole"] * 2

    run(main())
    shop, none = zipkin.of("SERVER")
    assert (shop["tags"]["http.status_code"], none["tags"]["http.status_code"]) == ("200", "404")
    assert (shop["tags"]["response_flags"], none["tags"]["response_flags"]) == ("-", "NR")
