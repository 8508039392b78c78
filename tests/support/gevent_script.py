"""Scripts that run where gevent has patched everything, in processes of their own."""

import subprocess
import sys

PATCHED = "from gevent import monkey\nmonkey.patch_all()\n"


def under_gevent(script: str, *arguments: str, prelude: str = PATCHED) -> str:
    """What a script prints.

    Args:
        prelude: comes before it; by default everything is patched there.
    """
    command = [sys.executable, "-c", prelude + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
