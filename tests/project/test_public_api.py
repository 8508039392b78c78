"""What users of the package may rely on: its names, its cheap import, and the example of its use in a test."""

import subprocess
import sys
from inspect import signature

import pytest

import canary_mw
import canary_mw.testing
from canary_mw import ConfigError, Metrics, RequestHead, RouteTable, decide

RULES = """
---
apiVersion: getambassador.io/v2
kind: Mapping
name: shop-stable
prefix: /shop/
service: shop-stable
---
apiVersion: getambassador.io/v2
kind: Mapping
name: shop-gray
prefix: /shop/
service: shop-gray
weight: 10
"""


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has imported nothing yet."""
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("name", ["propagate", "testing"])
def test_a_public_module_is_loaded_where_it_is_first_used(name: str) -> None:
    code = f"import sys, canary_mw; print('canary_mw.{name}' in sys.modules, canary_mw.{name}.__name__)"
    assert python(code).stdout.split() == ["False", f"canary_mw.{name}"]


def test_the_public_names_are_these() -> None:
    assert canary_mw.__all__ == [
        "AccessLog",
        "CanaryError",
        "CanaryMiddleware",
        "CanaryWSGIMiddleware",
        "ConfigError",
        "ConfigSource",
        "Decided",
        "Decision",
        "FileSource",
        "Finished",
        "Mapping",
        "MappingGroup",
        "Metrics",
        "Observer",
        "OpenTelemetry",
        "Person",
        "Reloaded",
        "RequestHead",
        "RouteTable",
        "RuleStore",
        "StaticSource",
        "UpstreamError",
        "__version__",
        "create_admin",
        "current",
        "decide",
        "explain",
        "predicate",
        "record",
        "user",
    ]


@pytest.mark.parametrize("name", canary_mw.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(canary_mw, name) is getattr(canary_mw, name)
    assert name in dir(canary_mw)
    assert getattr(getattr(canary_mw, name), "__name__", name) == name


def test_what_tests_use_is_loaded_where_first_used() -> None:
    names = ["Route", "all_stable", "assert_share", "gray_answered_by", "load_rules", "route"]
    assert canary_mw.testing.__all__ == names
    assert [name for name in names if name not in dir(canary_mw.testing)] == []
    assert [getattr(canary_mw.testing, name).__name__ for name in names] == names
    with pytest.raises(AttributeError, match=r"'canary_mw.testing' has no attribute 'Novelty'"):
        _ = canary_mw.testing.Novelty
    found = loaded("import canary_mw.testing")
    assert {each for each in found if each.startswith("canary_mw")} == {"canary_mw", "canary_mw.testing"}


def test_metrics_follow_a_middleware() -> None:
    assert [*signature(Metrics.follow).parameters] == ["self", "middleware"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'canary_mw' has no attribute 'Novelty'"):
        _ = canary_mw.Novelty


@pytest.mark.parametrize(("name", "library"), [("CanaryMiddleware", "httptools"), ("Metrics", "prometheus_client")])
def test_a_name_that_misses_a_library_says_what_to_install(name: str, library: str) -> None:
    load = f"import sys; sys.modules[{library!r}] = None\ntry:\n    from canary_mw import {name}"
    said = python(f"{load}\nexcept ImportError as exc:\n    print(exc, exc.name)").stdout
    assert said == (
        f"{name} of canary_mw needs {library}, which is not installed: pip install canary-mw brings it {library}\n"
    )


def test_the_import_alone_loads_neither_a_server_nor_a_client_nor_a_yaml_reader() -> None:
    trace = python("import canary_mw", "-X", "importtime").stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.splitlines()}
    assert "canary_mw" in loaded
    assert not loaded & {"httpx", "starlette", "uvicorn", "click", "pydantic", "yaml", "watchfiles", "asyncio"}


# What an app pays for only when it comes to need it.
LOADED_LATER = {
    *("httpx", "starlette", "uvicorn", "click", "prometheus_client", "jinja2"),
    *(
        "pydantic",
        "pydantic_core",
        "yaml",
        "websockets",
        "watchfiles",
        "gevent",
        "h11",
        "wsproto",
    ),
}


def loaded(code: str) -> set[str]:
    """The modules that an interpreter has when it has run code, with the packages that hold them."""
    names = python(f"{code}\nimport sys; print(*sys.modules)").stdout.split()
    return {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.parametrize(
    "names",
    ["CanaryMiddleware", "CanaryWSGIMiddleware", "RuleStore, FileSource, StaticSource", "RouteTable, decide, explain"],
)
def test_the_names_of_a_user_load_no_reader_no_server_and_no_client_of_others(names: str) -> None:
    found = loaded(f"from canary_mw import {names}")
    assert "canary_mw" in found
    assert sorted(found & LOADED_LATER) == []


def test_a_middleware_has_its_parser_before_workers_are_forked_and_before_the_first_request() -> None:
    found = loaded("from canary_mw import CanaryWSGIMiddleware\nCanaryWSGIMiddleware(print, rules='none.yaml')")
    assert {"canary_mw.config.parser", "pydantic", "yaml"} <= found
    assert not found & {"websockets", "httpx", "starlette", "uvicorn", "click", "prometheus_client"}


def test_the_commands_that_serve_nothing_load_no_server() -> None:
    trace = python("import canary_mw.cli.main", "-X", "importtime").stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.splitlines()}
    assert "click" in loaded
    assert not loaded & {"httpx", "starlette", "uvicorn", "prometheus_client"}


def test_a_test_of_rules_needs_no_file_no_server_and_no_randomness() -> None:
    table = RouteTable.from_yaml(RULES)
    gray, stable = (decide(table, RequestHead("GET", "/shop/"), roll=roll) for roll in (9.9, 10.0))
    assert gray is not None
    assert stable is not None
    assert gray.variant == "gray"
    assert stable.variant == "stable"


def test_rules_of_a_text_know_the_local_service() -> None:
    table = RouteTable.from_yaml(RULES, local=["shop-stable"], middleware=True)
    decision = decide(table, RequestHead("GET", "/shop/"), roll=50.0)
    assert decision is not None
    assert decision.local
    assert decide(table, RequestHead("GET", "/other"), roll=50.0) is None


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("weight: 10", "weight: heavy", 14, "weight must be a whole number"),
        ("weight: 10", "weight: 101", 14, "over 100"),
    ],
)
def test_the_first_error_of_a_text_is_raised_with_its_place(old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RouteTable.from_yaml(RULES.replace(old, new))
    error = caught.value
    assert (error.file, error.line, error.mapping) == ("rules", line, "shop-gray")
    assert str(error).count("shop-gray") <= 2


def test_warnings_of_a_text_are_no_error() -> None:
    table = RouteTable.from_yaml(RULES + "surprise: true\n")
    assert len(table.mappings) == 2


@pytest.mark.parametrize(("name", "public"), [("flask", "init_app"), ("django", "CanaryMiddleware")])
def test_a_framework_is_loaded_where_its_module_is_asked_for(name: str, public: str) -> None:
    code = f"import sys, canary_mw; assert {name!r} not in sys.modules; print(canary_mw.{name}.{public}.__name__)"
    assert python(code).stdout == f"{public}\n"
