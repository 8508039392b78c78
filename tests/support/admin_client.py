"""An admin app about the rules of a test, and requests to it without any socket."""

import json
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from servers import Answer, Pairs, mapping
from starlette.applications import Starlette

from canary_mw.admin import create_admin
from canary_mw.admin.openapi import openapi
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.prometheus import Metrics

GOOD = (
    mapping("beta", "/shop/", "shop-beta", headers='{"x-beta": "1"}')
    + mapping("stable", "/shop/", "shop-stable", add_request_headers='{"authorization": "Bearer of-a-rule"}')
    + mapping("gray", "/shop/", "shop-gray", weight=0)
    + mapping("a", "/split/", "a")
    + mapping("b", "/split/", "b", weight=20)
    + mapping("wide", "/old/", "wide", precedence=5)
    + mapping("narrow", "/old/deep/", "narrow")
    + """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop
gray: {gray: 20}
sticky: {header: x-user-id}
choice: {header: x-gray}
fallback: {}
"""
)


class Changing(StaticSource):
    """A source whose text a test changes."""

    def change(self, text: str) -> None:
        self.__init__(text)  # type: ignore[misc]


def loaded(*texts: str) -> RuleStore:
    """A store that has read some texts, one after the other."""
    source = Changing(texts[0])
    store = RuleStore(source)
    for text in texts:
        source.change(text)
        store.reload()
    return store


def admin(*texts: str, store: RuleStore | None = None, **options: Any) -> Starlette:
    return create_admin(store or loaded(*texts), Metrics(), **options)


def validated(answer: Answer, path: str, status: str = "200", method: str = "get") -> Any:
    """The value of an answer, after a check against the description of its path."""
    assert answer.header("content-type") == "application/json"
    value = json.loads(answer.body)
    described = openapi()
    schema = described["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": described["components"]}).validate(value)
    return value


async def fetch_app(
    app: Starlette, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b""
) -> Answer:
    """The answer of an app; by the name localhost unless the headers say another one."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.request(method, target, headers=list(headers), content=body or None)
        raw = [(name.lower(), value) for name, value in answer.headers.raw]
        return Answer(answer.status_code, raw, answer.content, True)
