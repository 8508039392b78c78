"""IMPORTS: CPU time of a new interpreter that imports a middleware, beside the frameworks that it is used with."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from .compare import Options
from .report import Section, spread

RUNS_A_ROUND = 4
LIMIT = 150
OURS = ("from canary_mw import CanaryMiddleware", "from canary_mw import CanaryWSGIMiddleware")
# A store of rules loads the parser, and with it pydantic.
CODES = {
    "nothing": "pass",
    "asyncio": "import asyncio",
    "starlette": "from starlette.applications import Starlette",
    "fastapi": "from fastapi import FastAPI",
    "CanaryMiddleware": OURS[0],
    "CanaryWSGIMiddleware": OURS[1],
    "CanaryMiddleware, and one made": f"{OURS[0]}\nCanaryMiddleware(print, rules='none.yaml')",
}
TITLE = "import of the middlewares"
NOTES = """\
User and system time of `python -c CODE`, in turn, round by round; the first run of each, which writes bytecode, is not
counted. What is judged is the time over that of an interpreter that imports nothing."""


def run(options: Options, folder: Path) -> Section:
    """Measure; the bytecode is in `folder`."""
    section = Section("IMPORTS", TITLE, [NOTES])
    found: dict[str, list[float]] = {name: [] for name in CODES}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONPYCACHEPREFIX"] = str(folder)
    for number in range(options.rounds * RUNS_A_ROUND + 1):
        for name, code in CODES.items():
            milliseconds = _cpu(code, environ)
            if number:
                found[name].append(milliseconds)
    section.table = [("import", "CPU ms"), *((name, spread(values)) for name, values in found.items())]
    for name in ("CanaryMiddleware", "CanaryWSGIMiddleware"):
        section.at_most(f"CPU to import {name}, over nothing", _over(found, name), LIMIT, "ms", 0)
        starlette = _over(found, "starlette")
        ratios = [ours / theirs for ours, theirs in zip(_over(found, name), starlette, strict=True)]
        section.figure(f"CPU to import {name}, over Starlette's", ratios, "x", 2)
    return section


def _over(found: dict[str, list[float]], name: str) -> list[float]:
    return [each - nothing for each, nothing in zip(found[name], found["nothing"], strict=True)]


def _cpu(code: str, environ: dict[str, str]) -> float:
    """Milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
