"""What Argo Rollouts asks of an API server where it drives a release by Mappings, as its traffic router does."""

import copy
from typing import Any

import httpx


class Conflict(Exception):
    """A write that the server refused; Argo tries again with its next reconcile."""


class ArgoRollouts:
    """The traffic router for one Mapping, the base, which leads to the stable Service.

    Args:
        version: that of `--ambassador-api-version`.
    """

    def __init__(
        self, server: str, base: str, *, version: str = "getambassador.io/v2", namespace: str = "shop"
    ) -> None:
        self._path = f"/apis/{version}/namespaces/{namespace}/mappings"
        self._namespace = namespace
        self._base, self._canary = base, f"{base[:246]}-canary"
        self._client = httpx.AsyncClient(base_url=server, headers={"authorization": "Bearer admin"}, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def set_weight(self, weight: int) -> None:
        """One reconcile, without the deletion 5 seconds after a weight of 0."""
        found = await self._client.get(f"{self._path}/{self._canary}")
        if found.status_code == 404:
            if weight:
                await self._create(weight)
            return
        canary = found.json()
        canary["spec"]["weight"] = weight
        await self.put(canary)

    async def get(self) -> dict[str, Any]:
        """The canary Mapping."""
        found = (await self._client.get(f"{self._path}/{self._canary}")).json()
        assert isinstance(found, dict)
        return found

    async def put(self, canary: dict[str, Any]) -> None:
        """Write the canary Mapping as a whole."""
        _raise_for(await self._client.put(f"{self._path}/{self._canary}", json=canary))

    async def delete(self) -> None:
        _raise_for(await self._client.delete(f"{self._path}/{self._canary}"))

    async def _create(self, weight: int) -> None:
        found = await self._client.get(f"{self._path}/{self._base}")
        _raise_for(found)
        base = found.json()
        assert not base["spec"].get("weight"), "Argo refuses a base with a weight"
        # A copy without metadata: labels and annotations are lost.
        spec = copy.deepcopy(base["spec"])
        spec["service"] = spec["service"].replace("shop-stable", "shop-canary", 1)
        spec["weight"] = weight
        metadata = {"name": self._canary, "namespace": self._namespace}
        made = {"apiVersion": base["apiVersion"], "kind": "Mapping", "metadata": metadata, "spec": spec}
        _raise_for(await self._client.post(self._path, json=made))


def _raise_for(answer: httpx.Response) -> None:
    if answer.status_code == 409:
        raise Conflict(answer.text)
    answer.raise_for_status()
