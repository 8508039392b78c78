"""The API server of the tests in a process of its own: what it keeps, and whom it lets wait."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from api_process import token_of
from cluster_api import ClusterApi, cluster_api
from staged import until

pytestmark = pytest.mark.slow

MAPS = "/api/v1/namespaces/shop/configmaps"
RBAC = "apis/rbac.authorization.k8s.io/v1"


def allow(api: ClusterApi, *names: str) -> None:
    """Give the pods rights on ConfigMaps, of these names or of all."""
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update", "watch"]}
    api.put(f"{RBAC}/roles", "canary", {"rules": [{**rule, **({"resourceNames": names} if names else {})}]})
    subject = {"kind": "ServiceAccount", "name": "canary", "namespace": "shop"}
    api.put(f"{RBAC}/rolebindings", "canary", {"roleRef": {"name": "canary"}, "subjects": [subject]})


def ask(api: ClusterApi, method: str, path: str, body: Any = None, *, pod: str = "one") -> tuple[int, Any]:
    """Status and value of the answer to a pod."""
    with closing(HTTPConnection("127.0.0.1", api.port, timeout=20)) as connection:
        headers = {"authorization": f"Bearer {token_of(pod)}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def watch(connection: HTTPConnection, since: str) -> HTTPResponse:
    """A watch that is open."""
    headers = {"authorization": f"Bearer {token_of('one')}"}
    connection.request("GET", f"{MAPS}?watch=1&resourceVersion={since}&fieldSelector=metadata.name=x", headers=headers)
    return connection.getresponse()


def test_it_keeps_what_it_holds_and_forgets_its_history(tmp_path: Path) -> None:
    with cluster_api(tmp_path / "api") as api:
        allow(api, "x")
        api.put("api/v1/configmaps", "x", {"data": {"key": "1"}})
        before = ask(api, "GET", f"{MAPS}/x")[1]
        with closing(HTTPConnection("127.0.0.1", api.port, timeout=20)) as connection:
            lines = watch(connection, before["metadata"]["resourceVersion"])
            assert ask(api, "PUT", f"{MAPS}/x", {**before, "data": {"key": "2"}})[0] == 200
            assert json.loads(lines.readline())["object"]["data"] == {"key": "2"}
            api.kill()
            with pytest.raises(OSError, match="refused"):
                ask(api, "GET", f"{MAPS}/x")
        api.start()
        after = ask(api, "GET", f"{MAPS}/x")[1]
        assert (after["data"], after["metadata"]["uid"]) == ({"key": "2"}, before["metadata"]["uid"])
        with closing(HTTPConnection("127.0.0.1", api.port, timeout=20)) as connection:
            stale = watch(connection, before["metadata"]["resourceVersion"])
            assert json.loads(stale.readline())["object"]["code"] == 410
        asked = [(each.pod, each.verb, each.status) for each in api.asked() if each.plural == "configmaps" and each.pod]
        read, changed, opened = ("one", "get", 200), ("one", "update", 200), ("one", "watch", 200)
        assert asked == [read, opened, changed, read, opened]


def test_a_write_that_waited_while_others_wrote_is_refused(tmp_path: Path) -> None:
    with cluster_api(tmp_path / "api") as api, ThreadPoolExecutor() as threads:
        allow(api)
        api.put("api/v1/configmaps", "x", {})
        item = ask(api, "GET", f"{MAPS}/x")[1]
        api.hold("update configmaps", "one")
        waiting = threads.submit(ask, api, "PUT", f"{MAPS}/x", {**item, "data": {"who": "one"}})
        assert ask(api, "PUT", f"{MAPS}/x", {**item, "data": {"who": "other"}}, pod="other")[0] == 200
        assert not waiting.done()
        api.release()
        assert waiting.result()[0] == 409
        assert ask(api, "GET", f"{MAPS}/x")[1]["data"] == {"who": "other"}


def test_one_that_is_stopped_answers_when_it_goes_on(tmp_path: Path) -> None:
    with cluster_api(tmp_path / "api") as api, ThreadPoolExecutor() as threads:
        api.freeze()
        waiting = threads.submit(ask, api, "GET", f"{MAPS}/x")
        api.thaw()
        assert until(waiting.done)
        assert waiting.result()[0] == 403
