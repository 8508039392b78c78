"""docs/testing.md: its files are written and its tests are run, as a user runs them."""

import re
import subprocess
import sys
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
from installation import ROOT, environ

import canary_mw.testing
from canary_mw.testing import Route, route

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
# Blocks that are introduced by the name of a file, and the others in their order.
NAMED = dict(re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
BLOCKS = re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.M | re.S)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def run(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--disable-warnings", *options]
    variables = environ(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTHONPATH=f"{ROOT}:{folder}")
    plugin = ("-p", "canary_mw.pytest_plugin")
    outcome = subprocess.run(
        [*command, *plugin], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    return outcome.stdout + outcome.stderr


def test_the_page_has_these_blocks() -> None:
    files = {"shop.py", "rules.yaml", "conftest.py", "test_shop.py", "pytest.ini", "test_gray.py", "test_rules.py"}
    assert set(NAMED) == files
    # The one of Django has no name.
    assert len(BLOCKS) == len(NAMED) + 1
    assert "mysite.wsgi" in BLOCKS[-1]


@pytest.mark.slow
def test_the_tests_of_the_page_pass_with_their_fixtures(tmp_path: Path) -> None:
    write(tmp_path, {name: text for name, text in NAMED.items() if name not in ("conftest.py", "pytest.ini")})
    told = run(tmp_path)
    assert "pay.json is missing" in told
    assert "1 failed, 7 passed" in told, told
    assert "8 passed" in run(tmp_path, "--canary-update")
    # The suite is stable, and its tests have their gray version all the same.
    write(tmp_path, {"pytest.ini": NAMED["pytest.ini"]})
    told = run(tmp_path)
    assert "8 passed" in told, told


@pytest.mark.slow
def test_the_app_alone_passes_where_conftest_turns_the_middleware_off(tmp_path: Path) -> None:
    test = NAMED["test_shop.py"].replace('@pytest.mark.usefixtures("all_stable")\n', "")
    write(tmp_path, {"shop.py": NAMED["shop.py"], "conftest.py": NAMED["conftest.py"], "test_shop.py": test})
    told = run(tmp_path)
    assert "1 passed" in told, told


WSGI = """
import json
from canary_mw import CanaryWSGIMiddleware

def shop(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps({"version": "stable"}).encode()]

application = CanaryWSGIMiddleware(shop, rules="rules.yaml", local="shop-stable")
"""


@pytest.mark.slow
def test_the_block_of_django_passes_with_all_stable(tmp_path: Path) -> None:
    test = "def test_application(all_stable):\n" + "".join(f"    {line}\n" for line in BLOCKS[-1].splitlines())
    write(tmp_path, {"mysite/wsgi.py": WSGI, "test_site.py": test, "rules.yaml": NAMED["rules.yaml"]})
    told = run(tmp_path)
    assert "1 passed" in told, told


def test_every_name_of_the_module_and_every_attribute_of_a_route_is_there() -> None:
    assert [name for name in canary_mw.testing.__all__ if name != "Route" and f"`{name}" not in PAGE] == []
    table = PAGE.partition("| attribute | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"(?m)^\| `(\w+)`", table) == [each.name for each in fields(Route)]
    assert [
        name for name in signature(route).parameters if name not in ("rules", "path") and f"`{name}`" not in PAGE
    ] == []
