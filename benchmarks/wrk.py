"""Load: wrk with one thread, random prefixes, and figures that need no scraping of its report."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .processes import Failed, program
from .rules import GRAY, USER

CONNECTIONS = 32
# One in five requests of a prefix carries the gray header when there are gray Mappings to hit.
GRAY_EVERY = 5
_PATIENCE = 30
_SCRIPT = """\
local requests, at = {}, 0
function init()
  math.randomseed(1)
  for number = %(first)d, %(first)d + %(prefixes)d - 1 do
    for copy = 1, %(gray_every)d do
      local headers = {}
      for extra = 1, %(extra)d do headers[("x-extra-%%02d"):format(extra)] = "some-value-of-a-header" end
      if %(users)s then headers["%(user)s"] = ("user-%%d-%%d"):format(number, copy) end
      if %(gray)s and copy == 1 then headers["%(name)s"] = "%(value)s" end
      requests[#requests + 1] = wrk.format("GET", ("/svc-%%05d/%(path)s"):format(number), headers)
    end
  end
  for last = #requests, 2, -1 do
    local other = math.random(last)
    requests[last], requests[other] = requests[other], requests[last]
  end
end
function request()
  at = at %% #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  print(("FIGURES %%d %%d %%d %%f %%f"):format(summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; `seconds` is its duration, latencies are milliseconds."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float


def script(
    folder: Path,
    prefixes: int,
    *,
    gray: bool,
    path: str = "item",
    extra: int = 0,
    first: int = 0,
    every: int = GRAY_EVERY,
    users: bool = False,
) -> Path:
    """Write the wrk script for requests to so many prefixes.

    Args:
        path: behind the prefix.
        extra: headers in addition to Host.
        first: number of the first prefix.
        every: how many requests of a prefix there are for one with the gray header.
        users: each request has the header of a user.
    """
    users_text = str(users).lower()
    values: dict[str, object] = {"users": users_text, "user": USER}
    values |= {"first": first, "prefixes": prefixes, "gray_every": every, "gray": str(gray).lower(), "path": path}
    file = folder / f"requests-{first}-{prefixes}-{gray}-{path}-{extra}-{every}-{users_text}.lua"
    file.write_text(_SCRIPT % {**values, "extra": extra, "name": GRAY[0], "value": GRAY[1]}, encoding="utf-8")
    return file


def load(port: int, lua: Path, seconds: float, connections: int = CONNECTIONS) -> Load:
    """Run wrk against a port.

    Args:
        seconds: rounded to whole ones, which is what wrk takes.

    Raises:
        Missing: there is no wrk.
        Failed: it did not do its work.
    """
    command = [program("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(lua)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=False, timeout=seconds + _PATIENCE
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIGURES ")), None)
    if line is None or line.startswith("FIGURES 0 "):
        raise Failed(f"wrk ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    requests, duration, errors, p50, p99 = map(float, line.split()[1:])
    return Load(int(requests), duration / 1e6, int(errors), p50 / 1e3, p99 / 1e3)
