"""ConfigMaps as they are read and written: always by the version that was read, so that no write of others is lost."""

from collections.abc import Callable
from typing import Any

from canary_mw.control.rollouts.cluster.address import Cluster
from canary_mw.control.rollouts.cluster.names import config_map_name
from canary_mw.control.rollouts.cluster.objects import Object, empty_object, resource_version
from canary_mw.control.rollouts.cluster.problems import explained, missing_config_map
from canary_mw.exceptions import StoreAway
from canary_mw.kubernetes.api import Api, Lines, Refused
from canary_mw.kubernetes.reflector import MalformedAnswer

_JSON = "application/json"
# Times that a write is tried again where others have written something else of the object.
_TRIES = 5


class Access:
    """The ConfigMaps of a namespace, for one task at a time.

    Every method raises StoreAway where the server does not do what it is asked for.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._api = Api(cluster.connection)
        self._may_make = True
        self._all = f"/api/v1/namespaces/{cluster.namespace}/configmaps"

    async def reset(self) -> None:
        """Close the connection."""
        await self._api.reset()

    async def read(self, release: str, *, make: bool = True) -> Object | None:
        """The object of a release, None where there is none.

        Args:
            make: whether one that is missing is made, where this pod may.
        """
        try:
            return _checked(await self._api.get(f"{self._all}/{config_map_name(release)}", {}, _JSON))
        except Refused as exc:
            if exc.code == 404:
                return await self._make(release) if make and self._may_make else None
            raise await self._failed(exc, release) from exc
        except Exception as exc:
            raise await self._failed(exc, release) from exc

    async def watch(self, release: str, item: Object, seconds: int) -> Lines:
        """Open a watch of the object of a release, from a version of it on; the caller closes it."""
        params = {
            "watch": "1",
            "fieldSelector": f"metadata.name={config_map_name(release)}",
            "resourceVersion": resource_version(item),
            "timeoutSeconds": str(seconds),
        }
        try:
            return await self._api.watch(self._all, params, _JSON)
        except Refused as exc:
            exc.method = "WATCH"
            raise await self._failed(exc, release) from exc
        except Exception as exc:
            raise await self._failed(exc, release) from exc

    async def _make(self, release: str) -> Object | None:
        try:
            return _checked(await self._api.post(self._all, empty_object(release)))
        except Refused as exc:
            if exc.code == 403:
                # It is not asked for again and again.
                self._may_make = False
                return None
            raise await self._failed(exc, release) from exc
        except Exception as exc:
            raise await self._failed(exc, release) from exc

    async def change(
        self, release: str, known: Object | None, change: Callable[[Object], Object | None]
    ) -> tuple[Object, bool]:
        """Write what a change makes of an object.

        Args:
            known: the object as it was read before.
            change: returns None where there is nothing to change any more. It is called for each version of others.

        Returns:
            The object as it is now, and whether it was changed.
        """
        item = known
        for _ in range(_TRIES):
            item = await self._existing(release) if item is None else item
            wanted = change(item)
            if wanted is None and item is not known:
                return item, False
            if wanted is None:
                # What is known may be old.
                item = None
                continue
            written = await self._put(release, wanted)
            if written is not None:
                return written, True
            item = None
        raise StoreAway(f"others write the ConfigMap {config_map_name(release)} all the time")

    async def _existing(self, release: str) -> Object:
        found = await self.read(release)
        if found is None:
            raise StoreAway(missing_config_map(self._cluster.namespace, config_map_name(release)))
        return found

    async def _put(self, release: str, wanted: Object) -> Object | None:
        """Write an object as it was read; None where somebody else has written it since, or has removed it."""
        try:
            return _checked(await self._api.put(f"{self._all}/{config_map_name(release)}", wanted))
        except Refused as exc:
            if exc.code in (404, 409):
                return None
            raise await self._failed(exc, release) from exc
        except Exception as exc:
            raise await self._failed(exc, release) from exc

    async def _failed(self, error: Exception, release: str) -> StoreAway:
        if isinstance(error, Refused) and error.code == 401:
            self._cluster.connection.renew()
        if not isinstance(error, Refused) or error.code == 401:
            await self._api.reset()
        return StoreAway(explained(error, self._cluster.connection, "configmaps", "", config_map_name(release)))


def _checked(item: Any) -> Object:
    """An object that can be written back."""
    if not isinstance(item, dict) or not resource_version(item):
        raise MalformedAnswer("an answer without `metadata.resourceVersion`")
    return item
