"""The API server of the tests as one meets it who has rights on some names alone: reads, watches and writes."""

import asyncio
import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi
from servers import serving_app

from canary_mw.kubernetes.api import Api, Refused
from canary_mw.kubernetes.kubeconfig import from_kubeconfig

MAPS = "/api/v1/namespaces/shop/configmaps"
JSON = "application/json"
ONE = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update", "watch"], "resourceNames": ["one"]}


@contextlib.asynccontextmanager
async def someone(folder: Path) -> AsyncIterator[tuple[FakeApi, Api]]:
    """A server with two ConfigMaps, and a client that may use one of them."""
    server = FakeApi(token="admin", users={"mine": "canary"})
    for name in ("one", "other"):
        server.put("configmaps", "shop", name, {"metadata": {}})
    server.grant("shop", "canary", [ONE])
    async with serving_app(server.app, lifespan="off") as port:
        api = Api(from_kubeconfig(str(kubeconfig(folder, f"http://127.0.0.1:{port}", token="mine"))))
        yield server, api
        await api.reset()


@in_loop
async def test_a_right_that_names_objects_is_one_on_these_alone(tmp_path: Path) -> None:
    async with someone(tmp_path) as (_, api):
        found = await api.get(f"{MAPS}/one", {}, JSON)
        await api.put(f"{MAPS}/one", {**found, "data": {"state": "{}"}})
        only = {"fieldSelector": "metadata.name=one"}
        refused = [api.get(f"{MAPS}/other", {}, JSON), api.get(MAPS, only, JSON), api.get(MAPS, {}, JSON)]
        refused += [api.post(MAPS, {"metadata": {"name": "one"}}), api.watch(MAPS, {"watch": "1"}, JSON)]
        for each in refused:
            with pytest.raises(Refused) as caught:
                await each
            assert caught.value.code == 403


@in_loop
async def test_a_watch_of_one_name_tells_of_no_other(tmp_path: Path) -> None:
    async with someone(tmp_path) as (server, api):
        since = str(server.version)
        only = {"watch": "1", "fieldSelector": "metadata.name=one", "resourceVersion": since}
        lines = await api.watch(MAPS, only, JSON)
        for name in ("other", "one"):
            server.put("configmaps", "shop", name, {"metadata": {}, "data": {"state": name}})
        (event,) = await lines.next(10) or []
        assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"state": "one"})
        await lines.aclose()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"data": {"state": 1}}, 400),
        ({"data": {"no/name": ""}}, 422),
        ({"data": {"state": ""}, "binaryData": {"state": ""}}, 422),
        ({"binaryData": {"evidence": b64encode(bytes((1 << 20) + 1)).decode()}}, 422),
        ({"metadata": {"name": "one", "resourceVersion": "1"}}, 409),
    ],
)
@in_loop
async def test_a_config_map_that_cannot_be_one_is_refused(tmp_path: Path, fields: Any, code: int) -> None:
    async with someone(tmp_path) as (_, api):
        found = await api.get(f"{MAPS}/one", {}, JSON)
        with pytest.raises(Refused) as caught:
            await api.put(f"{MAPS}/one", {**found, **fields})
        assert caught.value.code == code


@in_loop
async def test_of_two_writes_of_one_version_the_first_body_to_arrive_wins(tmp_path: Path) -> None:
    """Their heads arrive one after the other, before the bodies."""
    async with someone(tmp_path) as (server, api):
        found = await api.get(f"{MAPS}/one", {}, JSON)
        body = json.dumps({**found, "data": {"state": "late"}}).encode()
        port = int(api._connection.server.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"PUT {MAPS}/one HTTP/1.1\r\nhost: x\r\nauthorization: Bearer mine\r\ncontent-length: {len(body)}\r\n"
        # The answer to `expect` says that the request is being served.
        writer.write(f"{head}expect: 100-continue\r\n\r\n".encode())
        assert b"100" in await reader.readline()
        await api.put(f"{MAPS}/one", {**found, "data": {"state": "early"}})
        writer.write(body)
        await reader.readline()
        assert b" 409 " in await reader.readline()
        writer.close()
        assert server.objects["configmaps", "shop", "one"]["data"] == {"state": "early"}
