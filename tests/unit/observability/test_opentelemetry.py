"""What spans do not hold, and what happens where OpenTelemetry is not installed."""

import subprocess
import sys

import pytest

from canary_mw.exceptions import ConfigError
from canary_mw.observability.opentelemetry import OpenTelemetry, method_name, redacted, tracer_of
from canary_mw.observability.opentelemetry_sdk import start_sdk


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (b"/a", "/a"),
        (b"/a?", "/a?"),
        (b"/a?b", "/a?b"),
        (b"/a?b=c&d=e=f&g", "/a?b=REDACTED&d=REDACTED&g"),
        (b"/a?b=?x=1", "/a?b=REDACTED"),
        (b"/\xff?a=\xff", "/\xff?a=REDACTED"),
    ],
)
def test_a_url_is_written_without_the_values_of_its_query(target: bytes, text: str) -> None:
    assert redacted(target) == text


def test_only_known_methods_name_spans() -> None:
    assert (method_name("GET"), method_name("get"), method_name("BREW")) == ("GET", "HTTP", "HTTP")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for ask in (OpenTelemetry, start_sdk, lambda: tracer_of([], asked=True)):
        with pytest.raises(ConfigError, match=r"pip install 'canary-mw\[otel\]'"):
            ask()
    assert tracer_of([], asked=False) is None


@pytest.mark.slow
def test_nothing_of_opentelemetry_is_imported_where_nobody_asks_for_it() -> None:
    script = (
        "import sys, canary_mw\n"
        "from canary_mw.server.app import Proxy\n"
        "from canary_mw.server.settings import Settings\n"
        "Proxy(Settings())\n"
        "canary_mw.CanaryMiddleware(print, rules='.'), canary_mw.CanaryWSGIMiddleware(print, rules='.')\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
