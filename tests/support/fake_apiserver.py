"""A Kubernetes API server for tests: reads, watches and writes, as servers of 1.20 and 1.36 were recorded to answer.

It knows Services, EndpointSlices, Ingresses, ConfigMaps, Leases, Events, RBAC objects, and custom resources that are
installed by `install`.
Writes are checked for conflicts as a server checks them, not for their schema. Faults are methods:
`compact`, `drop_watches`, `restart`, `freeze`, `fail_next`, and the attributes `token`, `denied` and `webhook_down`.
"""

import asyncio
import contextlib
import copy
import json
import random
import re
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
Key = tuple[str, str, str]  # plural[.group], namespace, name

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
RBAC = "rbac.authorization.k8s.io"
# Bytes that a ConfigMap holds at most.
MOST = 1 << 20


@dataclass
class FakeKind:
    """One resource; of its versions the first one is stored, and needs no webhook."""

    group: str
    plural: str
    kind: str
    versions: list[str]
    custom: bool = False
    webhook: bool = False
    # Whether an update has to say which version it is of.
    versioned: bool = False

    @property
    def key(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


BUILTIN = [
    FakeKind("", "services", "Service", ["v1"]),
    FakeKind("", "configmaps", "ConfigMap", ["v1"]),
    FakeKind("", "events", "Event", ["v1"]),
    FakeKind("networking.k8s.io", "ingresses", "Ingress", ["v1"]),
    FakeKind("discovery.k8s.io", "endpointslices", "EndpointSlice", ["v1"]),
    FakeKind("coordination.k8s.io", "leases", "Lease", ["v1"], versioned=True),
    FakeKind(RBAC, "roles", "Role", ["v1"]),
    FakeKind(RBAC, "rolebindings", "RoleBinding", ["v1"]),
]


def mappings_kind(*versions: str, webhook: bool = False) -> FakeKind:
    """The kind Mapping, as its CRD defines it; the first version is stored."""
    return FakeKind("getambassador.io", "mappings", "Mapping", list(versions or ("v3alpha1",)), True, webhook, True)


class Refused(Exception):
    def __init__(self, code: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class Event(NamedTuple):
    version: int
    type: str
    key: Key
    new: Json
    old: Json | None


class Call(NamedTuple):
    """Which objects a request is about, and how it wants them shown."""

    kind: FakeKind
    version: str
    namespace: str
    name: str
    query: dict[str, str]
    metadata_only: bool


def status(code: int, message: str, headers: dict[str, str] | None = None, reason: str = "") -> JSONResponse:
    return JSONResponse(status_object(code, message, reason), code, headers)


def status_object(code: int, message: str, reason: str = "") -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason or REASONS.get(code, "Unknown"),
        "code": code,
    }


def bare(body: Json) -> Json:
    """An object without what the server writes."""
    kept = {name: value for name, value in body.items() if name not in ("apiVersion", "kind", "status")}
    own = ("uid", "resourceVersion", "namespace")
    return {**kept, "metadata": {key: value for key, value in body["metadata"].items() if key not in own}}


def merge_patch(base: Json, patch: Json) -> Json:
    """RFC 7386."""
    out = copy.deepcopy(base)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            out[key] = merge_patch(out[key] if isinstance(out.get(key), dict) else {}, value)
        else:
            out[key] = value
    return out


def named_by(query: dict[str, str]) -> str:
    """The name in a field selector, which may name nothing else; "" without one."""
    selector = query.get("fieldSelector", "")
    found = re.fullmatch(r"metadata\.name==?([^,]+)", selector)
    if selector and found is None:
        raise Refused(400, f"Unable to find a field selector {selector!r} for this kind")
    return found[1] if found else ""


def matches(obj: Json, selector: str) -> bool:
    """Whether the labels of an object are those of a selector `a=b,c!=d,e,f in (g,h)`."""
    labels = obj["metadata"].get("labels") or {}
    for term in filter(None, re.split(r",(?![^(]*\))", selector)):
        if one_of := re.fullmatch(r"(\S+) in \((.*)\)", term):
            if labels.get(one_of[1]) not in one_of[2].split(","):
                return False
            continue
        key, op, value = re.fullmatch(r"([^=!]+)(!=|==?)?(.*)", term).groups()  # type: ignore[union-attr]
        if (op is None and key not in labels) or (op and (labels.get(key) == value) == (op == "!=")):
            return False
    return True


class FakeApi:
    """The server; `app` is served by the test.

    Args:
        token: that of an administrator; without it nobody is asked.
        users: names by token; their rights come from Role objects.
        old: whether it answers as 1.20 did, else as 1.36 does.
        window: number of changes that are remembered.
    """

    def __init__(
        self,
        *kinds: FakeKind,
        token: str | None = None,
        users: dict[str, str] | None = None,
        old: bool = False,
        window: int = 1000,
        bookmark_every: float = 60.0,
    ) -> None:
        self.token, self.users, self.old, self.window, self.bookmark_every = (
            token,
            users or {},
            old,
            window,
            bookmark_every,
        )
        self.version = self.oldest = 100
        self.kinds = {(kind.group, kind.plural): kind for kind in [*BUILTIN, *kinds]}
        if old:
            self.install(FakeKind("discovery.k8s.io", "endpointslices", "EndpointSlice", ["v1beta1"]))
        self.objects: dict[Key, Json] = {}
        self.log: list[Event] = []
        self.tick = asyncio.Event()  # set, and replaced, at every change
        self.generation, self.drop_hard, self.frozen = 0, False, False
        self.ended: set[tuple[str, str]] = set()
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.denied: set[str] = set()
        self.webhook_down = True
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.continues: dict[str, tuple[int, list[Json]]] = {}
        self.watching = 0
        verbs = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        ends = "{kind}", "namespaces/{namespace}/{kind}", "namespaces/{namespace}/{kind}/{name}"
        self.app = Starlette(
            routes=[
                Route("/apis/{group}", self._group),
                *(
                    Route(f"{root}/{end}", self._entry, methods=verbs)
                    for end in ends[::-1]
                    for root in ("/api/{version}", "/apis/{group}/{version}")
                ),
            ]
        )

    # What a test does to it.

    def put(self, key: str, namespace: str, name: str, body: Json | None) -> None:
        """Write an object, or delete it with None."""
        place, old = (key, namespace, name), self.objects.get((key, namespace, name))
        self.version += 1
        new = copy.deepcopy(self.objects.pop(place) if body is None else body)
        if body is not None:
            self.objects[place] = new
        uid = old["metadata"]["uid"] if old else str(uuid.uuid4())
        version = str(self.version)
        new.setdefault("metadata", {}).update(name=name, namespace=namespace, uid=uid, resourceVersion=version)
        kind = "DELETED" if body is None else "MODIFIED" if old else "ADDED"
        self.log.append(Event(self.version, kind, place, copy.deepcopy(new), old))
        while len(self.log) > self.window:
            self.oldest = self.log.pop(0).version
        self._notify()

    def annotate(self, namespace: str, name: str, text: str | None, **labels: str) -> None:
        """Write the Service with this annotation."""
        annotations = {} if text is None else {"getambassador.io/config": text}
        self.put("services", namespace, name, {"metadata": {"annotations": annotations, "labels": labels}, "spec": {}})

    def map(self, namespace: str, name: str, spec: Json | None) -> None:
        """Write a Mapping object."""
        self.put("mappings.getambassador.io", namespace, name, None if spec is None else {"spec": spec})

    def expose(self, namespace: str, name: str, ports: list[Json] | None) -> None:
        """Write a Service with these ports; a rule that annotates it stays."""
        metadata = self.objects.get(("services", namespace, name), {}).get("metadata", {})
        body = None if ports is None else {"metadata": dict(metadata), "spec": {"ports": ports}}
        self.put("services", namespace, name, body)

    def slice(self, namespace: str, service: str, name: str, slice: Json | None) -> None:
        """Write an EndpointSlice of a Service: what is beside its metadata."""
        labels = {"kubernetes.io/service-name": service}
        body = None if slice is None else {"metadata": {"labels": labels}, "addressType": "IPv4", **slice}
        self.put("endpointslices.discovery.k8s.io", namespace, name, body)

    def grant(self, namespace: str, user: str, rules: list[Json]) -> None:
        """Give a user the rights of a Role."""
        self.put(f"roles.{RBAC}", namespace, "reader", {"rules": rules})
        binding = {"roleRef": {"name": "reader"}, "subjects": [{"kind": "User", "name": user}]}
        self.put(f"rolebindings.{RBAC}", namespace, "reader", binding)

    def apply(self, item: Json) -> None:
        """Write a role or a binding as it stands in a manifest."""
        metadata = item["metadata"]
        self.put(f"{item['kind'].lower()}s.{RBAC}", metadata.get("namespace", ""), metadata["name"], item)

    def compact(self) -> None:
        """Forget history: a watch from any earlier version gets 410."""
        self.log.clear()
        self.oldest = self.version

    def drop_watches(self, *, hard: bool = False) -> None:
        """End open watches: an end of the answer, or a cut connection."""
        self.generation += 1
        self.drop_hard = hard
        self._notify()

    def restart(self) -> None:
        """As after a killed server: connections cut, history gone."""
        self.compact()
        self.drop_watches(hard=True)

    def freeze(self) -> None:
        """Watches stay open and say nothing, as on a half-open connection."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        self._notify()

    def fail_next(self, code: int, count: int = 1, **headers: str) -> None:
        self.failures += [(code, {name.replace("_", "-"): value for name, value in headers.items()})] * count

    def install(self, kind: FakeKind) -> None:
        self.kinds[kind.group, kind.plural] = kind

    async def uninstall(self, kind: FakeKind, *, told: bool = True) -> None:
        """Remove a kind: DELETED of each object if `told`, end of its watches, 404."""
        for key in [key for key in self.objects if key[0] == kind.key]:
            if told:
                self.put(*key, None)
            else:
                del self.objects[key]
        await asyncio.sleep(0.05)
        del self.kinds[kind.group, kind.plural]
        self.ended.add((kind.group, kind.plural))
        self._notify()
        await asyncio.sleep(0.05)
        self.ended.clear()

    def _notify(self) -> None:
        last, self.tick = self.tick, asyncio.Event()
        last.set()

    # Who may what.

    def _who(self, request: Request) -> str:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given in self.users:
            return self.users[given]
        if self.token is None or given == self.token:
            return ""
        if given:
            raise Refused(401, "Unauthorized")
        return "system:anonymous"

    def _may(self, user: str, verb: str, group: str, plural: str, namespace: str, name: str = "") -> bool:
        """Whether somebody may; a rule with names is about requests that name one of them."""
        if verb in self.denied or f"{verb} {plural}" in self.denied:
            return False
        if not user:
            return True
        return any(
            verb in rule["verbs"]
            and group in rule["apiGroups"]
            and plural in rule["resources"]
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self._rules(user, namespace)
        )

    def _rules(self, user: str, namespace: str) -> list[Json]:
        found: list[Json] = []
        for (key, where, _), binding in self.objects.items():
            if key == f"clusterrolebindings.{RBAC}" or (key == f"rolebindings.{RBAC}" and where == namespace):
                names = {
                    f"system:serviceaccount:{s.get('namespace', where)}:{s['name']}"
                    if s["kind"] == "ServiceAccount"
                    else s["name"]
                    for s in binding["subjects"]
                }
                kind = binding["roleRef"].get("kind", "Role")
                place = "" if kind == "ClusterRole" else where
                role = self.objects.get((f"{kind.lower()}s.{RBAC}", place, binding["roleRef"]["name"]))
                found += role["rules"] if role and user in names else []
        return found

    # Requests.

    async def _group(self, request: Request) -> Response:
        group = request.path_params["group"]
        self.requests.append(("discover", request.url.path, {}))
        versions = [version for kind in self.kinds.values() if kind.group == group for version in kind.versions]
        if not versions:
            return PlainTextResponse("404 page not found\n", 404)
        shown = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
        return JSONResponse({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": shown})

    async def _entry(self, request: Request) -> Response:
        query, path = dict(request.query_params), request.path_params
        group, plural, namespace = path.get("group", ""), path["kind"], path.get("namespace", "")
        read = "get" if path.get("name") else "watch" if "watch" in query else "list"
        writes = {"POST": "create", "PUT": "update"}
        verb = read if request.method == "GET" else writes.get(request.method, request.method.lower())
        self.requests.append((verb, request.url.path, query))
        if self.failures:
            code, headers = self.failures.pop(0)
            return status(code, "injected", headers)
        try:
            user = self._who(request)
            if group == "authorization.k8s.io":
                return await self._review(request, user)
            name = path.get("name") or named_by(query)
            if not self._may(user, verb, group, plural, namespace, name):
                where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
                what = f'User "{user or "admin"}" cannot {verb} resource "{plural}" in API group "{group}" {where}'
                raise Refused(403, f"{plural} is forbidden: {what}")
            kind = self.kinds.get((group, plural))
            if kind is None or path["version"] not in kind.versions:
                return PlainTextResponse("404 page not found\n", 404)
            only = "as=PartialObjectMetadata" in request.headers.get("accept", "").split(",")[0]
            call = Call(kind, path["version"], namespace, path.get("name", ""), query, only)
            return await self._serve(call, verb, request)
        except Refused as exc:
            return status(exc.code, str(exc), reason=exc.reason)

    async def _review(self, request: Request, user: str) -> Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        place = asked["verb"], asked.get("group", ""), asked["resource"], asked.get("namespace", "")
        allowed = self._may(user, *place, asked.get("name", ""))
        return JSONResponse({"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}}, 201)

    async def _serve(self, call: Call, verb: str, request: Request) -> Response:
        if verb == "watch":
            return await self._watch(call, request)
        if verb == "list":
            return self._list(call)
        if verb == "create":
            return self._create(call, await request.json())
        # Whatever comes while the body is awaited is there before.
        body = await request.json() if verb in ("patch", "update") else {}
        key = call.kind.key, call.namespace, call.name
        old = self.objects.get(key)
        if old is None:
            raise Refused(404, f'{call.kind.key} "{call.name}" not found')
        if verb == "delete":
            self.put(*key, None)
            return JSONResponse({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        if verb == "patch":
            patched = merge_patch(old, body)
            self._check(call, patched)
            self.put(*key, patched)
        if verb == "update":
            self._update(call, key, old, body)
        return JSONResponse(self._shown(call, self.objects[key]))

    def _create(self, call: Call, body: Json) -> Response:
        metadata = body["metadata"]
        name = metadata.get("name") or metadata["generateName"] + uuid.uuid4().hex[:5]
        key = call.kind.key, call.namespace, name
        if key in self.objects:
            raise Refused(409, f'{call.kind.key} "{name}" already exists', "AlreadyExists")
        self._check(call, body)
        self.put(*key, bare(body))
        return JSONResponse(self._shown(call, self.objects[key]), 201)

    def _update(self, call: Call, key: Key, old: Json, body: Json) -> None:
        version = body["metadata"].get("resourceVersion", "")
        if not version and call.kind.versioned:
            raise Refused(422, f'{call.kind.key} "{call.name}" is invalid: metadata.resourceVersion: must be specified')
        if version and version != old["metadata"]["resourceVersion"]:
            raise Refused(409, f'Operation cannot be fulfilled on {call.kind.key} "{call.name}": it has been modified')
        self._check(call, body)
        # What changes nothing is no event.
        if {**bare(body), "metadata": old["metadata"]} != old or bare(body)["metadata"] != bare(old)["metadata"]:
            self.put(*key, bare(body))

    def _check(self, call: Call, body: Json) -> None:
        spec = body.get("spec") or {}
        if call.kind.plural == "leases":
            time = spec.get("renewTime")
            if time and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time):
                raise Refused(400, f'Lease in version "v1" cannot be handled as a Lease: parsing time "{time}"')
            if spec.get("leaseDurationSeconds", 1) <= 0:
                raise Refused(422, "spec.leaseDurationSeconds: must be greater than 0")
        if call.kind.plural == "configmaps":
            self._check_config_map(body)
        if call.kind.plural == "events" and body["involvedObject"].get("namespace") != call.namespace:
            raise Refused(422, "involvedObject.namespace: does not match event.namespace")

    def _check_config_map(self, body: Json) -> None:
        texts, binaries = body.get("data") or {}, body.get("binaryData") or {}
        if not all(isinstance(each, str) for each in [*texts.values(), *binaries.values()]):
            raise Refused(400, "ConfigMap in version v1 cannot be handled as a ConfigMap: json: cannot unmarshal")
        names = [*texts, *binaries]
        if len({*names}) < len(names) or any(re.fullmatch(r"[-._a-zA-Z0-9]+", name) is None for name in names):
            raise Refused(422, "ConfigMap is invalid: data: Invalid value")
        size = sum(len(each.encode()) for each in texts.values())
        if size + sum(len(b64decode(each, validate=True)) for each in binaries.values()) > MOST:
            raise Refused(422, f"ConfigMap is invalid: []: Too long: must have at most {MOST} bytes")

    def _shown(self, call: Call, obj: Json) -> Json:
        if call.metadata_only:
            return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        return {"kind": call.kind.kind, "apiVersion": f"{call.kind.group}/{call.version}".lstrip("/"), **obj}

    def _select(self, call: Call) -> list[Json]:
        selector, only = call.query.get("labelSelector", ""), named_by(call.query)
        return [
            obj
            for (key, namespace, name), obj in sorted(self.objects.items())
            if key == call.kind.key and call.namespace in ("", namespace) and only in ("", name)
            if matches(obj, selector)
        ]

    def _needs_webhook(self, call: Call) -> bool:
        """Whether an answer waits for a webhook that is gone; an empty one does not."""
        kind = call.kind
        return kind.webhook and self.webhook_down and call.version != kind.versions[0] and bool(self._select(call))

    def _list(self, call: Call) -> Response:
        limit = int(call.query.get("limit") or 0)
        if token := call.query.get("continue"):
            at, items = self.continues.pop(token)
            if at < self.oldest:
                raise Refused(410, "The provided continue parameter is too old to display a consistent list result.")
        else:
            at, items = self.version, self._select(call)
        if self._needs_webhook(call):
            raise Refused(500, "conversion webhook for getambassador.io failed: Post: service not found")
        metadata: Json = {"resourceVersion": str(at), "continue": ""}
        if limit and limit < len(items):
            metadata["continue"] = uuid.uuid4().hex
            self.continues[metadata["continue"]] = at, items[limit:]
        bare = not (call.kind.custom or call.metadata_only)
        shown: list[Json] | None = [obj if bare else self._shown(call, obj) for obj in items[: limit or None]]
        if self.old and call.metadata_only and not shown:
            shown = None
        return JSONResponse({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": shown})

    async def _watch(self, call: Call, request: Request) -> Response:
        if self._needs_webhook(call) and not self.old:
            error = {"type": "ERROR", "object": status_object(504, "Timeout: Too large resource version")}
            return StreamingResponse(iter([json.dumps(error).encode() + b"\n"]), media_type="application/json")
        while self._needs_webhook(call) and not await request.is_disconnected():  # noqa: ASYNC110 - as a server does
            await asyncio.sleep(0.05)
        seconds = float(call.query.get("timeoutSeconds") or random.uniform(1800, 3600))
        since = int(call.query.get("resourceVersion") or 0)
        return StreamingResponse(self._events(call, since, seconds), media_type="application/json")

    async def _events(self, call: Call, since: int, seconds: float) -> AsyncIterator[bytes]:
        self.watching += 1
        try:
            async for event, obj in self._stream(call, since, seconds):
                yield json.dumps({"type": event, "object": obj}).encode() + b"\n"
        finally:
            self.watching -= 1

    async def _stream(self, call: Call, since: int, seconds: float) -> AsyncIterator[tuple[str, Json]]:
        loop, generation = asyncio.get_running_loop(), self.generation
        end, bookmark, seen = loop.time() + seconds, loop.time() + self.bookmark_every, not self.old
        if since < self.oldest:
            yield "ERROR", status_object(410, f"too old resource version: {since} ({self.oldest})")
            if self.old:
                # An old server does not hang up.
                await asyncio.sleep(seconds)
            return
        while True:
            tick = self.tick
            while self.frozen and generation == self.generation and loop.time() < end:  # noqa: ASYNC110 - a fault
                await asyncio.sleep(0.02)
            for event in [event for event in self.log if event.version > since]:
                since = event.version
                if shown := self._event(call, event):
                    seen = True
                    yield shown, self._shown(call, event.new)
            if generation != self.generation and self.drop_hard:
                raise ConnectionResetError("dropped by the test")
            ended = (call.kind.group, call.kind.plural) in self.ended
            if generation != self.generation or ended or loop.time() >= end:
                return
            if seen and loop.time() >= bookmark:
                bookmark = loop.time() + self.bookmark_every
                yield "BOOKMARK", {"metadata": {"resourceVersion": str(self.version), "creationTimestamp": None}}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(tick.wait(), min(end - loop.time(), self.bookmark_every, 0.5))

    def _event(self, call: Call, event: Event) -> str:
        """What an event is for a watch; empty if it is not for it."""
        key, namespace, name = event.key
        if key != call.kind.key or call.namespace not in ("", namespace) or named_by(call.query) not in ("", name):
            return ""
        selector = call.query.get("labelSelector", "")
        now = event.type != "DELETED" and matches(event.new, selector)
        before = event.old is not None and matches(event.old, selector)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else ""
