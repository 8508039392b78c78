import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import uvicorn

from canary_mw.exceptions import ConfigError
from canary_mw.server.uvicorn_internals import (
    TRIED_BELOW,
    TRIED_FROM,
    HttpToolsProtocol,
    RequestResponseCycle,
    check_version,
    missing_names,
)

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("version", ["0.53.0", "0.54.0", "0.54.7", "0.53.0rc1"])
def test_versions_in_the_tried_range_are_used_without_a_word(version: str) -> None:
    assert check_version(version, []) is None


@pytest.mark.parametrize("version", ["0.52.9", "0.55.0", "1.0", "2"])
def test_another_version_is_used_with_a_warning_that_names_the_extra(version: str) -> None:
    warning = check_version(version, [])
    assert warning is not None
    assert version in warning
    assert "canary-mw[serve]" in warning


def test_a_version_without_a_name_is_refused_with_the_command_that_helps() -> None:
    class Other:
        """A protocol of a uvicorn that has renamed everything."""

    missing = missing_names(Other, RequestResponseCycle)
    with pytest.raises(ConfigError, match=r"uvicorn 9\.9 does not fit .*Other\._should_upgrade") as caught:
        check_version("9.9", missing)
    assert "pip install" in str(caught.value)


def test_a_name_of_the_websocket_protocol_that_is_gone_is_missed() -> None:
    assert missing_names(HttpToolsProtocol, RequestResponseCycle, object)[:2] == [
        "object.connection_lost",
        "object.data_received",
    ]


def test_an_argument_that_is_gone_is_missed() -> None:
    class Cycle(RequestResponseCycle):
        def __init__(self, scope: object) -> None: ...

    assert "Cycle(keep_alive=)" in missing_names(HttpToolsProtocol, Cycle)
    assert missing_names(HttpToolsProtocol, RequestResponseCycle) == []


FLOW_CONTROL = "uvicorn.protocols.http.flow_control"
MAIN = "from canary_mw.cli.main import main; main()"


def run_without(module: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.modules[{module!r}] = None; {program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_module_that_is_gone_is_refused_at_import() -> None:
    result = run_without(FLOW_CONTROL, "import canary_mw.protocol")
    assert f"ConfigError: uvicorn {uvicorn.__version__} does not fit the guarded protocol" in result.stderr


@pytest.mark.parametrize("arguments", [("serve", "--rules", "rules"), ("demo", "--once")], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("module", "text"),
    [
        (FLOW_CONTROL, "does not fit the guarded protocol"),
        ("uvicorn", "uvicorn is not installed"),
        ("httptools", "httptools is not installed"),
    ],
)
def test_a_command_that_serves_names_what_is_missing_and_what_to_install(
    arguments: tuple[str, ...], module: str, text: str
) -> None:
    result = run_without(module, MAIN, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert text in result.stderr
    assert "pip install 'canary-mw[serve]'" in result.stderr


def test_the_tried_range_is_that_of_the_extra() -> None:
    (wanted,) = PYPROJECT["project"]["optional-dependencies"]["serve"]
    low, high = (".".join(map(str, version)) for version in (TRIED_FROM, TRIED_BELOW))
    assert wanted == f"uvicorn[standard]>={low},<{high}"
