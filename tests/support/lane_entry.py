"""The first service of `lane_chain`: FastAPI, which asks the second one in every way that carries a lane."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import anyio
import httpx
from fastapi import FastAPI, Request
from lane_chain import ENTRY, sync_clients, told

from canary_mw import CanaryMiddleware, StaticSource, propagate

Work = Callable[[], Awaitable[Any]]


async def awaited(work: Work) -> Any:
    return await work()


async def in_a_task(work: Work) -> Any:
    return await asyncio.ensure_future(work())


async def in_a_group(work: Work) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(awaited(work))
    return task.result()


async def gathered(work: Work) -> Any:
    (found,) = await asyncio.gather(work())
    return found


async def in_a_generator(work: Work) -> Any:
    async def answers() -> AsyncIterator[Any]:
        yield await work()

    return await anext(answers())


async def in_an_anyio_group(work: Work) -> Any:
    found: list[Any] = []

    async def add() -> None:
        found.append(await work())

    async with anyio.create_task_group() as group:
        group.start_soon(add)
    return found[0]


WAYS = [awaited, in_a_task, in_a_group, gathered, in_a_generator, in_an_anyio_group]
pool = ThreadPoolExecutor(16)
carrying = propagate.carrying(pool)


async def in_an_executor(get: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(carrying, get)


async def submitted(get: Callable[[], Any]) -> Any:
    return await asyncio.wrap_future(carrying.submit(get))


async def in_a_thread(get: Callable[[], Any]) -> Any:
    found: Future[Any] = Future()

    def run() -> None:
        found.set_result(get())

    threading.Thread(target=propagate.carry(run)).start()
    return await asyncio.wrap_future(found)


async def in_an_anyio_thread(get: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(get)


SYNC_WAYS: list[Callable[[Callable[[], Any]], Awaitable[Any]]] = [
    asyncio.to_thread,
    in_an_executor,
    submitted,
    in_a_thread,
    in_an_anyio_thread,
]


def create_app() -> Any:
    """The app; it asks in the way of the number in the path."""
    told("ORDERS")
    clients: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session, httpx.AsyncClient(trust_env=False) as client:
            clients.update(session=session, client=client)
            yield

    async def by_aiohttp(url: str, headers: dict[str, str]) -> Any:
        async with clients["session"].get(url, headers=headers) as response:
            return await response.json()

    async def by_httpx(url: str, headers: dict[str, str]) -> Any:
        return (await clients["client"].get(url, headers=headers, follow_redirects=True, timeout=20)).json()

    async_gets = [by_aiohttp, by_httpx]
    sync_gets = [*sync_clients().values()]
    app = FastAPI(lifespan=lifespan)

    async def ask(number: int, url: str, headers: dict[str, str]) -> Any:
        number, sync = divmod(number, 2)
        if sync:
            get = partial(sync_gets[number % 3], url, headers)
            return await SYNC_WAYS[number // 3 % 5](get)
        get_async = async_gets[number % 2]
        return await WAYS[number // 2 % 6](lambda: get_async(url, headers))

    @app.get("/chain/{number}")
    async def chain(number: int, request: Request) -> dict[str, Any]:
        headers = {"x-user": request.headers["x-user"]}
        found = await ask(number, f"{os.environ['ORDERS']}/orders/{number}", headers)
        if number % 3 == 0:
            await ask(number, f"{os.environ['FOREIGN']}/direct", headers)
        if number % 3 == 1:
            await ask(number, f"{os.environ['ORDERS']}/to-foreign", headers)
        return {"entry": request.scope["canary_mw"].release.variant, **found}

    app.add_middleware(CanaryMiddleware, rules=StaticSource(ENTRY), local="app")
    return app
