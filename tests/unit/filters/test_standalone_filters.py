"""The standalone proxy: its fast path steps aside as soon as a document asks for more, on open connections too."""

import asyncio
from pathlib import Path

import pytest
from auth_rules import AuthService, auth_service
from servers import mapping, run
from standalone import HANDLERS, Noting, listening, wire_to
from upstream import forever, serving

RULES = mapping("shop", "/shop/", "shop")
GRANTED = auth_service(allowed_authorization_headers="[x-user]")


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_document_counts_for_the_next_request_of_an_open_connection(tmp_path: Path, handler: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    auth = AuthService(*[(b"401 No", [], b"who?")] * 2)

    async def main() -> None:
        async with serving(auth) as service, serving(forever) as shop:
            app = Noting(path, shop.origin.port, handler=handler, named={"auth": service.origin.port})
            store = app._middleware.store
            async with listening(app) as (port, _), wire_to(port) as client:
                assert (await client.get()).status == 200
                before = (await client.get()).status, list(app.came)
                path.write_text(RULES + GRANTED)
                await asyncio.to_thread(store.reload)
                assert [(await client.get()).status for _ in range(3)] == [401, 401, 200]
        # The first request has no connection to the shop yet.
        assert before == (200, ["decided"] if handler == "fast_path" else ["whole"] * 2)
        assert app.came[len(before[1]) :] == ["whole"] * 3
        assert len(auth.seen) == 3

    run(main())
