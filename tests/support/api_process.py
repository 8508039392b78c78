"""`python api_process.py FOLDER PORT`: the API server of the tests in a process of its own, to be killed and started.

`objects` in the folder has a line for each write: a server that is started anew goes on from there, without history.
`requests` has a line for each answer. The token of a pod is `pod-` and its name; all pods are one user.

What only a test may ask for: `/control/hold?pod=&what=` lets requests of a pod wait, `what` is as `update configmaps`;
`/control/release` lets them go on, `/control/compact` forgets the history, `/control/drop` cuts all watches.
"""

import asyncio
import json
import os
import sys
from contextvars import ContextVar
from pathlib import Path
from time import monotonic
from typing import Any

import uvicorn
from fake_apiserver import Call, FakeApi
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

POD, ADMIN = "system:serviceaccount:shop:canary", "admin"
_PREFIX = "pod-"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Who writes, for the journal.
_writer: ContextVar[str] = ContextVar("writer", default="")


def token_of(pod: str) -> str:
    """What a pod shows."""
    return _PREFIX + pod


class JournaledApi(FakeApi):
    """The server, with its journals."""

    def __init__(self, folder: Path) -> None:
        super().__init__(token=ADMIN)
        self._objects, self._requests = (_Journal(folder / name) for name in ("objects", "requests"))
        self._held: set[tuple[str, str]] = set()
        self._goes_on = asyncio.Event()
        self.app.routes.append(Route("/control/{what}", self._control, methods=["POST"]))
        for line in self._objects.lines():
            place = tuple(line["place"])
            self.version = self.oldest = line["version"]
            if line["body"] is None:
                self.objects.pop(place, None)
            else:
                self.objects[place] = line["body"]

    def put(self, key: str, namespace: str, name: str, body: dict[str, Any] | None) -> None:
        super().put(key, namespace, name, body)
        place = key, namespace, name
        self._objects.write(version=self.version, by=_writer.get(), place=place, body=self.objects.get(place))

    def _who(self, request: Request) -> str:
        return POD if _pod_of(request) else super()._who(request)

    async def _entry(self, request: Request) -> Response:
        pod, began = _pod_of(request), monotonic()
        _writer.set(pod)
        response = await super()._entry(request)
        place = request.path_params["kind"], request.path_params.get("name", "")
        self._requests.write(began=began, pod=pod, verb=_verb_of(request), place=place, status=response.status_code)
        return response

    async def _serve(self, call: Call, verb: str, request: Request) -> Response:
        what = f"{verb} {call.kind.plural}"
        while {(_pod_of(request), what), ("", what)} & self._held:
            await self._goes_on.wait()
        return await super()._serve(call, verb, request)

    async def _control(self, request: Request) -> Response:
        what = request.path_params["what"]
        if what == "hold":
            self._held.add((request.query_params.get("pod", ""), request.query_params["what"]))
        elif what == "release":
            self._held.clear()
            held, self._goes_on = self._goes_on, asyncio.Event()
            held.set()
        elif what == "compact":
            self.compact()
        else:
            self.drop_watches(hard=True)
        return JSONResponse({})


class _Journal:
    """Lines of a file, each whole: the process may be killed at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps({"at": monotonic(), **line}).encode() + b"\n")

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self._path.read_bytes().splitlines()]


def _pod_of(request: Request) -> str:
    """The pod that asks, "" for anybody else."""
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return given.removeprefix(_PREFIX) if given.startswith(_PREFIX) else ""


def _verb_of(request: Request) -> str:
    read = "get" if request.path_params.get("name") else "watch" if "watch" in request.query_params else "list"
    return _VERBS.get(request.method, read)


def main(folder: str, port: str) -> None:
    """Serve until the process is killed."""
    api = JournaledApi(Path(folder))
    uvicorn.run(api.app, host="127.0.0.1", port=int(port), log_level="critical", lifespan="off", ws="none")


if __name__ == "__main__":
    main(*sys.argv[1:])
