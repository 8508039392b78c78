"""Images of containers, built and started without a daemon: by buildah, over a base that mmdebstrap makes.

Programs run as a restricted pod runs them: as the user of the image, with a root that is read-only, without
capabilities and without a way to gain any; they share the network of the tests.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import Process

# The name by which the Dockerfile asks for it. It is Debian's Python, not that of the image of this name.
BASE = "docker.io/library/python:3.11-slim-bookworm"
_PACKAGES = "python3.11-minimal,python3.11-venv,ca-certificates"
_BASE_FILE = 'FROM scratch\nADD base.tar /\nRUN ["ln", "-s", "/usr/bin/python3", "/usr/local/bin/python3"]\n'
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_RESTRICTED = "--clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
# A mount namespace of its own: nothing of this is seen outside.
_START = """set -e
root=$1 user=$2 group=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done
shift
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$group" """


def lacking() -> str:
    """What is missing here to build an image; empty if nothing is."""
    if missing := [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]:
        return f"{' and '.join(missing)} cannot be found: .ci/run installs them, as root"
    isolated = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if isolated.returncode == 0 else "this machine allows no namespaces"


def _base(folder: Path) -> Path:
    """The archive of a small Debian with Python, which is kept for a week: mirrors are not asked in each run."""
    kept = Path(sys.prefix) / "image-base.tar"
    if not kept.exists() or time.time() - kept.stat().st_mtime > 7 * 24 * 3600:
        fresh = folder / "fresh.tar"
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(fresh))
        shutil.move(fresh, kept)
    return kept


def _run(*command: str) -> str:
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert outcome.returncode == 0, f"{outcome.stdout[-2000:]}{outcome.stderr[-4000:]}"
    return outcome.stdout


class Images:
    """Images in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        store = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        self._buildah = ["buildah", *store]

    def build(self, context: Path, name: str, *options: str) -> None:
        """Build the image of a folder with a Dockerfile."""
        isolated = ("--isolation", "chroot", "--pull-never")
        _run(*self._buildah, "bud", *isolated, *options, "-t", name, str(context))

    def build_base(self) -> None:
        """Make the image that the Dockerfile begins with."""
        context = self.folder / "base"
        context.mkdir()
        shutil.copy(_base(self.folder), context / "base.tar")
        (context / "Dockerfile").write_text(_BASE_FILE, encoding="utf-8")
        self.build(context, BASE)

    def authorities(self) -> list[str]:
        """Options by which pip, in a build, trusts whom this machine trusts: its network may have a proxy."""
        settings = self.folder / "pip.conf"
        settings.write_text(f"[global]\ncert = {_AUTHORITIES}\n", encoding="utf-8")
        return ["-v", f"{_AUTHORITIES}:{_AUTHORITIES}:ro", "-v", f"{settings}:/etc/pip.conf:ro"]

    def config(self, name: str) -> Any:
        """What the image says about itself (OCI)."""
        return json.loads(_run(*self._buildah, "inspect", "--type", "image", name))["OCIv1"]["config"]

    def unpack(self, name: str) -> "Container":
        """The files of an image, ready to be started."""
        container = _run(*self._buildah, "from", "--pull-never", name).strip()
        return Container(Path(_run(*self._buildah, "mount", container).strip()), self.config(name))

    def remove(self) -> None:
        """Everything; a gigabyte is not left behind."""
        _run(*self._buildah, "rm", "--all")
        shutil.rmtree(self.folder)


class Container:
    """The files of an image, in which programs are run."""

    def __init__(self, root: Path, config: Any) -> None:
        self.root, self.config = root, config

    def command(self, arguments: list[str], mounts: dict[str, Path], environ: dict[str, str]) -> list[str]:
        """How to run a program in it; mounts are read-only."""
        user, group = self.config["User"].split(":")
        folders = [text for there, here in mounts.items() for text in (str(here), there)]
        for there in mounts:
            (self.root / there.removeprefix("/")).mkdir(parents=True, exist_ok=True)
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        start = f'{_START}{_RESTRICTED} env -i "$@"'
        inner = ["sh", "-c", start, "sh", str(self.root), user, group, *folders, "--", *variables, *arguments]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *inner]

    def run(self, *arguments: str) -> str:
        """Run a program to its end."""
        return _run(*self.command(list(arguments), {}, {}))

    @contextmanager
    def running(
        self, arguments: list[str], log: Path, wait_for: list[int], mounts: dict[str, Path], **environ: str
    ) -> Iterator["Running"]:
        """Run a server in it until the block ends."""
        server = Running(self.command(arguments, mounts, environ), log)
        try:
            for port in wait_for:
                server.wait_for_port(port)
            yield server
        except BaseException:
            print(server.output)
            raise
        finally:
            server.end()


class Running(Process):
    """A server in a container, whose first process it is."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        self._file = log.open("wb")
        self.child = subprocess.Popen(command, stdout=self._file, stderr=subprocess.STDOUT)

    def signal(self, name: str) -> int:
        """Send what the kubelet sends to end it, and wait for its end; returns the exit code."""
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text(encoding="utf-8")
        (first,) = map(int, children.split())
        os.kill(first, getattr(signal, name))
        return self.child.wait(20)

    def end(self) -> None:
        """Its namespace ends with the process that made it."""
        self.child.kill()
        self.child.wait(20)
        self._file.close()
