"""Servers configure no logging for libraries: a middleware is heard on stderr, at start, in an outage, at a reload."""

import re
from pathlib import Path

import pytest
from servers import fetch, free_port, mapping, process, run
from upstream import Peer, serving, until

APP = """
from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware

async def asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

def wsgi(environ, start_response):
    start_response("200 OK", [("content-length", "0")])
    return [b""]

asgi_app = CanaryMiddleware(asgi, local="shop-stable") if KIND == "asgi" else None
wsgi_app = CanaryWSGIMiddleware(wsgi, local="shop-stable") if KIND == "wsgi" else None
"""
GRAY = [("gray", "true")]
RULES = (
    mapping("stable", "/shop/", "shop-stable")
    + mapping("weighed", "/shop/", "shop-weighed", weight=20)
    + mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}")
)
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) canary_mw\.\w+\[(\d+)\]: (.*)")


def said(output: str) -> list[str]:
    return [match[3] for match in map(LINE.fullmatch, output.splitlines()) if match]


class Gray:
    """The gray service: it resets requests while it is down."""

    down = False

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            if self.down:
                peer.reset()
                return
            await peer.answer()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "module", "arguments"),
    [
        ("asgi", "uvicorn", ["main:asgi_app", "--port"]),
        ("wsgi", "gunicorn", ["main:wsgi_app", "--threads", "2", "--bind"]),
    ],
)
def test_a_middleware_is_heard(kind: str, module: str, arguments: list[str], tmp_path: Path) -> None:
    rules, port, gray = tmp_path / "rules.yaml", free_port(), Gray()
    (tmp_path / "main.py").write_text(f"KIND = {kind!r}\n{APP}")
    rules.write_text(RULES)

    async def main() -> None:
        async with serving(gray) as upstream:
            environ = {
                "PYTHONPATH": str(tmp_path),
                "CANARY_MW_RULES": str(rules),
                "CANARY_MW_UPSTREAM": f"shop-gray=http://127.0.0.1:{upstream.origin.port}",
            }
            bind = f"127.0.0.1:{port}" if module == "gunicorn" else str(port)
            with process(*arguments, bind, log=tmp_path / "log", wait_for=[port], module=module, **environ) as server:

                async def heard(text: str) -> None:
                    await until(lambda: any(text in line for line in said(server.output)))

                assert (await fetch(port, "/shop/", "POST", GRAY)).status == 200
                await heard(f"3 Mappings from {rules}; local service shop-stable, 1 Mapping leads to it")
                gray.down = True
                assert (await fetch(port, "/shop/", "POST", GRAY)).status == 503
                await heard("upstream shop-gray failed: reset: ")
                gray.down = False
                assert (await fetch(port, "/shop/", "POST", GRAY)).status == 200
                await heard("upstream shop-gray answers again")
                rules.with_suffix(".new").write_text(RULES.replace("weight: 20", "weight: 50"))
                rules.with_suffix(".new").rename(rules)
                await heard("rules 2: /shop/: shop-weighed 20 % to 50 %, shop-stable 80 % to 50 %")

    run(main(), 60)
