"""What the middlewares say at their start and at reloads, and where it goes."""

import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from middlewares import Middleware, middleware
from servers import mapping, run
from standalone import Noting

from canary_mw.control.sources.static import StaticSource

RULES = mapping("stable", "/shop/", "shop-stable") + mapping("gray", "/shop/", "shop-gray", weight=20)


def said(caplog: pytest.LogCaptureFixture, name: str = "canary_mw.start") -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == name]


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "canary_mw")


def start(**options: Any) -> Middleware:
    """A middleware that has started and stopped."""
    served = middleware(**{"rules": StaticSource(RULES), **options})
    served.start()
    served._stop()
    return served


def test_a_start_says_what_is_in_force(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    start(local="shop-stable", upstreams={"shop-gray": ["http://127.0.0.1:1", "http://127.0.0.1:2"]})
    assert said(caplog) == [
        "2 Mappings from rules; local service shop-stable, 1 Mapping leads to it",
        "services: shop-stable in this process, shop-gray at http://127.0.0.1:1 and http://127.0.0.1:2",
    ]


def test_every_kind_of_place_is_named(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    names = ("app", "transport", "other", "10.0.0.1:9")
    rules = "".join(mapping(f"m{number}", f"/{number}/", name) for number, name in enumerate(names))
    given: dict[str, Any] = {"services": {"app": object()}, "transports": {"transport": object()}}
    start(rules=StaticSource(rules), **given)
    assert said(caplog)[1] == (
        "services: app as an app of this process, transport by its transport, other by the name other:80, "
        "10.0.0.1:9 by its own address"
    )


def test_what_has_no_effect_is_said(
    interface: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_MW_PROT", "1")
    monkeypatch.setenv("CANARY_MW_UPSTREAM", "shop-gray=http://127.0.0.1:1")
    start(local="shop-stable", upstreams={"shop-grey": "http://127.0.0.1:1"})
    text = "\n".join(said(caplog)[2:])
    assert re.search("no Mapping leads to shop-grey.*did you mean shop-gray", text)
    assert "CANARY_MW_UPSTREAM has no effect: the argument upstreams= is given" in text
    assert "CANARY_MW_PROT is no variable of canary-mw, and has no effect (did you mean CANARY_MW_PORT?)" in text


def test_missing_rules_say_what_happens_meanwhile(
    interface: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    start(rules=tmp_path / "nowhere")
    # Before the start, which may come with the first request only.
    assert said(caplog)[0] == (
        f"rules: {tmp_path / 'nowhere'} does not exist; until it does, every request goes to the app, as stable"
    )
    error = said(caplog, "canary_mw.store")[-1]
    assert error.startswith("no rules are in force, and every request goes to the app, as stable, until this is mended")
    assert "nowhere" in error


def test_threads_that_start_it_at_once_say_it_once(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    served = middleware(rules=StaticSource(RULES))
    threads = [threading.Thread(target=served.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served._stop()
    assert len(said(caplog)) == 2


def test_a_reload_says_what_has_changed_and_the_all_clear(
    interface: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    store = middleware(rules=rules).store
    for text in (RULES, RULES.replace("20", "50"), RULES.replace("20", "much"), RULES.replace("20", "30")):
        rules.write_text(text)
        store.reload()
    lines = said(caplog, "canary_mw.store")
    assert "rules 2: /shop/: shop-gray 20 % to 50 %, shop-stable 80 % to 50 %" in lines
    assert lines[-3:] == [
        "rules 3 are in force: 0 added, 0 removed, 1 changed",
        "rules 3: /shop/: shop-gray 50 % to 30 %, shop-stable 50 % to 70 %",
        "rules are clean again: rules 3 are in force",
    ]


def test_the_standalone_proxy_says_it_too(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    async def main() -> None:
        app = Noting(rules, 1, admin_port=0)
        await app.begin()
        await app.end()

    run(main())
    assert said(caplog)[0] == f"2 Mappings from {rules}; no local service is named"


SCRIPT = """
import logging, sys
from canary_mw import CanaryWSGIMiddleware
BEFORE
app = CanaryWSGIMiddleware(None, rules="rules.yaml")
app.start()
LATER
app.store.reload()
logging.getLogger("canary_mw.relay").warning("of the host's choice")
app.close()
"""


def output(tmp_path: Path, before: str = "", later: str = "") -> str:
    """What a process writes to stderr, whose rules are wrong."""
    (tmp_path / "rules.yaml").write_text(mapping("a", "/a/", "one", wieght=3))
    script = SCRIPT.replace("BEFORE", before).replace("LATER", later)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stderr


LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) canary_mw\.\w+\[\d+\]: .+")


def test_without_handlers_it_goes_to_stderr_with_time_level_and_pid(tmp_path: Path) -> None:
    lines = output(tmp_path).splitlines()
    ours = [line for line in lines if "of the host's choice" not in line]
    assert all(LINE.fullmatch(line) for line in ours), lines
    assert any(" INFO canary_mw.start[" in line for line in ours)
    assert any(" ERROR canary_mw.store[" in line for line in ours)


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("logging.basicConfig(format='host %(message)s', level='INFO')", "host 0 Mappings"),
        ("logging.basicConfig(format='host %(message)s')", "host no rules are in force"),
        ("logging.getLogger('canary_mw').setLevel('ERROR')", " ERROR canary_mw.store["),
        ("logging.getLogger().setLevel('ERROR')", " ERROR canary_mw.store["),
        ("logging.getLogger('canary_mw').addHandler(logging.NullHandler())", ""),
        ("logging.lastResort = None; logging.raiseExceptions = False", ""),
        ("logging.disable(logging.CRITICAL)", ""),
        ("logging.getLogger('canary_mw.start').addFilter(lambda record: False)", " ERROR canary_mw.store["),
    ],
)
def test_what_the_host_sets_counts(before: str, shown: str, tmp_path: Path) -> None:
    text = output(tmp_path, before)
    assert shown in text if shown else text == ""
    assert not re.search(r" INFO canary_mw\.start\[", text)


def test_a_handler_that_comes_later_gets_each_line_alone(tmp_path: Path) -> None:
    later = "logging.basicConfig(format='host %(message)s', level='INFO')\nopen('rules.yaml', 'w').write(GOOD)"
    text = output(tmp_path, f"GOOD = {mapping('a', '/a/', 'one')!r}", later)
    assert text.count("rules 1 are in force: 1 added") == 1
    assert "host rules 1 are in force: 1 added" in text


def test_no_logger_of_the_host_is_changed(tmp_path: Path) -> None:
    state = "[(each.handlers, each.level) for each in map(logging.getLogger, (None, 'canary_mw', 'canary_mw.store'))]"
    output(tmp_path, f"before = {state}", f"assert before == {state}")
