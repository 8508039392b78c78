"""Each example is run as its text says, on free ports, and asked over the network."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from servers import free_port

from canary_mw.cli.main import main

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
GRAY = {"gray": "true"}


@contextmanager
def listening(*command: str, **environ: str) -> Iterator[str]:
    """A server in a process of its own; yields the URL that it says it listens on."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environ}
    ) as child:
        assert child.stdout is not None
        log: list[str] = []
        try:
            for line in child.stdout:
                log.append(line)
                if found := re.search(r"(?:running on|Listening at:) (http://\S+)", line):
                    yield found[1]
                    break
            else:
                raise AssertionError("".join(log))
        finally:
            child.terminate()
            child.communicate(timeout=30)


def app(name: str, **environ: str) -> Any:
    return by_uvicorn(f"{name}:app", **environ)


def by_uvicorn(name: str, **environ: str) -> Any:
    uvicorn = (sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "--no-access-log")
    return listening(*uvicorn, name, **environ)


def by_gunicorn(name: str, **environ: str) -> Any:
    gunicorn = (sys.executable, "-m", "gunicorn", "--chdir", str(EXAMPLES), "--bind", "127.0.0.1:0", "--threads", "16")
    return listening(*gunicorn, "--no-control-socket", name, **environ)


def fetch(url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    try:
        with urlopen(Request(url, headers=headers or {}), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_the_fastapi_app_sends_testers_and_one_request_in_ten_to_its_gray_version() -> None:
    with app("gray_app") as gray, app("fastapi_app", SHOP_GRAY_URL=gray) as shop:
        assert fetch(f"{shop}/shop/", GRAY) == (200, '{"version":"gray"}')
        # That none of 300 is gray, or none stable, happens once in 10^13 runs.
        answers = [json.loads(fetch(f"{shop}/shop/")[1]) for _ in range(300)]
    assert {each["version"] for each in answers} == {"stable", "gray"}
    assert {each["mapping"] for each in answers if each["version"] == "stable"} == {"shop-stable"}


def test_the_fastapi_app_answers_for_the_stable_version_itself() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with app("fastapi_app", SHOP_GRAY_URL=nobody) as shop:
        assert fetch(f"{shop}/about", GRAY) == (200, '{"version":"stable"}')
        assert fetch(f"{shop}/shop/", GRAY) == (503, "upstream shop-gray is not reachable\n")
        answers = {fetch(f"{shop}/shop/") for _ in range(30)}
    assert (200, '{"version":"stable","mapping":"shop-stable"}') in answers


def test_the_fastapi_app_reads_its_rules_from_where_it_is_told(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "fastapi_rules", tmp_path, dirs_exist_ok=True)
    rules = tmp_path / "shop.yaml"
    rules.write_text(rules.read_text().replace("weight: 10", "weight: 100"))
    with app("gray_app") as gray, app("fastapi_app", SHOP_GRAY_URL=gray, SHOP_RULES=str(tmp_path)) as shop:
        assert {fetch(f"{shop}/shop/") for _ in range(30)} == {(200, '{"version":"gray"}')}


@pytest.mark.slow
def test_the_guarded_app_knows_who_asks_by_the_auth_service_alone() -> None:
    with app("auth_service") as auth, app("guarded_app", AUTH_URL=auth) as shop:
        token = {"authorization": "Bearer alice-token", "x-user": "admin", "x-group": "admin"}
        assert fetch(f"{shop}/shop/", token) == (200, '{"user":"alice","group":"customer"}')
        assert fetch(f"{shop}/shop/", {"x-user": "admin"}) == (401, "a token is needed\n")
        assert fetch(f"{shop}/docs") == (401, "a token is needed\n")
        assert fetch(f"{shop}/healthz") == (200, '{"status":"ok"}')


@pytest.mark.slow
def test_three_services_in_one_lane_agree_about_each_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES / "full_link"))
    with (
        by_gunicorn("stock_django:application") as stock,
        by_gunicorn("orders_flask:app", STOCK=stock) as orders,
        app("entry_fastapi", ORDERS=orders) as entry,
    ):
        found = {fetch(f"{entry}/checkout", {"x-user-id": f"user-{number}"}) for number in range(60)}
        assert fetch(f"{orders}/orders")[1] == '{"orders":"","stock":"stable"}\n'
    answers = [{"entry": name, "orders": f"checkout={name}", "stock": name} for name in ("gray", "stable")]
    assert sorted((json.loads(text) for _, text in found), key=lambda each: each["entry"]) == answers


# The app, its server, its gray version.
WSGI_AND_DJANGO = [
    ("flask_app:app", by_gunicorn, "flask_gray_app:app"),
    ("django_app:wsgi", by_gunicorn, "django_gray_app:wsgi"),
    ("django_app:asgi", by_uvicorn, "django_gray_app:wsgi"),
]


@pytest.mark.parametrize(("name", "by", "twin"), WSGI_AND_DJANGO)
def test_flask_and_django_do_what_fastapi_does(name: str, by: Callable[..., Any], twin: str) -> None:
    with by_gunicorn(twin) as gray, by(name, SHOP_GRAY_URL=gray) as shop:
        status, text = fetch(f"{shop}/shop/", GRAY)
        assert (status, json.loads(text)) == (200, {"version": "gray"})
        # That none of 300 is gray, or none stable, happens once in 10^13 runs.
        answers = [json.loads(fetch(f"{shop}/shop/")[1]) for _ in range(300)]
        assert json.loads(fetch(f"{shop}/about", GRAY)[1]) == {"version": "stable"}
    assert {each["version"] for each in answers} == {"stable", "gray"}
    assert {each["mapping"] for each in answers if each["version"] == "stable"} == {"shop-stable"}


@pytest.mark.parametrize(("name", "by", "twin"), WSGI_AND_DJANGO)
def test_flask_and_django_read_their_rules_from_where_they_are_told(
    name: str, by: Callable[..., Any], twin: str, tmp_path: Path
) -> None:
    rules = EXAMPLES / f"{name.partition('_')[0]}_rules" / "shop.yaml"
    (tmp_path / "shop.yaml").write_text(rules.read_text().replace("weight: 10", "weight: 100"))
    nobody = f"http://127.0.0.1:{free_port()}"
    with by(name, SHOP_GRAY_URL=nobody, SHOP_RULES=str(tmp_path)) as shop:
        assert {fetch(f"{shop}/shop/") for _ in range(30)} == {(503, "upstream shop-gray is not reachable\n")}


# Servers of an app, and arguments of gunicorn.
PRO = [
    ("pro_fastapi:app", "uvicorn", ()),
    ("pro_flask:app", "gunicorn", ("--threads", "16")),
    ("pro_flask:app", "gunicorn", ("--worker-class", "sync")),
    ("pro_flask:app", "gunicorn", ("--worker-class", "gevent")),
    ("pro_django:wsgi", "gunicorn", ("--threads", "16")),
    ("pro_django:wsgi", "gunicorn", ("--worker-class", "gevent")),
    ("pro_django:asgi", "uvicorn", ()),
]


@pytest.fixture(scope="module")
def gray_shop() -> Iterator[str]:
    """The gray version of the shop, for several tests."""
    with app("gray_app") as gray:
        yield gray


@pytest.mark.slow
@pytest.mark.parametrize(("name", "server", "options"), PRO)
def test_users_with_the_plan_pro_get_the_gray_version(
    name: str, server: str, options: tuple[str, ...], gray_shop: str
) -> None:
    by = by_uvicorn(name, SHOP_GRAY_URL=gray_shop) if server == "uvicorn" else gunicorn(name, *options, gray=gray_shop)
    with by as shop:
        for _ in range(20):
            assert version(shop, "ida", {"x-plan": "free"}) == "gray"
            assert version(shop, "otto", {"x-plan": "pro", "x-canary-lane": "shop-pro=shop-gray"}) == "stable"
            assert version(shop, None, {"x-user": "ida", "plan": "pro"}) == "stable"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "server"), [("pro_flask:app", "gunicorn"), ("pro_django:asgi", "uvicorn")])
def test_users_with_the_plan_pro_get_stable_where_gray_is_not_there(name: str, server: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    by = by_uvicorn(name, SHOP_GRAY_URL=nobody) if server == "uvicorn" else gunicorn(name, gray=nobody)
    with by as shop:
        assert {version(shop, "ida", {}) for _ in range(5)} == {"stable"}


def gunicorn(name: str, *options: str, gray: str) -> Any:
    command = (sys.executable, "-m", "gunicorn", "--chdir", str(EXAMPLES), "--bind", "127.0.0.1:0", *options)
    return listening(*command, "--no-control-socket", name, SHOP_GRAY_URL=gray)


def version(shop: str, user: str | None, headers: dict[str, str]) -> Any:
    """The version of the shop that answers a user."""
    signed = headers if user is None else {**headers, "authorization": f"Bearer {user}-token"}
    status, text = fetch(f"{shop}/shop/", signed)
    assert status == 200
    return json.loads(text)["version"]


@contextmanager
def service(text: str) -> Iterator[str]:
    """An old-fashioned HTTP/1.0 server that gives one answer; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def path_with_command(tmp_path: Path) -> str:
    """A PATH where `canary-mw` is the one under test."""
    command = tmp_path / "canary-mw"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m canary_mw "$@"\n')
    command.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_the_standalone_example_routes_by_header_and_by_weight(path_with_command: str) -> None:
    with ExitStack() as stack:
        stable, gray = (stack.enter_context(service(text)) for text in ("stable", "gray"))
        environ = {"PATH": path_with_command, "PORT": "0", "STABLE_URL": stable, "GRAY_URL": gray}
        url = stack.enter_context(listening(str(EXAMPLES / "standalone" / "serve.sh"), **environ))
        assert {fetch(f"{url}/svc/", GRAY) for _ in range(20)} == {(200, "gray")}
        # That one of them is missing among 150 happens once in 10^14 runs.
        assert {fetch(f"{url}/svc/") for _ in range(150)} == {(200, "stable"), (200, "gray")}
        assert fetch(f"{url}/elsewhere")[0] == 404


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis of the system; yields its URL."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not there: the package redis-server has it")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert any("Ready to accept connections" in line for line in child.stdout)
            yield f"redis://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.communicate(timeout=30)


@pytest.mark.slow
def test_the_rate_limiter_counts_what_two_proxies_let_through_together(path_with_command: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        shop = stack.enter_context(service("shop"))
        environ = {"REDIS_URL": stack.enter_context(redis_server(tmp_path)), "LIMITER": f"127.0.0.1:{free_port()}"}
        limiter = stack.enter_context(listening(sys.executable, str(EXAMPLES / "rate_limit" / "limiter.py"), **environ))
        environ = {"PATH": path_with_command, "PORT": "0", "SHOP_URL": shop, "LIMITER_URL": limiter}
        serve = str(EXAMPLES / "rate_limit" / "serve.sh")
        proxies = [stack.enter_context(listening(serve, **environ)) for _ in range(2)]
        # A window may end in between: then five more are let through.
        answers = [fetch(f"{proxies[number % 2]}/shop/") for number in range(20)]
    assert set(answers) == {(200, "shop"), (429, "too many requests\n")}
    assert answers.count((200, "shop")) in (5, 10)
    assert answers[:5] == [(200, "shop")] * 5 or answers.count((200, "shop")) == 10


@pytest.mark.parametrize(
    "rules", ["fastapi_rules", "flask_rules", "django_rules", "standalone/rules", "rate_limit/rules"]
)
def test_the_rules_of_the_examples_are_clean(rules: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", str(EXAMPLES / rules)])
    assert caught.value.code == 0
    assert "clean" in capsys.readouterr().err
