"""A project that uses the package passes `mypy --strict` against the installed wheel."""

import re
from pathlib import Path

import pytest
from installation import Installation

FILES = {
    "fastapi_app.py": """
from fastapi import FastAPI, Request

from canary_mw import CanaryMiddleware, Decision, FileSource, Mapping
from watching import Slow

app = FastAPI()
app.add_middleware(CanaryMiddleware, rules="/etc/canary", local="shop", observers=[Slow(0.5)])
other = CanaryMiddleware(app, rules=FileSource("/etc/canary"), upstreams={"shop-gray": "http://127.0.0.1:9001"})


@app.get("/shop/")
def shop(request: Request) -> dict[str, str]:
    decision: Decision | None = request.scope.get("canary_mw")
    if decision is None:
        return {}
    mapping: Mapping = decision.mapping
    return {"mapping": mapping.name, "variant": decision.variant}
""",
    "flask_app.py": """
from flask import Flask

from canary_mw import CanaryWSGIMiddleware
from watching import Slow

app = Flask(__name__)
wrapped = CanaryWSGIMiddleware(app.wsgi_app, rules="/etc/canary", observers=[Slow(1)])
app.wsgi_app = wrapped  # type: ignore[method-assign]
""",
    "watching.py": """
from canary_mw import Observer
from canary_mw.observability.events import Finished


class Slow(Observer):
    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.seen: list[str] = []

    def finished(self, record: Finished) -> None:
        if record.seconds > self.limit and record.mapping is not None:
            self.seen.append(record.mapping)
""",
    "deciding.py": """
from canary_mw import CanaryError, ConfigError, Decision, RequestHead, RouteTable, decide, explain


def choose(text: str, path: str, headers: dict[str, str]) -> str:
    try:
        table = RouteTable.from_yaml(text)
        found: Decision | None = decide(table, RequestHead("GET", path, headers), roll=19.9)
    except ConfigError as exc:
        return f"{exc.file}:{exc.line}: {exc.hint}"
    except CanaryError as exc:
        return str(exc)
    return found.mapping.name if found else repr(explain(table, RequestHead("GET", path)))
""",
    "test_shop.py": """
from fastapi_app import app
from flask_app import app as flask_app
from canary_mw.testing import Route, all_stable, assert_share, gray_answered_by, load_rules, route


def test_shop() -> None:
    rules = load_rules("rules.yaml", local="shop", middleware=True)
    found: Route = route(rules, "/shop/", headers={"gray": "true"}, user={"id": 42}, predicates={"beta": True})
    assert found.variant == "gray" and found.shares["gray"] > 99
    assert_share(rules, "pay", map(str, range(1000)), {"v2": 20}, tolerance=4)
    with all_stable(), gray_answered_by(app), gray_answered_by(flask_app), gray_answered_by(flask_app.wsgi_app):
        pass
""",
}
WRONG = """
from canary_mw import RouteTable, decide

decide(RouteTable.from_yaml(""), "GET /shop/", roll=1).variant
"""


def mypy(installed: Installation, folder: Path) -> str:
    """What it finds, run by the environment with the wheel, so that it looks there."""
    options = ("--strict", "--no-error-summary", "--cache-dir", "cache")
    return installed.run("python", "-m", "mypy", *options, ".", cwd=folder).stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_project_of_a_user_is_well_typed(installed: Installation, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.lstrip(), encoding="utf-8")
    assert mypy(installed, tmp_path) == ""
    # It is not because everything is taken for Any.
    (tmp_path / "wrong.py").write_text(WRONG.lstrip(), encoding="utf-8")
    assert re.findall(r"^wrong.py:3: .*\[([a-z-]+)\]$", mypy(installed, tmp_path), re.MULTILINE) == [
        "union-attr",
        "arg-type",
    ]
