"""The standalone proxy without its fast path: turned off by its setting, and all its tests once more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from standalone import Noting, Wire, talk
from upstream import Upstream, forever

TESTS = Path(__file__).parent.parent
# Those that ask what comes out, not which way it took.
AGAIN = (
    "blackbox",
    "unit/server/test_app.py",
    "unit/server/test_half_closed.py",
    "unit/server/test_protocol.py",
    "unit/middleware/test_fallback.py",
)


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_variable_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("{apiVersion: getambassador.io/v2, kind: Mapping, name: a, prefix: /, service: shop}")
    monkeypatch.setenv("CANARY_MW_FAST_PATH", value)

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        assert [(await client.get()).status for _ in range(3)] == [200] * 3
        assert app.came == (["whole"] * 3 if value == "0" else ["decided"])
        assert (app.fast_path is not None) == (value == "1")

    talk(rules, forever, exchange)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_what_is_tested_of_the_proxy_holds_without_it() -> None:
    """Without coverage, which this process may measure."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *AGAIN]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    done = subprocess.run(
        command,
        cwd=TESTS,
        env={**environ, "CANARY_MW_FAST_PATH": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=270,
    )
    assert done.returncode == 0, done.stdout[-4000:]
