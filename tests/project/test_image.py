"""The image: built from the Dockerfile where that can be done, and started as a restricted pod; else its steps."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from images import Container, Images, lacking
from installation import ROOT, contents, environ
from manifests import pod_of
from servers import free_port

from canary_mw import __version__

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
NAME = "localhost/canary-mw:test"
LACKING = lacking()
# The limits of a build and of the download of a Debian.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
built = pytest.mark.skipif(bool(LACKING), reason=LACKING)


def let_in() -> list[str]:
    """What .dockerignore lets into a build."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a build sees, without what .dockerignore keeps out."""
    folder = tmp_path_factory.mktemp("context")
    for name in let_in():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_a_build_sees_all_that_the_package_is_built_from(context: Path, wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(context)]
    outcome = subprocess.run(command, env=environ(), capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (ours,) = tmp_path.glob("*.whl")
    assert contents(ours) == contents(wheel)


@pytest.mark.skipif(not LACKING, reason="the image is built here, by the same steps")
def test_the_steps_of_the_image_install_the_command(context: Path, tmp_path: Path) -> None:
    (step,) = re.findall(r"^RUN (python3 -m venv (?:.*\\\n)*.*)$", DOCKERFILE, re.M)
    script = step.replace("/opt/venv", str(tmp_path / "venv"))
    command = ["sh", "-ec", script]
    outcome = subprocess.run(command, cwd=context, env=environ(), capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    told = subprocess.run([tmp_path / "venv/bin/canary-mw", "-V"], capture_output=True, text=True, check=True)
    assert __version__ in told.stdout
    assert not list((tmp_path / "venv").glob("lib/python*/site-packages/pip"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    found = Images(tmp_path_factory.mktemp("images"))
    found.build_base()
    found.build(ROOT, NAME, *found.authorities(), "--build-arg", f"VERSION={__version__}")
    yield found
    found.remove()


@pytest.fixture(scope="module")
def container(images: Images) -> Container:
    return images.unpack(NAME)


@built
def test_the_image_says_what_it_is_and_how_it_runs(images: Images) -> None:
    config = images.config(NAME)
    assert (config["User"], config["StopSignal"], config["Entrypoint"]) == ("8888:8888", "SIGTERM", ["canary-mw"])
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert {"title": "canary-mw", "version": __version__, "licenses": "Apache-2.0"}.items() <= labels.items()
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8877/tcp"}


@built
def test_nothing_but_the_temporary_folder_can_be_written(container: Container) -> None:
    script = """
import json, os, pathlib, sys
def writes(folder):
    try:
        pathlib.Path(folder, "new").write_text("")
    except OSError as exc:
        return os.strerror(exc.errno)
    return "written"
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
found = {folder: writes(folder) for folder in ("/", "/etc", "/opt/venv", sys.prefix + "/lib", "/tmp")}
print(json.dumps(found | {name: status[name].split()[0] for name in ("Uid", "CapEff", "CapBnd", "NoNewPrivs")}))
"""
    found = json.loads(container.run("python", "-c", script))
    assert found.pop("/tmp") == "written"
    assert (found.pop("Uid"), found.pop("NoNewPrivs")) == ("8888", "1")
    assert {found.pop(name) for name in ("CapEff", "CapBnd")} == {"0" * 16}
    assert set(found.values()) == {"Read-only file system"}


@built
def test_the_image_holds_compiled_modules_and_no_installer(container: Container) -> None:
    (packages,) = container.root.glob("opt/venv/lib/python*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert names.isdisjoint({"pip", "setuptools"})
    modules = list((packages / "canary_mw").rglob("*.py"))
    assert len(modules) > 100
    compiled = {path.parent.parent / f"{path.name.split('.')[0]}.py" for path in packages.rglob("canary_mw/**/*.pyc")}
    assert compiled == set(modules)


def workloads(*files: str) -> dict[str, Any]:
    """Name -> container, of the manifests in k8s."""
    found = [item for file in files for item in yaml.safe_load_all((ROOT / "k8s" / file).read_text(encoding="utf-8"))]
    return {each["metadata"]["name"]: pod_of(each)["containers"][0] for each in found if each["kind"] == "Deployment"}


def arguments(container: Any, entrypoint: list[str], **ports: int) -> list[str]:
    """The command of a container in a manifest, on ports of this machine."""
    command = [*(container.get("command") or entrypoint), *container["args"]]
    for name, port in ports.items():
        command = [re.sub(rf"^(--port=)?{name.removeprefix('p')}$", rf"\g<1>{port}", each) for each in command]
    return [each.replace("0.0.0.0", "127.0.0.1") for each in command]


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}{path}"), timeout=20) as found:
            return found.status, found.read().decode()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


@built
def test_the_image_runs_the_demo_as_its_manifests_say(container: Container, tmp_path: Path) -> None:
    manifests = workloads("demo/apps.yaml", "base/deployment.yaml")
    entrypoint = container.config["Entrypoint"]
    rules = yaml.safe_load((ROOT / "k8s/demo/configmap.yaml").read_text(encoding="utf-8"))["data"]["rules.yaml"]
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.yaml").write_text(rules, encoding="utf-8")
    ports = {name: free_port() for name in (*manifests, "admin")}
    with ExitStack() as running:
        for name in ("service-stable", "service-gray"):
            command = arguments(manifests[name], entrypoint, p8000=ports[name])
            app = container.running(
                command,
                tmp_path / f"{name}.log",
                [ports[name]],
                {"/app": ROOT / "examples" / "compose"},
                VERSION=name.removeprefix("service-"),
            )
            running.enter_context(app)
        command = arguments(manifests["canary-proxy"], entrypoint, p8080=ports["canary-proxy"], p8877=ports["admin"])
        upstreams = [f"--upstream={name}=http://127.0.0.1:{ports[name]}" for name in ("service-stable", "service-gray")]
        listening = [ports["canary-proxy"], ports["admin"]]
        mounts = {"/etc/canary": tmp_path / "rules"}
        variables = {each["name"]: each["value"] for each in manifests["canary-proxy"]["env"]}
        start = container.running([*command, *upstreams], tmp_path / "proxy.log", listening, mounts, **variables)
        proxy = running.enter_context(start)
        assert answer(ports["admin"], "/readyz")[0] == 200
        found = {json.loads(answer(ports["canary-proxy"], "/svc/")[1])["version"] for _ in range(100)}
        assert found == {"stable", "gray"}
        assert answer(ports["canary-proxy"], "/other/")[0] == 404
        assert proxy.signal(container.config["StopSignal"]) == 0
