"""The admin port: health, rules, metrics."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from servers import fetch, fetch_admin, free_port, mapping, run, serving_app
from upstream import forever, serving

from canary_mw.admin.app import create_admin
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.events import Finished
from canary_mw.observability.prometheus import Metrics
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings

RULES = mapping("stable", "/shop/", "shop-stable") + mapping("gray", "/shop/", "shop-gray", weight=20)


@contextmanager
def loaded(text: str) -> Iterator[RuleStore]:
    store = RuleStore(StaticSource(text))
    store.reload()
    yield store
    store.stop()


def test_it_is_alive_from_the_start_and_ready_with_the_first_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    store = RuleStore(FileSource(path))

    async def main() -> None:
        async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
            for target in ("/healthz", "/ambassador/v0/check_alive"):
                assert (await fetch(port, target)).status == 200
            for target in ("/readyz", "/ambassador/v0/check_ready"):
                assert b"not read yet" in (await fetch(port, target)).body
            store.reload()
            for target in ("/readyz", "/ambassador/v0/check_ready"):
                answer = await fetch(port, target)
                assert answer.status == 503
                assert str(path) in answer.body.decode()
            path.write_text(RULES)
            store.reload()
            for target in ("/readyz", "/ambassador/v0/check_ready"):
                assert (await fetch(port, target)).status == 200
            path.unlink()
            store.reload()
            assert (await fetch_admin(port, "/readyz")).status == 200

    run(main())


def test_it_is_not_ready_while_it_waits_for_the_states_of_releases(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    store = RuleStore(FileSource(tmp_path / "rules.yaml"))
    store.reload()
    waiting = ["the states of the releases were not read yet"]

    async def main() -> None:
        app = create_admin(store, Metrics(), waiting=lambda: waiting[0])
        async with serving_app(app, lifespan="off") as port:
            answer = await fetch(port, "/readyz")
            assert (answer.status, answer.body.decode()) == (503, f"not ready: {waiting[0]}\n")
            waiting[0] = ""
            assert (await fetch(port, "/readyz")).status == 200

    run(main())


def test_it_is_ready_beside_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(RULES)
    (tmp_path / "c.yaml").write_bytes(b"# r\xe8gles\n")
    store = RuleStore(FileSource(tmp_path))
    store.reload()

    async def main() -> None:
        async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
            assert (await fetch_admin(port, "/readyz")).status == 200
            shown = json.loads((await fetch_admin(port, "/rules")).body)
            assert shown["error"].startswith(f"{tmp_path}/a.yaml: is neither a file nor a directory; and 1 more")
            places = [each.partition(" unreadable-file ")[0] for each in shown["diagnostics"]]
            assert places == [f"{tmp_path}/a.yaml: error", f"{tmp_path}/c.yaml:1: error"]

    run(main())


def test_the_rules_in_force_are_shown_with_their_shares() -> None:
    async def main() -> None:
        with loaded(RULES + mapping("bad", "/bad/", "shop", weight="much")) as store:
            async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
                answer = await fetch_admin(port, "/rules")
        assert answer.header("content-type") == "application/json"
        shown = json.loads(answer.body)
        assert shown["generation"] == 1
        assert "bad" in shown["error"]
        assert len(shown["diagnostics"]) >= 1
        (group,) = shown["groups"]
        assert group["prefix"] == "/shop/"
        shares = {each["mapping"]: (each["variant"], each["percent"]) for each in group["members"]}
        assert shares == {"gray": ("gray", 20.0), "stable": ("stable", 80.0)}

    run(main())


def test_nothing_but_get_is_answered() -> None:
    async def main() -> None:
        with loaded(RULES) as store:
            async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
                assert (await fetch_admin(port, "/rules", "POST")).status == 405
                assert (await fetch_admin(port, "/healthz", "DELETE")).status == 405
                assert (await fetch_admin(port, "/healthz/")).status == 404

    run(main())


def test_requests_are_counted_by_mapping_service_variant_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, None):
        metrics.finished(
            Finished(method="GET", path="/", status=status, seconds=0.5, mapping="m", service="s", variant="gray")
        )
    counts = samples(metrics.render().decode())
    assert counts["canary_mw_requests_total", "2xx"] == 2
    assert counts["canary_mw_requests_total", "none"] == 1
    assert counts["canary_mw_request_duration_seconds_sum", ""] == 1.5
    assert counts["canary_mw_rules_generation", ""] == 0


def test_metrics_have_the_format_that_is_asked_for() -> None:
    async def main() -> None:
        with loaded(RULES) as store:
            async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
                plain = await fetch(port, "/metrics")
                accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")]
                other = await fetch(port, "/metrics", headers=accept)
                assert dict(plain.headers)[b"content-type"].startswith(b"text/plain; version=0.0.4")
                assert dict(other.headers)[b"content-type"].startswith(b"application/openmetrics-text; version=1.0.0")
                assert other.body.endswith(b"# EOF\n")

    run(main())


def test_the_proxy_serves_it_on_a_port_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    admin_port = free_port()

    async def main() -> None:
        async with serving(forever) as upstream:
            settings = Settings(
                rules=(str(path),), upstream=(f"*=http://127.0.0.1:{upstream.origin.port}",), admin_port=admin_port
            )
            async with serving_app(Proxy(settings), lifespan="on") as port:
                assert (await fetch(port, "/shop/")).status == 200
                assert (await fetch_admin(port, "/readyz")).status == 404
                assert (await fetch_admin(admin_port, "/readyz")).status == 200
                counts = samples((await fetch_admin(admin_port, "/metrics")).body.decode())
                assert counts["canary_mw_requests_total", "2xx"] == 1
                assert counts["canary_mw_requests_total", "4xx"] == 1
                assert counts["canary_mw_rules_generation", ""] == 1
                assert counts["canary_mw_rules_clean", ""] == 1

    run(main())


def test_two_processes_of_a_machine_may_share_the_port(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    settings = Settings(rules=(str(path),), admin_port=free_port(), admin_host="127.0.0.1")

    async def main() -> None:
        async with (
            serving_app(Proxy(settings), lifespan="on"),
            serving_app(Proxy(settings), lifespan="on"),
        ):
            for _ in range(4):
                assert (await fetch(settings.admin_port, "/healthz")).status == 200

    run(main())


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("status_class", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
