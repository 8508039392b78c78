"""Who a process is for an API server: service accounts, kubeconfigs, commands."""

import base64
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi
from servers import serving_app

from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.api import Api
from canary_mw.kubernetes.credentials import Connection, in_cluster, tls_context
from canary_mw.kubernetes.kubeconfig import from_kubeconfig

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
PATH = "/api/v1/namespaces/shop/services"


def service_account(directory: Path) -> str:
    for name, text in (("token", "first\n"), ("namespace", "shop"), ("ca.crt", "PEM")):
        (directory / name).write_text(text, encoding="utf-8")
    return str(directory)


def test_a_pod_has_its_server_in_the_environment_and_its_token_in_a_file(tmp_path: Path) -> None:
    found = in_cluster(IN_POD, service_account(tmp_path))
    assert (found.server, found.namespace, found.token(), found.ca()) == (
        "https://10.0.0.1:6443",
        "shop",
        "first",
        "PEM",
    )
    # It is another one about each hour.
    (tmp_path / "token").write_text("second\n", encoding="utf-8")
    assert found.token() == "second"


def test_an_address_of_version_6_stands_in_brackets(tmp_path: Path) -> None:
    found = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account(tmp_path))
    assert found.server == "https://[fd00::1]:443"


@pytest.mark.parametrize(
    ("environ", "text"),
    [({}, "no pod of a cluster"), (IN_POD, "automountServiceAccountToken")],
    ids=["no pod", "no token"],
)
def test_what_is_missing_in_a_pod_is_named(environ: dict[str, str], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        in_cluster(environ, str(tmp_path))


def written(path: Path, **user: Any) -> Connection:
    return from_kubeconfig(str(kubeconfig(path, "https://k8s.example:6443", **user)))


def test_a_kubeconfig_has_a_server_a_namespace_and_a_token(tmp_path: Path) -> None:
    found = written(tmp_path, token="abc")
    assert (found.server, found.namespace, found.context, found.token()) == (
        "https://k8s.example:6443",
        "shop",
        "test",
        "abc",
    )


def test_paths_are_relative_to_the_kubeconfig_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("first\n", encoding="utf-8")
    found = written(tmp_path, tokenFile="own")
    assert found.token() == "first"
    (tmp_path / "own").write_text("second\n", encoding="utf-8")
    assert found.token() == "second"


def test_the_first_file_that_names_something_counts(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = kubeconfig(tmp_path / "one", "https://one.example", token="1")
    two = kubeconfig(tmp_path / "two", "https://two.example", token="2")
    found = from_kubeconfig(f"{one}:{two}")
    assert (found.server, found.token()) == ("https://one.example", "1")


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ({"username": "me", "password": "x"}, "`username` is not supported"),
        ({"auth-provider": {"name": "gcp"}}, "`auth-provider` is not supported"),
        ({"client-certificate-data": "AAAA"}, "belong together"),
        ({"client-certificate-data": "?", "client-key-data": "AAAA"}, "no base64"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}, "one of the versions"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x"}}, "exec=allow"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(user: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text):
        written(tmp_path, **user)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read"),
        ("a: [", "is no YAML"),
        ("[]", "is no map"),
        ("contexts: []", "no current-context"),
        ("current-context: x", "has no context 'x'"),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: c}}]", "has no cluster 'c'"),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
            "clusters: [{name: c, cluster: {server: 'ftp://x'}}]",
            "is no URL",
        ),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
            "clusters: [{name: c, cluster: {server: 'https://x', proxy-url: 'socks5://x'}}]",
            "proxy-url",
        ),
    ],
)
def test_a_kubeconfig_that_leads_nowhere_says_why(content: str | None, text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=text):
        from_kubeconfig(str(path))


COMMAND = """
import json, os, sys
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with open(sys.argv[1], "a+") as runs:
    runs.seek(0)
    count = len(runs.read())
    runs.write("x")
status = {"token": os.environ["WHO"] + str(count), "expirationTimestamp": sys.argv[2]}
print(json.dumps({"apiVersion": asked["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


def plugin(directory: Path, expires: str, code: str = COMMAND) -> Connection:
    (directory / "runs").touch()
    (directory / "command.py").write_text(code, encoding="utf-8")
    asked = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(directory / "command.py"), str(directory / "runs"), expires],
        "env": [{"name": "WHO", "value": "me"}],
    }
    return from_kubeconfig(str(kubeconfig(directory, "https://k8s.example", exec=asked)), may_exec=True)


def test_a_token_in_the_kubeconfig_is_read_again_when_it_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "https://api.example", token="old")
    connection = from_kubeconfig(str(path))
    kubeconfig(tmp_path, "https://api.example", token="new")
    assert connection.token() == "old"
    connection.renew()
    assert connection.token() == "new"
    # A file that is half written changes nothing.
    path.write_text('{"contexts": [', encoding="utf-8")
    connection.renew()
    assert connection.token() == "new"


def test_a_command_is_run_once_until_its_token_is_refused(tmp_path: Path) -> None:
    found = plugin(tmp_path, "2999-01-01T00:00:00Z")
    assert [found.token(), found.token(), found.certificate()] == ["me0", "me0", None]
    found.renew()
    assert found.token() == "me1"


def test_a_command_is_run_again_when_its_token_expires(tmp_path: Path) -> None:
    found = plugin(tmp_path, "2001-01-01T00:00:00Z")
    assert [found.token(), found.token()] == ["me0", "me1"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit('log in first')", "status 1: log in first"),
        ("print('no JSON')", "printed no ExecCredential"),
        ("print('{}')", "printed no ExecCredential"),
    ],
)
def test_a_command_that_fails_says_why(code: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=text):
        plugin(tmp_path, "", code).token()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("name", ["127.0.0.1", "kubernetes.default.svc"])
@in_loop
async def test_a_server_is_verified_and_gets_a_client_certificate(name: str, tmp_path: Path) -> None:
    ca = trustme.CA()
    own = ca.issue_cert("me@shop.example")
    async with serving_app(FakeApi().app, lifespan="off", **tls_files(ca, name, tmp_path)) as port:
        path = kubeconfig(
            tmp_path,
            f"https://127.0.0.1:{port}",
            **{
                "client-certificate-data": encoded(own.cert_chain_pems[0].bytes()),
                "client-key-data": encoded(own.private_key_pem.bytes()),
            },
        )
        config = json.loads(path.read_text(encoding="utf-8"))
        cluster = config["clusters"][0]["cluster"]
        cluster["certificate-authority-data"] = encoded(ca.cert_pem.bytes())
        if name != "127.0.0.1":
            cluster["tls-server-name"] = name
        path.write_text(json.dumps(config), encoding="utf-8")
        api = Api(from_kubeconfig(str(path)))
        assert (await api.get(PATH, {}, "application/json"))["items"] == []
        await api.reset()


def tls_files(ca: trustme.CA, name: str, directory: Path) -> dict[str, Any]:
    """The options of a server that asks for a certificate."""
    ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    return {
        "ssl_certfile": str(directory / "server.pem"),
        "ssl_ca_certs": str(directory / "ca.pem"),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    }


def test_a_server_is_verified_unless_the_kubeconfig_says_otherwise() -> None:
    assert tls_context(Connection(server="https://x", namespace="shop")).verify_mode == ssl.CERT_REQUIRED
    assert tls_context(Connection(server="https://x", namespace="shop", insecure=True)).verify_mode == ssl.CERT_NONE


@in_loop
async def test_a_proxy_of_the_environment_does_not_get_what_is_for_the_server() -> None:
    async with serving_app(FakeApi().app, lifespan="off") as port:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                patch.setenv(name, "http://127.0.0.1:9")
            api = Api(Connection(server=f"http://127.0.0.1:{port}", namespace="shop"))
            assert (await api.get(PATH, {}, "application/json"))["items"] == []
            await api.reset()
