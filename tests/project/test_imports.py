"""Each module can be imported as the first one of the package: no circle of imports hides behind a lucky order."""

import subprocess
import sys

import pytest
from installation import ROOT, environ

# The parent loads the libraries, and each child, forked from it, the package and the one module.
SCRIPT = """
import importlib, os, sys, traceback

def fresh(name):
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0

names = sys.argv[1:]
for name in names:
    try:
        importlib.import_module(name)
    except Exception:
        pass  # its own child reports it
for name in [each for each in sys.modules if each.partition(".")[0] == "canary_mw"]:
    del sys.modules[name]
print(*[name for name in names if not fresh(name)], sep="\\n", end="")
"""


@pytest.mark.slow
def test_every_module_can_be_imported_first() -> None:
    files = sorted((ROOT / "canary_mw").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    # It runs the command line; `python -m canary_mw` is tested elsewhere.
    names.remove("canary_mw.__main__")
    command = [sys.executable, "-c", SCRIPT, *names]
    outcome = subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, check=True)
    assert len(names) > 100
    assert outcome.stdout == "", outcome.stderr
