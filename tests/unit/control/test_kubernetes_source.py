"""Rules from the API of a cluster: what is read of it, when it counts, and what stays."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi, mappings_kind
from servers import serving_app

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware, Metrics
from canary_mw.cli.main import main
from canary_mw.control.sources import kubernetes_cache, kubernetes_view
from canary_mw.control.sources.combined import CombinedSource
from canary_mw.control.sources.kubernetes import KubernetesSource
from canary_mw.control.sources.kubernetes_cache import Cache
from canary_mw.control.sources.named import local_names_in, source_of
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes import pace


def rule(name: str, **more: Any) -> str:
    attributes = {"prefix": "/shop/", "service": name, **more}
    lines = [f"{key}: {json.dumps(value)}" for key, value in attributes.items()]
    return "\n".join(["---", "apiVersion: getambassador.io/v2", "kind: Mapping", f"name: {name}", *lines, ""])


class Cluster:
    """A store that follows a fake cluster; `store` blocks, so that it is used in threads."""

    def __init__(self, server: FakeApi, store: RuleStore) -> None:
        self.server, self.store = server, store

    @property
    def weights(self) -> dict[str, int | None]:
        return {mapping.name: mapping.weight for mapping in self.store.table.mappings}

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - a thread makes it true
                await asyncio.sleep(0.005)

    async def shows(self, **weights: int | None) -> None:
        await self.until(lambda: self.weights == weights)


@contextlib.asynccontextmanager
async def cluster(
    server: FakeApi, tmp_path: Path, place: str = "shop", *, before: str = "", wait: bool = True, **options: Any
) -> AsyncIterator[Cluster]:
    """Follow a namespace of a served API.

    Args:
        place: what stands behind `k8s://`.
        before: rules of a source that comes first.
        wait: whether to wait for rules.
        sources: arguments of `source_of`.
    """
    sources = options.pop("sources", {})
    async with serving_app(server.app, lifespan="off") as port:
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{port}", token="admin")
        address = f"k8s://{place}{'&' if '?' in place else '?'}kubeconfig={path}"
        source = source_of([address], **sources)
        store = RuleStore(CombinedSource([StaticSource(before, "built-in"), source]) if before else source, **options)
        await asyncio.to_thread(store.start)
        made = Cluster(server, store)
        try:
            if wait:
                await made.until(lambda: store.generation)
            yield made
        finally:
            await asyncio.to_thread(store.stop)
            server.drop_watches(hard=True)
            for _ in range(5):
                await asyncio.sleep(0)


@in_loop
async def test_rules_are_read_from_annotations_and_from_mapping_objects(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind())
    server.annotate("shop", "stable", rule("stable"))
    meta = {"metadata": {"annotations": {"getambassador.io/config": rule("of-ingress", prefix="/other/")}}}
    server.put("ingresses.networking.k8s.io", "shop", "i", meta)
    server.map("shop", "gray", {"prefix": "/shop/", "service": "gray", "weight": 10})
    server.annotate("elsewhere", "b", rule("b"))
    async with cluster(server, tmp_path) as found:
        await found.shows(**{"stable": None, "of-ingress": None, "gray": 10})
        assert {mapping.namespace for mapping in found.store.table.mappings} == {"shop"}
        assert {(mapping.name, mapping.file) for mapping in found.store.table.mappings} == {
            ("stable", "k8s://shop/Service/stable"),
            ("of-ingress", "k8s://shop/Ingress/i"),
            ("gray", "k8s://shop/Mapping/gray"),
        }


@in_loop
async def test_changes_take_effect_and_a_deletion_of_everything_does_too(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "both", rule("stable") + rule("gray", weight=0))
    async with cluster(server, tmp_path) as found:
        for weight in (20, 50, 100, 0):
            server.annotate("shop", "both", rule("stable") + rule("gray", weight=weight))
            await found.shows(stable=None, gray=weight)
        server.put("services", "shop", "both", None)
        await found.shows()
        assert found.store.error is None


@in_loop
async def test_an_error_names_object_line_and_namespace_and_keeps_the_last_version(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "both", rule("stable") + rule("gray", weight=10))
    async with cluster(server, tmp_path) as found:
        server.annotate("shop", "both", rule("stable") + rule("gray", weight=-5))
        await found.until(lambda: found.store.error is not None)
        assert str(found.store.error).startswith("k8s://shop/Service/both:13: ")
        assert found.weights == {"stable": None, "gray": 10}


@in_loop
async def test_the_last_document_of_an_annotation_is_no_sign_of_a_text_that_is_cut_off(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "both", rule("stable") + rule("gray", weight=10) + rule("last", prefix="/last/"))
    async with cluster(server, tmp_path) as found:
        await found.shows(stable=None, gray=10, last=None)
        server.annotate("shop", "both", rule("stable") + rule("last", prefix="/last/", timeout_ms="soon"))
        await found.shows(stable=None, last=None)


@in_loop
async def test_with_empty_keep_the_last_mapping_stays(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    async with cluster(server, tmp_path, "shop?empty=keep") as found:
        server.put("services", "shop", "stable", None)
        await found.until(lambda: found.store.error is not None)
        assert found.weights == {"stable": None}


@in_loop
async def test_an_empty_namespace_gives_an_empty_table_that_is_in_force(tmp_path: Path) -> None:
    async with cluster(FakeApi(), tmp_path) as found:
        assert (found.store.generation, found.weights, found.store.error) == (1, {}, None)


@in_loop
async def test_nothing_counts_before_each_named_kind_is_listed(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind())
    server.annotate("shop", "gray", rule("gray", weight=10))
    server.map("shop", "stable", {"prefix": "/shop/", "service": "stable"})
    server.denied = {"list mappings"}
    async with cluster(server, tmp_path, "shop?kinds=services,mappings", wait=False) as found:
        await found.until(lambda: "lacks the rule" in str(found.store.error))
        # A group of one would have all requests.
        assert (found.store.generation, found.weights) == (0, {})
        server.denied = set()
        await found.shows(gray=10, stable=None)
        assert found.store.error is None


@in_loop
async def test_a_kind_that_nobody_named_is_left_out_without_its_right(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    server.denied = {"list ingresses"}
    async with cluster(server, tmp_path) as found:
        await found.shows(stable=None)
        (status,) = [each for each in found.store.source_status() if each.kind == "ingresses"]
        assert not status.synced
        assert "resources: [ingresses]" in str(status)


@in_loop
async def test_a_namespace_of_which_nothing_may_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "gray", rule("gray", weight=10))
    server.denied = {"list"}
    async with cluster(server, tmp_path, "shop", wait=False) as found:
        await found.until(lambda: "resources: [services]" in str(found.store.error))
        await found.until(lambda: "resources: [ingresses]" in str([*map(str, found.store.source_status())]))
        assert (found.store.generation, found.weights) == (0, {})
        server.denied = {"list ingresses"}
        await found.shows(gray=10)
        assert found.store.error is None


class GrantedLate(set[str]):
    """Rights that come one after the other: that for Services with the first list of Ingresses."""

    given = listed = False

    def __contains__(self, right: object) -> bool:
        if right == "list ingresses" and self.given:
            self.listed = True
        return (right == "list ingresses" and not self.given) or (right == "list services" and not self.listed)


@in_loop
async def test_a_right_that_comes_while_the_first_table_is_made_leaves_nothing_out(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    meta = {"metadata": {"annotations": {"getambassador.io/config": rule("gray", weight=10)}}}
    server.put("ingresses.networking.k8s.io", "shop", "i", meta)
    rights = server.denied = GrantedLate()
    async with cluster(server, tmp_path, wait=False) as found:
        await found.until(lambda: all(each.error for each in found.store.source_status() if each.kind != "mappings"))
        rights.given = True
        await found.until(lambda: found.store.generation)
        # Gray alone would have all requests.
        assert found.weights == {"stable": None, "gray": 10}


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ({"token": "old"}, "status 401: Unauthorized; the credentials have expired"),
        ({}, 'User "system:anonymous" cannot list resource "services"'),
        ({}, "no credentials were sent"),
    ],
)
@in_loop
async def test_credentials_that_do_not_count_are_told_with_what_to_do(
    user: dict[str, str], text: str, tmp_path: Path
) -> None:
    server = FakeApi(token="new")
    server.denied = {"list"}
    async with serving_app(server.app, lifespan="off") as port:
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{port}", **user)
        store = RuleStore(source_of([f"k8s://shop?kubeconfig={path}"]))
        await asyncio.to_thread(store.start)
        await Cluster(server, store).until(lambda: text in str(store.error))
        assert store.generation == 0
        assert "lacks the rule" not in str(store.error)
        await asyncio.to_thread(store.stop)
        for _ in range(5):
            await asyncio.sleep(0)


@in_loop
async def test_the_variables_of_the_process_are_no_business_of_a_service(
    tmp_path: Path,
) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable", service="$SECRET.$OPEN"))
    environ = {"SECRET": "hunter2", "OPEN": "example", "CANARY_MW_ENV_NAMES": "OPEN"}
    before = rule("of-file", service="$SECRET", prefix="/file/")
    async with cluster(server, tmp_path, environ=environ, before=before) as found:
        await found.until(lambda: found.weights.keys() == {"stable", "of-file"})
        services = {mapping.name: mapping.service.text for mapping in found.store.table.mappings}
        assert "hunter2" in services["of-file"]
        assert "hunter2" not in services["stable"]
        assert "example" in services["stable"]


@in_loop
async def test_a_file_before_the_cluster_stands_in_for_what_the_cluster_does_not_have(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind())
    server.denied = {"list"}
    place = "shop?kinds=mappings"
    before = rule("stable", weight=1).replace("kind: Mapping\n", "kind: Mapping\nnamespace: shop\n")
    async with cluster(server, tmp_path, place, before=before) as found:
        assert found.weights == {"stable": 1}
        server.map("shop", "stable", {"prefix": "/shop/", "service": "stable", "weight": 2})
        server.denied = set()
        await found.shows(stable=2)
        await found.until(lambda: found.store.error is None)
        (finding,) = [each for each in found.store.diagnostics if each.code == "replaced-by-later-source"]
        assert finding.severity == "notice"
        assert "built-in:" in finding.message
        assert finding.file == "k8s://shop/Mapping/stable"


@in_loop
async def test_a_release_of_the_cluster_replaces_that_of_a_file(tmp_path: Path) -> None:
    server = FakeApi()

    def written(percent: int) -> str:
        text = rule("stable") + rule("gray", weight=0)
        head = "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nnamespace: shop\nname: r\nsticky: {header: k}\n"
        return (
            text.replace("kind: Mapping\n", "kind: Mapping\nnamespace: shop\n") + f"{head}gray: {{gray: {percent}}}\n"
        )

    server.annotate("shop", "both", written(20))
    async with cluster(server, tmp_path, before=written(5)) as found:
        await found.until(
            lambda: any(each.slots == 200_000 for r in found.store.table.documents.in_force for each in r.variants)
        )
        assert found.store.error is None
        told = [str(each) for each in found.store.diagnostics if each.code == "replaced-by-later-source"]
        assert len(told) == 3
        assert [each for each in told if "GrayRelease r" in each and "built-in:" in each and "Service/both" in each]


@in_loop
async def test_files_and_clusters_are_followed_together(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    file = tmp_path / "rules.yaml"
    file.write_text(rule("of-file", prefix="/file/"), encoding="utf-8")
    async with serving_app(server.app, lifespan="off") as port:
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{port}')}"
        store = RuleStore(source_of([file, address]))
        found = Cluster(server, store)
        await asyncio.to_thread(store.start)
        await found.shows(**{"of-file": None, "stable": None})
        server.annotate("shop", "stable", rule("stable", weight=7))
        await found.shows(**{"of-file": None, "stable": 7})
        await asyncio.to_thread(replace, file, rule("of-file", prefix="/file/", weight=9))
        await found.shows(**{"of-file": 9, "stable": 7})
        # A file that loses all is a mistake; a cluster that loses all is not.
        await asyncio.to_thread(replace, file, "# nothing\n")
        await found.shows(stable=7)
        server.put("services", "shop", "stable", None)
        await found.shows()
        assert (store.source_name, store.error) == (f"{file}, {address}", None)
        await asyncio.to_thread(store.stop)
        server.drop_watches(hard=True)
        for _ in range(5):
            await asyncio.sleep(0)


def replace(file: Path, text: str) -> None:
    """Write a file as a whole."""
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.rename(file)


@in_loop
async def test_a_namespace_that_two_addresses_name_is_read_twice_and_said_to_be(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    async with serving_app(server.app, lifespan="off") as port:
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{port}')}"
        store = RuleStore(source_of([address, address + "&kinds=services"]))
        found = Cluster(server, store)
        await asyncio.to_thread(store.start)
        await found.shows(stable=None)
        await found.until(lambda: any(each.code == "duplicate-name" for each in store.diagnostics))
        await asyncio.to_thread(store.stop)
        server.drop_watches(hard=True)
        for _ in range(5):
            await asyncio.sleep(0)


@in_loop
async def test_two_events_of_one_change_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough for any machine.
    monkeypatch.setattr(pace, "QUIET", 1.0)
    monkeypatch.setattr(pace, "BATCH", 1.0)
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    async with cluster(server, tmp_path) as found:
        await found.until(lambda: server.watching == 2)
        before = found.store.generation
        for weight in range(1, 11):
            server.annotate("shop", "gray", rule("gray", weight=weight))
            server.annotate("shop", "stable", rule("stable", timeout_ms=1000 + weight))
        await found.shows(stable=None, gray=10)
        assert found.store.generation == before + 1


@in_loop
async def test_a_status_that_changes_builds_nothing(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind())
    spec = {"prefix": "/shop/", "service": "stable"}
    server.map("shop", "stable", spec)
    async with cluster(server, tmp_path) as found:
        documents = found.store._documents
        server.put("mappings.getambassador.io", "shop", "stable", {"spec": spec, "status": {"state": "Running"}})
        server.annotate("shop", "unrelated", None)
        server.map("shop", "last", {**spec, "prefix": "/last/"})
        await found.shows(stable=None, last=None)
        assert found.store.generation == 2
        assert documents is not None
        assert documents[0] in (found.store._documents or [])


@in_loop
async def test_texts_that_json_and_yaml_write_differently_arrive_as_they_are(tmp_path: Path) -> None:
    value = 'a"b\\c\u2028d\u0085e\x7f\U0001f600: {x} # no comment'
    server = FakeApi(mappings_kind())
    server.map("shop", "stable", {"prefix": "/", "service": "s", "docs": {"display_name": value}})
    server.map("shop", "other", {"prefix": "/other/", "service": "2020-01-01", "hostname": "yes"})
    async with cluster(server, tmp_path) as found:
        await found.shows(stable=None, other=None)
        assert found.store.error is None


@in_loop
async def test_documents_come_in_the_order_of_name_and_namespace(tmp_path: Path) -> None:
    server = FakeApi()
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "x")):
        server.annotate(namespace, name, rule(f"{name}-{namespace}"))
    async with cluster(server, tmp_path, "*") as found:
        names = [document.name for document in found.store._documents or ()]
        assert names == ["k8s://a/Service/x", "k8s://b/Service/x", "k8s://a/Service/z"]


@in_loop
async def test_the_time_from_an_event_to_its_table_is_counted(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "both", rule("stable"))
    async with cluster(server, tmp_path, before=rule("of-file", prefix="/file/")) as found:

        def counted() -> int:
            return sum(found.store.source_status()[0].delays)

        await found.shows(**{"of-file": None, "stable": None})
        assert counted() == 0
        for number in (1, 2):
            server.annotate("shop", "both", rule("stable", weight=number))
            await found.shows(**{"of-file": None, "stable": number})
            await found.until(lambda number=number: counted() == number)  # type: ignore[misc]
        assert found.store.source_status()[0].delay_sum > 0


def events_in(server: FakeApi) -> list[Any]:
    return [each for (key, _, _), each in server.objects.items() if key == "events"]


@in_loop
async def test_errors_are_told_in_events_once_for_each_object_and_reason(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind())
    server.annotate("shop", "both", rule("stable") + rule("gray", weight=10))
    spec = {"prefix": "/shop/"}
    async with cluster(server, tmp_path, sources={"events": True}) as found:
        await found.shows(stable=None, gray=10)
        server.map("shop", "m", spec)
        await found.until(lambda: len(events_in(server)) == 1)
        for weight in (-5, -6, 10, -7):
            server.annotate("shop", "both", rule("stable") + rule("gray", weight=weight))
            await found.until(lambda weight=weight: (str(weight) in str(found.store.error)) == (weight < 0))  # type: ignore[misc]
        await found.until(lambda: len(events_in(server)) == 2)
        # Whatever came before another reason was told before it.
        server.annotate("shop", "both", rule("stable") + rule("gray", weight=10) + "--- {")
        await found.until(lambda: len(events_in(server)) == 3)
        of_mapping, of_service, of_text = events_in(server)
        assert of_mapping["involvedObject"]["apiVersion"] == "getambassador.io/v3alpha1"
        assert (of_mapping["involvedObject"]["kind"], of_mapping["reason"]) == ("Mapping", "WrongType")
        assert of_service["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": "shop",
            "name": "both",
            "uid": server.objects["services", "shop", "both"]["metadata"]["uid"],
        }
        assert (of_service["reason"], of_service["type"], of_service["count"]) == ("WeightRange", "Warning", 1)
        assert of_service["message"].startswith("line 13: ")
        assert of_text["reason"] not in ("WeightRange", "WrongType")


@in_loop
async def test_nobody_writes_events_unasked_and_a_missing_right_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeApi()
    server.denied = {"create events"}
    for asked in (False, True):
        server.annotate("shop", "both", rule("stable") + rule("gray", weight=-5))
        async with cluster(server, tmp_path, sources={"events": asked}) as found:
            await found.until(lambda: found.store.error)
            server.annotate("shop", "both", rule("stable") + rule("gray", timeout_ms="soon"))
            await found.until(lambda: "timeout_ms" in str(found.store.error))
            if asked:
                posts = [each for each in server.requests if each[0] == "create" and each[1].endswith("/events")]
                await found.until(lambda: "create]} to its Role" in caplog.text)
                assert posts
            else:
                assert not [each for each in server.requests if each[1].endswith("/events")]
    assert caplog.text.count("an Event cannot be written") == 1
    assert events_in(server) == []


@in_loop
async def test_documents_of_an_annotation_come_in_the_order_of_emissary(tmp_path: Path) -> None:
    server = FakeApi()
    texts = [rule(f"m{number}", prefix=f"/{number}/") for number in range(1, 12)]
    # Document 2 comes after document 10, and replaces it.
    texts[9] = rule("m2", prefix="/10/")
    server.annotate("shop", "many", "".join(texts))
    # The key of a Mapping goes on behind its namespace: `x.a-b.1` is before `x.a.1`.
    for namespace in ("a", "a-b"):
        server.annotate(namespace, "x", rule(f"x-{namespace}"))
    async with cluster(server, tmp_path, "*") as found:
        prefixes = [mapping.prefix for mapping in found.store.table.mappings if mapping.namespace == "shop"]
        assert prefixes == ["/1/", "/2/", "/11/", *(f"/{number}/" for number in range(3, 10))]
        assert [each.line for each in found.store.diagnostics if each.code == "duplicate-name"] == [8]
        names = [mapping.namespace for mapping in found.store.table.mappings if mapping.namespace != "shop"]
        assert names == ["a-b", "a"]


@in_loop
async def test_a_cluster_that_is_lost_changes_nothing_and_the_source_says_so(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    async with cluster(server, tmp_path) as found:
        await found.until(lambda: all(each.synced for each in found.store.source_status()))
        server.fail_next(503, 1000)
        server.drop_watches(hard=True)
        await found.until(lambda: any(each.errors.get("503") for each in found.store.source_status()))
        assert found.weights == {"stable": None}
        assert any("status 503" in str(each) for each in found.store.source_status())
        server.failures.clear()


def cached(directory: Path, age: float) -> None:
    """Let the cache be of this age."""
    (path,) = directory.glob("kubernetes-*.json")
    body = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**body, "written": time.time() - age}), encoding="utf-8")


@pytest.mark.parametrize(("age", "used"), [(600.0, True), (25 * 3600.0, False)])
@in_loop
async def test_the_rules_of_the_last_hours_are_kept_for_a_start_without_the_cluster(
    age: float, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_view, "_WRITE_AFTER", 0.0)
    monkeypatch.setattr(kubernetes_view, "_CACHE_AFTER", 0.1)
    directory = tmp_path / "cache"
    directory.mkdir()
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    server.annotate("shop", "gray", rule("gray", weight=10), part="x")
    async with serving_app(server.app, lifespan="off") as port:
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{port}')}"
        first = RuleStore(source_of([address], cache=str(directory)))
        made = Cluster(server, first)
        await asyncio.to_thread(first.start)
        await made.until(lambda: any(directory.glob("kubernetes-*.json")))
        await asyncio.to_thread(first.stop)
        cached(directory, age)
        server.fail_next(503, 10000)
        second = RuleStore(source_of([address], cache=str(directory)))
        made = Cluster(server, second)
        await asyncio.to_thread(second.start)
        if used:
            await made.shows(stable=None, gray=10)
            assert "source=cache" in str(second.source_status()[0])
        else:
            await made.until(lambda: second.error is not None)
            assert (second.generation, made.weights) == (0, {})
        server.put("services", "shop", "gray", None)
        server.failures.clear()
        await made.shows(stable=None)
        assert "cache" not in str(second.source_status()[0])
        await asyncio.to_thread(second.stop)
        server.drop_watches(hard=True)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": {"server": "x"}, "written": 1, "documents": []}', "\x00"])
def test_a_cache_that_is_damaged_or_of_another_cluster_is_not_used(content: str, tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), {"server": "https://mine"})
    Path(cache.path).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"damaged|another address"):
        cache.read()


def test_a_cache_is_written_as_a_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), {"server": "https://mine"})
    cache.write([], {"mappings": "v2"})
    assert Path(cache.path).stat().st_mode & 0o777 == 0o600
    assert cache.read().documents == ()
    assert len(list(tmp_path.iterdir())) == 1
    assert kubernetes_cache.MAX_AGE == 24 * 3600


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("k8s://shop", "no pod of a cluster"),
        ("k8s://shop?context=x", "kubeconfig"),
        ("k8s://shop?kubeconfig=/nowhere/config", "cannot be read"),
        ("k8s://shop?kubeconfig=env", "KUBECONFIG is not set"),
    ],
)
def test_an_address_without_credentials_is_an_error_that_says_what_to_do(
    address: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=text) as caught:
        KubernetesSource(address)
    assert str(caught.value).startswith(address)


@pytest.mark.parametrize(("limit", "used"), [(None, True), (7200, True), (3600, False)])
def test_the_age_of_a_cache_that_is_taken_may_be_limited(limit: float | None, used: bool, tmp_path: Path) -> None:
    address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, 'http://127.0.0.1:9')}"
    found: Any = source_of([address], cache=str(tmp_path), cache_max_age=limit)
    cache = found._cache
    cache.write([], {})
    cached(tmp_path, 5000.0)
    if used:
        assert cache.read().documents == ()
    else:
        with pytest.raises(ValueError, match="5000 s old, and the limit is 3600 s"):
            cache.read()


def test_a_cache_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no directory"):
        source_of([f"k8s://shop?kubeconfig={path}"], cache=str(tmp_path / "none"))


def test_the_service_of_this_process_is_known_by_the_name_that_rules_of_its_namespace_have(tmp_path: Path) -> None:
    source = source_of([f"k8s://?kubeconfig={kubeconfig(tmp_path, 'http://127.0.0.1:9', namespace='shop')}"])
    names = {"stable", "other:8080", "far.away"}
    assert local_names_in(source, names) == {*names, "stable.shop", "other.shop:8080"}
    assert local_names_in(StaticSource(""), names) == names
    other = source_of([f"k8s://?kubeconfig={kubeconfig(tmp_path, 'http://127.0.0.1:9', namespace='default')}"])
    assert local_names_in(other, names) == names


@in_loop
async def test_a_release_of_the_cluster_reads_no_file_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n", encoding="utf-8")
    release = (
        "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\nprefix: /shop/\n"
        f"gray: {{gray: {{weight: 0, always: {{file: {tmp_path}/secret}}}}}}\nsticky: [{{header: x-user}}]\n"
    )
    server = FakeApi()
    server.annotate("shop", "both", rule("stable") + rule("gray", weight=0) + release)
    async with cluster(server, tmp_path) as found:
        errors = [str(each) for each in found.store.diagnostics if "names no file" in str(each)]
        assert len(errors) == 1
        assert "hunter2" not in errors[0]


@in_loop
async def test_a_canary_that_the_selector_leaves_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = FakeApi(mappings_kind())
    spec = {"prefix": "/shop/", "service": "stable"}
    base = "s" * 250
    for name, labels in ((base, {"app": "x"}), ("other", {"app": "y"}), ("other-canary", {}), ("lone-canary", {})):
        body = {"metadata": {"labels": labels}, "spec": spec}
        server.put("mappings.getambassador.io", "shop", name, body)
    async with cluster(server, tmp_path, "shop?selector=app%3Dx") as found:
        await found.shows(**{base: None})
        server.map("shop", f"{base[:246]}-canary", {**spec, "weight": 20})
        await found.until(lambda: "left out by the selector" in caplog.text)
        (told,) = [each.getMessage() for each in caplog.records if "left out" in each.getMessage()]
        assert f"{base[:246]}-canary in shop" in told


def access() -> list[Any]:
    """The rules of the Role that the component for the proxy brings."""
    path = Path(__file__).parents[3] / "k8s" / "components" / "service-watch" / "access.yaml"
    (role,) = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each["kind"] == "Role"]
    # Slices are read for endpoints alone.
    return [each for each in role["rules"] if each["resources"] != ["endpointslices"]]


def lacking() -> Iterator[tuple[list[Any], str]]:
    """The rules without each one of them and without each verb, and what is said of it."""
    for one in access():
        others = [each for each in access() if each != one]
        for verbs in (["list", "watch"], ["list"], ["watch"]):
            left = [verb for verb in one["verbs"] if verb not in verbs]
            group, plural = one["apiGroups"][0], one["resources"][0]
            text = f'{{apiGroups: ["{group}"], resources: [{plural}], verbs: [{", ".join(verbs)}]}}'
            yield [*others, {**one, "verbs": left}], text


@in_loop
async def test_the_role_of_the_component_is_enough(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind(), token="nobody", users={"admin": "system:serviceaccount:shop:canary-proxy"})
    server.grant("shop", "system:serviceaccount:shop:canary-proxy", access())
    server.annotate("shop", "stable", rule("stable"))
    async with cluster(server, tmp_path) as found:
        await found.shows(stable=None)
        await found.until(lambda: all(each.synced for each in found.store.source_status()))
        # It asks once which rights it has, and else does nothing but read.
        await found.until(lambda: sum(verb == "create" for verb, _, _ in server.requests) == 6)
    reviews = [path for verb, path, _ in server.requests if verb not in ("discover", "list", "watch")]
    assert set(reviews) == {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}


@in_loop
async def test_each_rule_and_each_verb_of_the_role_is_needed(tmp_path: Path) -> None:
    server = FakeApi(mappings_kind(), token="nobody", users={"admin": "me"})
    missing = {f"n{number}": case for number, case in enumerate(lacking())}
    for namespace, (rules, _) in missing.items():
        server.grant(namespace, "me", rules)
    place = f"{','.join(missing)}?kinds=services,ingresses,mappings"

    def told(namespace: str, text: str) -> bool:
        lines = [str(each) for each in source.source_status() if each.namespace == namespace]
        return sum(text in line for line in lines) == 1 and len(lines) == 3

    async with cluster(server, tmp_path, place, wait=False) as found:
        source = found.store
        for namespace, (_, text) in missing.items():
            await found.until(lambda ns=namespace, text=text: told(ns, text))  # type: ignore[misc]


_MIDDLEWARES: dict[str, Any] = {"asgi": CanaryMiddleware, "wsgi": CanaryWSGIMiddleware}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@in_loop
async def test_a_middleware_takes_the_address(kind: str, tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    async with serving_app(server.app, lifespan="off") as port:
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{port}')}"
        app: Any = print
        made = _MIDDLEWARES[kind](app, rules=address, local="stable")
        await asyncio.to_thread(made.start)
        metrics = Metrics()
        metrics.follow(made)
        assert [mapping.name for mapping in made.store.table.mappings] == ["stable"]
        assert made.store.source_name == address
        text = metrics.render().decode()
        for name in ("synced", "last_contact_seconds", "objects", "from_cache"):
            assert re.search(rf'^canary_mw_source_{name}{{.*kind="services".*}} [\d.]+$', text, re.M)
        await asyncio.to_thread(made.store.stop)
        server.drop_watches(hard=True)
        for _ in range(5):
            await asyncio.sleep(0)


def test_a_middleware_runs_no_command_for_credentials(tmp_path: Path) -> None:
    asked = {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws"}
    path = kubeconfig(tmp_path, "https://k8s.example", exec=asked)
    with pytest.raises(ConfigError, match="a middleware starts no process"):
        CanaryMiddleware(print, rules=f"k8s://shop?kubeconfig={path}&exec=allow")  # type: ignore[arg-type]
    assert source_of([f"k8s://shop?kubeconfig={path}&exec=allow"], may_exec=True)


@in_loop
async def test_the_command_line_reads_what_a_cluster_has_now(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable", weight=-1))
    server.annotate("shop", "other", rule("other", prefix="/other/"))
    async with serving_app(server.app, lifespan="off") as port:
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{port}')}"
        outcome = await asyncio.to_thread(CliRunner().invoke, main, ["check", address])
        assert outcome.exit_code == 1
        assert "k8s://shop/Service/stable:7: error" in outcome.output
        given = {"CANARY_MW_RULES": address}
        outcome = await asyncio.to_thread(CliRunner(env=given).invoke, main, ["explain", "GET", "/shop/"])
        assert "stable" in outcome.output
        arguments = ["explain", "--local", "other", "GET", "/other/"]
        outcome = await asyncio.to_thread(CliRunner(env=given).invoke, main, arguments)
        assert "the wrapped app answers" in outcome.output
        assert "no Mapping leads to" not in outcome.output
        server.put("services", "shop", "stable", None)
        server.put("services", "shop", "other", None)
        outcome = await asyncio.to_thread(CliRunner(env=given).invoke, main, ["explain", "GET", "/shop/"])
        assert outcome.exit_code == 0, outcome.output
        server.drop_watches(hard=True)
        for _ in range(5):
            await asyncio.sleep(0)


def test_the_command_line_says_what_is_wrong_with_an_address() -> None:
    outcome = CliRunner().invoke(main, ["check", "k8s://Shop"])
    assert outcome.exit_code == 2
    assert "is no name of a namespace" in outcome.output


@in_loop
async def test_a_store_that_is_started_again_knows_what_it_knew(tmp_path: Path) -> None:
    server = FakeApi()
    server.annotate("shop", "stable", rule("stable"))
    async with cluster(server, tmp_path) as found:
        await asyncio.to_thread(found.store.stop)
        assert found.store.source_status() == []
        server.annotate("shop", "gray", rule("gray", weight=10))
        await asyncio.to_thread(found.store.start)
        await found.shows(stable=None, gray=10)
