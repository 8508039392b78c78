"""compose.yaml and Dockerfile: what can be shown without a container engine.

The services are started by the commands of the file, with its volumes as folders of the checkout and its names as
ports of this machine.
"""

import fnmatch
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from servers import free_port, process

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
KEYS = {
    "build",
    "image",
    "entrypoint",
    "command",
    "environment",
    "ports",
    "volumes",
    "read_only",
    "tmpfs",
    "depends_on",
}


def arguments_of(service: dict[str, Any], ports: dict[str, int]) -> list[str]:
    """The arguments of a service for this machine: folders and ports of its own replaced."""
    command = " ".join(service["command"])
    for volume in service["volumes"]:
        here, there, mode = volume.split(":")
        assert mode == "ro"
        command = command.replace(there, str(ROOT / here))
    for name, port in ports.items():
        command = command.replace(name, f"//127.0.0.1:{port}" if name.startswith("//") else str(port))
    return command.replace("0.0.0.0", "127.0.0.1").split()


def version_at(port: int, **headers: str) -> str:
    with urlopen(Request(f"http://127.0.0.1:{port}/svc/", headers=headers), timeout=10) as answer:
        return str(json.load(answer)["version"])


def test_the_services_of_the_compose_file_work_by_its_commands(tmp_path: Path) -> None:
    services = COMPOSE["services"]
    ports = {name: free_port() for name in ("stable", "gray", "8080", "8877")}
    with ExitStack() as running:
        for name in ("stable", "gray"):
            arguments = arguments_of(services[name], {"8000": ports[name]})
            environ = services[name]["environment"]
            log = tmp_path / f"{name}.log"
            running.enter_context(process(*arguments, log=log, wait_for=[ports[name]], module="uvicorn", **environ))
        inside = {f"//{name}:8000": ports[name] for name in ("stable", "gray")}
        arguments = arguments_of(services["proxy"], {**inside, "8080": ports["8080"], "8877": ports["8877"]})
        running.enter_context(process(*arguments, log=tmp_path / "proxy.log", wait_for=[ports["8080"], ports["8877"]]))
        assert version_at(ports["8080"], gray="true") == "gray"
        assert {version_at(ports["8080"]) for _ in range(100)} == {"stable", "gray"}
        with urlopen(f"http://127.0.0.1:{ports['8877']}/readyz", timeout=10) as answer:
            assert answer.status == 200


def test_the_compose_file_is_well_formed() -> None:
    services = COMPOSE["services"]
    assert services.keys() == {"proxy", "stable", "gray"}
    for service in services.values():
        assert service.keys() <= KEYS
        assert service["read_only"] is True
        assert all((ROOT / volume.split(":")[0]).is_dir() for volume in service["volumes"])
        # Published on this machine only.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    upstreams = re.findall(r"--upstream=[\w-]+=http://(\w+):8000", " ".join(services["proxy"]["command"]))
    assert all(services[name]["entrypoint"] == ["uvicorn"] for name in ("stable", "gray"))
    assert upstreams == services["proxy"]["depends_on"] == ["stable", "gray"]


@pytest.mark.parametrize(
    "line",
    [
        'ENTRYPOINT ["canary-mw"]',
        "USER 8888:8888",
        "STOPSIGNAL SIGTERM",
        'pip install --no-cache-dir --no-compile -c constraints.txt ".[all]"',
    ],
)
def test_the_image_runs_the_command_as_nobody_and_stops_by_sigterm(line: str) -> None:
    assert line in DOCKERFILE


def test_the_image_is_built_from_what_the_package_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    let_in = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    assert let_in >= {"canary_mw", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"}
    assert not any(fnmatch.fnmatch(name, pattern) for name in let_in for pattern in patterns[1:] if pattern[0] != "!")
