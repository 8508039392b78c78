"""The README promises nothing that does not run: its code blocks are executed, against its own rules."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import metadata
from pathlib import Path

import pytest
from servers import fetch, free_port, hello, process, run, serving_app

from canary_mw.client.sync.sockets import PLAIN_SOCKETS
from canary_mw.config.variables import ENV_NAMES
from canary_mw.control.rollouts.settings import SINGLE
from canary_mw.middleware.settings import ENABLED
from canary_mw.propagate.hosts import VARIABLE as PROPAGATE_HOSTS
from canary_mw.server.settings import Settings, variable

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
WORDS_BEFORE_THE_REFERENCE = 800

BEFORE = {
    "flask": "",
    "django": "from django.conf import settings\nsettings.configure(ALLOWED_HOSTS=['*'], ROOT_URLCONF='__main__')\n"
    "urlpatterns = []\n",
}
AFTER = """
from werkzeug.test import Client

wrapped = globals().get("application") or app
client = Client(wrapped)
print(client.get("/other/").status_code, client.get("/shop/", headers={"gray": "true"}).status_code)
"""


def block(language: str, holding: str) -> str:
    """The one block of that language with that text in it."""
    (found,) = [text for kind, text in BLOCKS if kind == language and holding in text]
    return str(found)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the README's rules in rules.yaml, and `canary-mw` on the path."""
    (tmp_path / "rules.yaml").write_text(block("yaml", "GrayRelease"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)


def test_every_block_is_one_of_those_tested_here() -> None:
    known = [
        *("flowchart", "make demo", "pip install", "from fastapi", "from flask", "from django"),
        *("GrayRelease", "shop_testers"),
        *("--port 8001", "app:app --port 8000", "curl", "kubectl", " serve ", " check ", " explain ", "uvicorn --http"),
    ]
    assert [text for _, text in BLOCKS if sum(word in text for word in known) != 1] == []
    assert len(BLOCKS) == len(known)


def test_the_introduction_is_short() -> None:
    introduction, _ = README.split("\n# Reference\n")
    assert len(introduction.split()) <= WORDS_BEFORE_THE_REFERENCE


@pytest.mark.parametrize("command", block("shell", "make demo").splitlines())
def test_the_two_commands_are_targets_of_make(command: str) -> None:
    planned = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert planned.returncode == 0, planned.stderr
    assert ".venv/bin/" in planned.stdout


def test_what_is_installed_is_this_checkout() -> None:
    _, _, place, _ = block("shell", "pip install").split()
    project = tomllib.loads((ROOT / place / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == metadata("canary-mw")["Name"]


@contextmanager
def terminal(command: str) -> Iterator[None]:
    """A terminal in which a server runs; Ctrl-C at the end."""
    bash = ["bash", "-c", command]
    with subprocess.Popen(bash, stderr=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if "Uvicorn running" in line)
            yield
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.communicate(timeout=30)


@pytest.mark.slow
def test_the_first_example_works_as_pasted(shop: Path) -> None:
    ports = {"8000": str(free_port()), "8001": str(free_port())}

    def pasted(text: str) -> str:
        return re.sub(r"\b(8000|8001)\b", lambda found: ports[found[0]], text)

    def asked() -> list[str]:
        done = subprocess.run(
            ["bash", "-c", pasted(block("shell", "curl"))], capture_output=True, text=True, check=True
        )
        return re.findall(r'"(.*?)"', done.stdout)

    (shop / "app.py").write_text(pasted(block("python", "from fastapi")))
    gray, stable = (pasted(block("shell", text)) for text in ("--port 8001", "app:app --port 8000"))
    with terminal(gray), terminal(stable):
        first, *others = asked()
        assert first == "shop-gray"
        assert len(others) == 15
        assert set(others) <= {"shop-stable", "shop-gray"}
        # One user, with the cookie of the first answer.
        assert len({*others[10:]}) == 1


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_a_wsgi_app_wrapped_as_shown_does_the_same(framework: str, shop: Path) -> None:
    code = block("python", f"from {framework}")
    # Django has one set of settings in a process, so each has a process of its own.
    (shop / "wrapped.py").write_text(BEFORE[framework] + code + AFTER)
    assert shell(f"{sys.executable} wrapped.py").stdout == "404 503\n"


def test_figures_are_those_of_the_benchmarks() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    figures = re.findall(r"(\d\.\d\d) x its CPU under (\w+)| and (\d\.\d\d) x under (\w+)", README)
    measured = [(figure or other, server or second) for figure, server, other, second in figures]
    assert len(measured) == 2
    for figure, server in measured:
        assert f"CPU per request under {server} over uvicorn's |  | {figure} " in results


def test_uvicorn_takes_the_protocol_as_shown(shop: Path) -> None:
    (shop / "app.py").write_text("from servers import hello as app\n")
    _, *arguments = shlex.split(block("shell", "uvicorn --http"))
    port = free_port()
    places = {"PYTHONPATH": os.pathsep.join((str(shop), str(ROOT / "tests" / "support")))}
    uvicorn = [sys.executable, "-m", "uvicorn", *arguments, f"--port={port}"]
    with subprocess.Popen(uvicorn, env=os.environ | places, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            next(line for line in server.stderr if "Uvicorn running" in line)
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
                assert client.recv(64).startswith(b"HTTP/1.1 400 ")
        finally:
            server.terminate()
            server.communicate()


def test_the_file_for_the_config_map_is_that_of_the_rules(shop: Path) -> None:
    (named,) = re.findall(r"--from-file=(\S+)", block("shell", "kubectl"))
    assert (shop / named).is_file()


def test_the_proxy_runs_as_shown(shop: Path) -> None:
    _, *arguments = shlex.split(block("shell", " serve "))
    port, admin = free_port(), free_port()

    async def ask() -> tuple[bytes, int, int]:
        async with serving_app(hello) as gray:
            mine = {"8080": str(port), "8877": str(admin), "8001": str(gray)}
            local = [re.sub(r"\b(8080|8877|8001)\b", lambda found: mine[found[0]], each) for each in arguments]
            with process(*local, log=shop / "log", wait_for=[port, admin]):
                answer = await fetch(port, "/shop/", headers=[("gray", "true")])
                return answer.body, (await fetch(port, "/none")).status, (await fetch(admin, "/readyz")).status

    assert run(ask()) == (b"from the app", 404, 200)


@pytest.mark.usefixtures("shop")
def test_check_finds_the_rules_clean() -> None:
    checked = shell(block("shell", " check "))
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.usefixtures("shop")
def test_the_release_draws_one_user_in_five_and_explains_it() -> None:
    (name,) = re.findall(r"name: (shop-\S+)", block("yaml", "GrayRelease"))
    Path("users").write_text("".join(f"{number:022}\n" for number in range(1000)))
    assigned = shell(f"canary-mw assign rules.yaml {name} users").stdout.splitlines()[1:]
    assert 150 < sum(",shop_gray," in line for line in assigned) < 250
    user, variant, _ = assigned[0].split(",")
    explained = shell(f"canary-mw explain rules.yaml GET /shop/ -H 'cookie: cmw_id={user}'")
    assert explained.stdout.startswith(f"100 %  {variant}  ")


def test_plain_weights_and_headers_divide_as_shown(shop: Path) -> None:
    stable, _, _ = block("yaml", "GrayRelease").partition("---\n")
    (shop / "rules.yaml").write_text(f"{stable}---\n{block('yaml', 'shop_testers')}")
    assert shell("canary-mw check --strict rules.yaml").returncode == 0
    explained = shell("canary-mw explain rules.yaml GET /shop/").stdout
    assert re.findall(r"^(\d+) %  (\w+)", explained, re.M) == [("20", "gray"), ("80", "stable")]
    testers = shell(block("shell", " explain ")).stdout
    assert testers.startswith("100 %  gray  shop_testers  -> shop-gray")


@pytest.mark.usefixtures("shop")
def test_explain_tells_who_takes_the_request_and_why() -> None:
    explained = shell(block("shell", " explain "))
    assert explained.returncode == 0, explained.stderr
    assert explained.stdout.startswith("100 %  shop_gray  shop_gray  -> shop-gray")
    assert "choice: the header asks for shop_gray" in explained.stdout


def test_every_variable_of_the_reference_exists() -> None:
    mentioned = set(re.findall(r"CANARY_MW_\w+", README))
    assert mentioned - {ENABLED, ENV_NAMES, PLAIN_SOCKETS, SINGLE, PROPAGATE_HOSTS} <= {
        variable(each.name) for each in fields(Settings)
    }


def test_the_chinese_readme_has_the_same_blocks_up_to_the_reference() -> None:
    introduction, _ = README.split("\n# Reference\n")
    pattern = re.compile(r"^```\w+\n.*?^```$", re.M | re.S)
    assert pattern.findall(CHINESE) == pattern.findall(introduction)


@pytest.mark.parametrize("link", sorted({*re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", README + CHINESE)}))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
