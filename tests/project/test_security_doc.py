"""SECURITY.md names what exists: tests, settings, metrics, limits; and its examples run."""

import ast
import hashlib
import hmac
import inspect
import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from uvicorn.main import main as uvicorn_main

from canary_mw.cli.main import main
from canary_mw.cli.serve import read_settings
from canary_mw.config.variables import ENV_NAMES
from canary_mw.forwarding.trusted_headers import TrustedHeaders
from canary_mw.http import framing
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.trust import trusted_headers
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.prometheus import Metrics
from canary_mw.server import deadlines, protocol
from canary_mw.server.settings import Settings, variable

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
KEY = "7" * 64


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def block(language: str, holding: str = "") -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language and holding in text]
    return str(found)


def rows(heading: str) -> list[list[str]]:
    """The cells of the rows of the table whose first row begins so."""
    lines = TEXT[TEXT.index(f"| {heading} ") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("named", sorted(set(re.findall(r"tests/[\w/.:]+", TEXT))))
def test_every_test_that_is_named_exists(named: str) -> None:
    path, separator, name = named.partition("::")
    assert separator
    assert name in functions_of(ROOT / path)


def test_every_promise_names_a_test() -> None:
    promises = rows("promise")
    assert len(promises) > 20
    assert [promise for promise, shown in promises if "`tests/" not in shown] == []


def test_every_variable_exists() -> None:
    found = set(re.findall(r"CANARY_MW_\w+", TEXT))
    assert {"CANARY_MW_TRUSTED_HEADERS", "CANARY_MW_HEADER_KEY_FILE"} <= found
    assert found - {ENV_NAMES} <= {variable(each.name) for each in fields(Settings)}


def test_every_option_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT))
    ours = {option for name in ("serve", "sign") for each in main.commands[name].params for option in each.opts}
    uvicorns = {option for each in uvicorn_main.params for option in (*each.opts, *each.secondary_opts)}
    assert named - ours == {"--http", "--no-proxy-headers"}
    assert named - ours <= uvicorns


@pytest.mark.parametrize("middleware", [CanaryMiddleware, CanaryWSGIMiddleware])
def test_every_argument_exists(middleware: type) -> None:
    found = set(re.findall(r"`([a-z_]+)=", TEXT))
    assert found >= {"trusted", "trusted_headers", "header_key_file"}
    assert found <= set(inspect.signature(middleware).parameters)


def test_every_metric_exists() -> None:
    told = set(re.findall(r"^# TYPE (\w+)", Metrics().render().decode(), re.M))
    found = set(re.findall(r"canary_mw_[a-z_]+", TEXT))
    assert found
    assert found <= told


def test_the_limits_are_those_of_the_code() -> None:
    times = [deadlines.FIRST_BYTE_TIMEOUT, deadlines.HEAD_TIMEOUT, deadlines.BODY_TIMEOUT, deadlines.WRITE_TIMEOUT]
    times += [deadlines.HALF_CLOSED_TIMEOUT]
    sizes = [framing.MAX_HEAD, framing.MAX_FIELDS, protocol.MAX_PIPELINED]
    assert [int(value) for _, value, _ in rows("limit")] == times + sizes


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_network_policy_closes_the_ports_of_the_deployment() -> None:
    policy = yaml.safe_load(block("yaml"))
    assert (policy["kind"], policy["apiVersion"]) == ("NetworkPolicy", "networking.k8s.io/v1")
    deployment = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]
    assert policy["spec"]["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    named = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert named == {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


def settings_of(command: str) -> Settings:
    """What `canary-mw serve` would run with."""
    _, name, *arguments = shlex.split(command)
    return read_settings(main.commands[name].make_context(name, arguments).params)


def test_the_example_without_a_signature_is_read_as_meant() -> None:
    settings = settings_of(block("shell", "10.1.2.3"))
    assert (settings.trusted_headers, settings.forwarded_allow_ips) == (("gray", "x-user-group"), ("10.1.2.3",))


def test_the_example_with_a_signature_signs_what_is_believed(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    serve, sign = block("shell", "sign gray").replace("/etc/canary-keys", str(tmp_path)).splitlines()
    settings = settings_of(serve)
    known = trusted_headers(settings.trusted_headers, settings.header_key_file)
    assert known is not None
    result = CliRunner().invoke(main, shlex.split(sign)[1:])
    assert result.exit_code == 0, result.output
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in result.output.splitlines())]
    headers = list(RequestHead("GET", "/", pairs).headers)
    assert known.strip_untrusted(headers, False, 0) == headers
    shape = re.escape(block("", "gray: true")).replace("1800000000", r"\d+").replace("5ab3…", "[0-9a-f]{64}")
    assert re.fullmatch(shape, result.output)


def test_a_signature_is_made_as_described() -> None:
    assert "four lines joined by a line feed: `canary-mw-signature`, the name in lower case,\n`exp`" in TEXT
    known = TrustedHeaders.from_settings(["gray"], [KEY.encode()])
    assert known is not None
    code = hmac.new(KEY.encode(), b"canary-mw-signature\ngray\n1800000000\ntrue", hashlib.sha256).hexdigest()
    assert known.sign("Gray", "true", 1_800_000_000) == ("true", f"gray;exp=1800000000;sig={code}")
