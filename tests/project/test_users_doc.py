"""docs/users.md: its release, its code and its command do what the page says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from direct import ask_wsgi, environ_of
from installation import ROOT
from rules import document

from canary_mw.cli.main import main
from canary_mw.middleware.audience import registry

PAGE = (ROOT / "docs" / "users.md").read_text(encoding="utf-8")
(RELEASE,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
MAPPINGS = (
    document("shop-stable", prefix="/shop/", service="shop")
    + document("shop-gray", prefix="/shop/", weight=0)
    + "---\n"
)


@pytest.fixture(autouse=True)
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """rules.yaml in the working directory; what the page registers ends with the test."""
    (tmp_path / "rules.yaml").write_text(MAPPINGS + RELEASE)
    monkeypatch.chdir(tmp_path)
    before = dict(registry.predicates)
    yield
    registry.users.clear()
    registry.predicates.clear()
    registry.predicates.update(before)


def test_the_command_says_what_a_user_gets() -> None:
    (command,) = re.findall(r"`canary-mw (explain rules.yaml [^…`]*)`", PAGE)
    outcome = CliRunner().invoke(main, command.split())
    assert outcome.exit_code == 0, outcome.output
    assert "release shop-2026-11: stable (sticky)" in outcome.output
    nobody = CliRunner().invoke(main, command.replace("plan=pro", "plan=free").split())
    assert "release shop-2026-11: stable (audience)" in nobody.output


def executed(holding: str) -> dict[str, Any]:
    (code,) = [each for each in CODE if holding in each]
    names: dict[str, Any] = {"__name__": "users_doc"}
    exec(compile(code, "users.md", "exec"), names)
    return names


def test_the_code_registers_a_user_and_a_predicate() -> None:
    executed("def user(scope)")
    executed("def beta_testers")
    assert registry.users[0].function({"state": {"account": 42}}) == 42
    assert registry.predicates["beta_testers"].timeout == 0.05


def test_the_flask_app_is_routed() -> None:
    names = executed("canary_mw.flask.init_app")
    app = names["app"]
    app.add_url_rule("/shop/", view_func=lambda: "shop")
    assert ask_wsgi(app, environ_of("/shop/")).header("x-canary-variant") == "stable"
    app.extensions["canary_mw"].close()


def test_the_settings_of_django_name_the_middleware() -> None:
    names = executed("MIDDLEWARE")
    assert names["MIDDLEWARE"][-1] == "canary_mw.django.CanaryMiddleware"
    assert names["MIDDLEWARE"].index("django.contrib.auth.middleware.AuthenticationMiddleware") < 2
    assert names["CANARY_MW"] == {"rules": "rules.yaml", "local": "shop"}
