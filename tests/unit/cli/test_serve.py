"""Errors in options name the option, and errors in variables the variable."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from canary_mw.admin.server import listen, reserve
from canary_mw.cli import serve
from canary_mw.cli.main import main
from canary_mw.cli.serve import shared_folder
from canary_mw.server.settings import Settings


def refused(*arguments: str, **environ: str) -> str:
    """The error of `canary-mw serve`."""
    outcome = CliRunner().invoke(main, ["serve", "--rules", "rules.yaml", *arguments], env=environ)
    assert outcome.exit_code == 2
    return outcome.stderr.partition("Error: ")[2]


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--port", "99999", "--port is 99999, not in 0..65535"),
        ("--admin-port", "-1", "--admin-port is -1, not in 0..65535"),
        ("--dns-interval", "0", "--dns-interval is 0, not in 1..86400"),
        ("--upstream", "shop", "--upstream: upstream 'shop' is not NAME=URL"),
        ("--upstream", "shop=ftp://a", "--upstream: upstream shop: 'ftp://a' is not a URL of a host"),
        ("--forwarded-allow-ips", "moon", "--forwarded-allow-ips: trusted peer 'moon' is not an address"),
        ("--trusted-headers", "a b", "--trusted-headers: "),
        ("--hop-id", "a b", "--hop-id: hop id 'a b' cannot stand in a header"),
    ],
)
def test_a_value_that_cannot_work_is_named_as_it_was_given(option: str, text: str, message: str) -> None:
    assert refused(option, text).startswith(message)
    name = "ID" if option == "--hop-id" else option[2:].replace("-", "_").upper()
    of_variable = refused(**{f"CANARY_MW_{name}": text})
    assert of_variable.startswith(message.replace(option, f"CANARY_MW_{name}"))


def test_two_settings_are_named_by_their_own_names(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    text = refused("--ssl-certfile", str(certificate), "--ssl-ca-certs", "ca.pem", CANARY_MW_SSL_CERT_REQS="none")
    assert "set both --ssl-ca-certs and CANARY_MW_SSL_CERT_REQS" in text


def test_an_option_takes_the_place_of_a_variable_that_cannot_work() -> None:
    assert refused("--port", "8080", CANARY_MW_PORT="tcp://10.0.0.1:80", CANARY_MW_WORKERS="0").startswith(
        "CANARY_MW_WORKERS is 0"
    )


def test_a_folder_for_the_workers_is_made_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_MW_RUN_DIR", "")
    with shared_folder(Settings()):
        path = Path(os.environ["CANARY_MW_RUN_DIR"])
        assert path.is_dir()
        path.joinpath("file").write_text("")
    assert not path.exists()


def test_a_folder_that_is_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CANARY_MW_RUN_DIR", raising=False)
    with shared_folder(Settings(run_dir=str(tmp_path))):
        assert "CANARY_MW_RUN_DIR" not in os.environ
    assert tmp_path.exists()


def test_the_admin_port_is_8877_unless_it_is_given_or_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CANARY_MW_ADMIN_PORT", raising=False)
    # This may be the port of another test.
    with reserve("127.0.0.1", 0) as socket:
        monkeypatch.setattr(serve, "ADMIN_PORT", socket.getsockname()[1])
    not_given: dict[str, int | None] = {"admin_port": None}
    with serve.with_admin_port(Settings(), not_given) as first:
        assert first.admin_port == serve.ADMIN_PORT
        assert capsys.readouterr().err == ""
        with serve.with_admin_port(Settings(), not_given) as second:
            assert second.admin_port not in (0, first.admin_port)
            assert f"is taken: the admin port is {second.admin_port}" in capsys.readouterr().err
        with listen("127.0.0.1", first.admin_port, shared=True) as worker:
            worker.listen()
    with serve.with_admin_port(Settings(admin_port=0), {"admin_port": 0}) as none:
        assert none.admin_port == 0
    monkeypatch.setenv("CANARY_MW_ADMIN_PORT", "0")
    with serve.with_admin_port(Settings(), not_given) as none:
        assert none.admin_port == 0


def test_the_port_of_ambassador_is_the_default() -> None:
    assert "[default: 8877]" in " ".join(CliRunner().invoke(main, ["serve", "--help"]).stdout.split())


def test_a_port_that_another_program_listens_on_is_not_taken() -> None:
    with listen("127.0.0.1", 0, shared=True) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with reserve("127.0.0.1", port) as other:
            assert other.getsockname()[1] not in (0, port)
    with reserve("127.0.0.1", port) as same:
        assert same.getsockname()[1] == port
