"""A lock in the cluster: who holds it, how it is lost, and what is written."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi
from servers import serving_app

from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.api import Api, Refused
from canary_mw.kubernetes.kubeconfig import from_kubeconfig
from canary_mw.kubernetes.lease import Lease

KEY = ("leases.coordination.k8s.io", "shop", "canary")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Electorate:
    """A server, and the processes that want the lock."""

    def __init__(self, server: FakeApi, path: Path) -> None:
        self.server, self._path = server, path
        self._apis: list[Api] = []

    def lease(self, identity: str, clock: Clock, **options: Any) -> Lease:
        api = Api(from_kubeconfig(str(self._path)))
        self._apis.append(api)
        return Lease(api, "shop", "canary", identity, clock=clock, **options)

    @property
    def spec(self) -> Any:
        return self.server.objects[KEY]["spec"]

    async def close(self) -> None:
        for api in self._apis:
            await api.reset()


@contextlib.asynccontextmanager
async def electorate(tmp_path: Path, *, made: bool = True) -> AsyncIterator[Electorate]:
    server = FakeApi()
    if made:
        server.put(*KEY, {"metadata": {}, "spec": {}})
    async with serving_app(server.app, lifespan="off") as port:
        found = Electorate(server, kubeconfig(tmp_path, f"http://127.0.0.1:{port}"))
        try:
            yield found
        finally:
            await found.close()


@in_loop
async def test_one_of_many_holds_the_lock_until_it_is_not_renewed(tmp_path: Path) -> None:
    async with electorate(tmp_path) as found:
        clock = Clock()
        many = [found.lease(f"p{number}", clock) for number in range(8)]
        taken = await asyncio.gather(*(each.try_hold() for each in many))
        assert taken.count(True) == 1
        assert [each.held for each in many] == taken
        holder = many[taken.index(True)]
        other = many[taken.index(False)]
        assert (found.spec["leaseTransitions"], found.spec["leaseDurationSeconds"]) == (1, 15)
        # It is seen by another one, and renewed, so that its time starts again.
        assert not await other.try_hold()
        clock.now += 10
        assert await holder.try_hold()
        assert not await other.try_hold()
        clock.now += 14
        held = [holder.held]
        assert not await other.try_hold()
        clock.now += 1
        # Its own clock says that it is lost, before anybody else takes it.
        assert [*held, holder.held] == [True, False]
        assert await other.try_hold()
        assert not await holder.try_hold()
        assert (found.spec["holderIdentity"], found.spec["leaseTransitions"]) == (other._identity, 2)


@in_loop
async def test_times_that_others_have_written_do_not_count(tmp_path: Path) -> None:
    async with electorate(tmp_path) as found:
        clock = Clock()
        first, second = found.lease("a", clock), found.lease("b", clock)
        assert await first.try_hold()
        # A clock of another machine that is years behind.
        found.spec["renewTime"] = "2001-01-01T00:00:00.000000Z"
        assert not await second.try_hold()
        clock.now += 15
        assert await second.try_hold()


@in_loop
async def test_a_lock_that_is_given_up_is_free_at_once(tmp_path: Path) -> None:
    async with electorate(tmp_path) as found:
        clock = Clock()
        first, second = found.lease("a", clock), found.lease("b", clock)
        assert await first.try_hold()
        assert not await second.try_hold()
        await second.release()
        assert found.spec["holderIdentity"] == "a"
        await first.release()
        assert not first.held
        assert await second.try_hold()


@in_loop
async def test_a_write_between_reading_and_writing_loses_the_lock(tmp_path: Path) -> None:
    async with electorate(tmp_path) as found:
        clock = Clock()
        first = found.lease("a", clock)
        assert await first.try_hold()
        read = first._api.get

        async def late(*arguments: Any) -> Any:
            lease = await read(*arguments)
            found.server.put(*KEY, {"metadata": {}, "spec": {**lease["spec"], "holderIdentity": "b"}})
            return lease

        first._api.get = late  # type: ignore[method-assign, assignment]
        assert not await first.try_hold()
        assert not first.held


@in_loop
async def test_a_lease_that_is_missing_is_named_or_made_by_one(tmp_path: Path) -> None:
    async with electorate(tmp_path, made=False) as found:
        clock = Clock()
        with pytest.raises(ConfigError, match="there is no Lease canary"):
            await found.lease("a", clock).try_hold()
        makers = [found.lease(f"p{number}", clock, create=True) for number in range(3)]
        assert [await each.try_hold() for each in makers] == [True, False, False]


@in_loop
async def test_a_failure_says_nothing_about_the_lock(tmp_path: Path) -> None:
    async with electorate(tmp_path) as found:
        clock = Clock()
        lease = found.lease("a", clock)
        assert await lease.try_hold()
        found.server.fail_next(503)
        with pytest.raises(Refused):
            await lease.try_hold()
        assert lease.held
        clock.now += 15
        assert not lease.held


def test_a_duration_of_nothing_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="duration"):
        Lease(Api(from_kubeconfig(str(path))), "shop", "canary", "a", duration=0)
