"""`canary-mw status` and `healthcheck`: what they say of a real admin port, and their exit codes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from admin_client import GOOD, loaded
from admin_thread import served_in_thread
from click.testing import CliRunner, Result
from recorded_figures import NOW, figures, worker
from servers import free_port

from canary_mw.admin import create_admin
from canary_mw.cli.main import main
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.values import Figures
from canary_mw.observability.prometheus import Metrics


@contextmanager
def admin_port(store: RuleStore | None = None, **options: Any) -> Iterator[str]:
    app = create_admin(store or loaded(GOOD), Metrics(), **options)
    with served_in_thread(app) as port:
        yield f"http://127.0.0.1:{port}"


def canary(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ)


def test_a_server_that_is_ready_is_told_with_its_rules_and_workers() -> None:
    with admin_port(pod="shop-1") as url:
        result = canary("status", "--admin", url)
        assert result.exit_code == 0, result.output
        first, second, third = result.output.splitlines()
        assert first.startswith("ready: rules 1 are in force since ")
        assert first.endswith(", live on 1 of 1 worker")
        assert second.startswith("pod shop-1, canary-mw ")
        assert third == f"1 problem: {url}/ambassador/v0/diag/rules"
        assert canary("healthcheck", "--admin", url).exit_code == 0


def test_the_admin_port_may_be_named_by_a_variable() -> None:
    with admin_port() as url:
        assert canary("status", CANARY_MW_ADMIN=f"{url}/").exit_code == 0
        result = canary("healthcheck", CANARY_MW_ADMIN=url)
        assert (result.exit_code, result.output) == (0, "")


def test_a_server_without_rules_is_not_ready() -> None:
    with admin_port(RuleStore(StaticSource(GOOD))) as url:
        result = canary("status", "--admin", url)
        assert result.exit_code == 1
        assert result.output.startswith("not ready: no rules are in force")
        result = canary("healthcheck", "--admin", url)
        assert (result.exit_code, result.output) == (1, "")
        assert canary("status", "--admin", url, "--wait", "--timeout", "0").exit_code == 3


def test_a_server_that_does_not_answer_is_not_ready() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = canary("status", "--admin", url)
    assert result.exit_code == 1
    assert result.output.startswith(f"not ready: {url} cannot be reached: ")
    assert canary("healthcheck", "--admin", url).exit_code == 1
    assert canary("status", "--admin", url, "--wait", "--timeout", "0").exit_code == 3


def test_it_waits_until_all_workers_have_the_newest_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def read() -> Figures:
        nonlocal looks
        looks += 1
        late = worker(2, "old" if looks < 3 else "new")
        return figures(workers=(worker(1, "new", NOW), late))

    monkeypatch.setattr("canary_mw.admin.desk.FRESH", 0.0)
    monkeypatch.setattr("canary_mw.cli.status._PAUSE", 0.0)
    with admin_port(read_figures=read) as url:
        result = canary("status", "--admin", url, "--wait", "--timeout", "30")
        assert (result.exit_code, looks) == (0, 3)
        assert "live on 2 of 2 workers" in result.output


def test_a_worker_that_is_still_to_start_is_waited_for() -> None:
    told = [{"name": "workers", "value": "2", "origin": "option", "variable": "CANARY_MW_WORKERS"}]
    with admin_port(settings=told) as url:
        result = canary("status", "--admin", url, "--wait", "--timeout", "0")
        assert result.exit_code == 3
        assert "live on 1 of 2 workers" in result.output


def test_a_wait_in_vain_has_an_exit_code_of_its_own() -> None:
    with admin_port(read_figures=lambda: figures(workers=(worker(1, "a", NOW), worker(2, "b")))) as url:
        result = canary("status", "--admin", url, "--wait", "--timeout", "0")
        assert result.exit_code == 3
        assert "live on 1 of 2 workers" in result.output
        assert canary("status", "--admin", url).exit_code == 0


def test_as_json_it_is_the_frame_of_the_api() -> None:
    with admin_port(pod="shop-1") as url:
        shown = json.loads(canary("status", "--admin", url, "--json").output)
        assert (shown["ready"], shown["everywhere"], shown["admin"]) == (True, True, url)
        assert shown["scope"]["pod"] == "shop-1"
        assert shown["rules"]["generation"] == 1
    shown = json.loads(canary("status", "--admin", url, "--json").output)
    assert (shown["ready"], shown["rules"]) == (False, None)


@pytest.mark.parametrize("url", ["127.0.0.1:8877", "ftp://127.0.0.1", "http://", "http://a:b", "http://["])
def test_what_is_no_url_is_refused(url: str) -> None:
    for command in ("status", "healthcheck", "top"):
        result = canary(command, "--admin", url)
        assert result.exit_code == 2
        assert "http://127.0.0.1:8877" in result.output


def test_another_server_is_told_from_an_admin_port() -> None:
    async def other(scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[]"})

    with served_in_thread(other) as port:
        result = canary("status", "--admin", f"http://127.0.0.1:{port}")
        assert result.exit_code == 1
        assert "is no admin port of canary-mw" in result.output


def test_names_of_others_move_nothing_on_the_terminal(tmp_path: Path) -> None:
    with admin_port(pod="a\x1b[2Jb\u202ec") as url:
        output = canary("status", "--admin", url).output
        assert "pod aU+001B[2JbU+202Ec," in output
