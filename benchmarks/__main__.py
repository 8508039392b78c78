"""`python -m benchmarks`: all rows; `--row P1`: one. What was measured goes into RESULTS.md and docs/."""

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, ModuleType

from . import (
    api_calls,
    asgi_servers,
    auth,
    changes,
    evidence,
    fallback,
    growth,
    imports,
    metrics,
    p1,
    p2,
    p3,
    p4,
    p5,
    p6,
    p6n,
    p7,
    p8,
    p9,
    p10,
    p11,
    p12,
    p13,
    production,
    rate_limit,
    releases,
    resources,
    results,
    sockets,
    sticky,
    tcp,
    watches,
)
from .compare import Options
from .machine import machine, versions
from .processes import ROOT, Failed, Missing, allow_open_files, in_short
from .report import Section, Verdict, aligned, verdict_lines
from .results import Run

ROWS: dict[str, ModuleType] = {
    "P1": p1,
    "P2": p2,
    "P3": p3,
    "P4": p4,
    "P5": p5,
    "P6": p6,
    "P6N": p6n,
    "P7": p7,
    "P8": p8,
    "P9": p9,
    "P10": p10,
    "P11": p11,
    "P12": p12,
    "P13": p13,
    "PRODUCTION": production,
    "SOCKETS": sockets,
    "METRICS": metrics,
    "EVIDENCE": evidence,
    "RESOURCES": resources,
    "STICKY": sticky,
    "RELEASES": releases,
    "FALLBACK": fallback,
    "AUTH": auth,
    "RATELIMIT": rate_limit,
    "TCP": tcp,
    "IMPORTS": imports,
    "WATCHES": watches,
    "CHANGES": changes,
    "API": api_calls,
    "SERVERS": asgi_servers,
    "GROWTH": growth,
}
# Longer than any row takes, so that one that hangs does not stop the rest.
ROW_SECONDS = 600


def main() -> int:
    """Run what is asked for; 1 when a target could not be measured."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    allow_open_files()
    options = Options(arguments.rounds, arguments.seconds)
    folder, docs = (arguments.into,) * 2 if arguments.into else (ROOT / "benchmarks", ROOT / "docs")
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    where, what = machine(), versions()
    print(f"{where}\n{what}", flush=True)
    known = results.read(folder)
    measured: dict[str, Section] = {}
    for name in [arguments.row] if arguments.row else ROWS:
        run = Run(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", command, round(os.getloadavg()[0], 2), where, what)
        measured[name] = measure(name, options)
        measured[name].notes += arguments.note
        known[name] = run, measured[name]
        # After each row: what was measured is not lost when somebody stops the rest.
        results.write(folder, docs, {row: known[row] for row in ROWS if row in known})
    print("\n" + aligned(verdict_lines(measured.values())) + f"\n\nwritten to {folder / 'RESULTS.md'}")
    return 0 if all(section.complete for section in measured.values()) else 1


def _arguments() -> argparse.Namespace:
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What canary-mw costs compared with its peers."
    )
    parser.add_argument("--row", choices=list(ROWS), type=str.upper, help="only this one; the others stay as they were")
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=defaults.seconds, help="for each server and round; default: 3")
    parser.add_argument(
        "--note", action="append", default=[], metavar="TEXT", help="said with each row, as what else ran"
    )
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="write there, and leave the repository as it is")
    return parser.parse_args()


def measure(name: str, options: Options) -> Section:
    """One row in a folder of its own; whatever goes wrong becomes its verdict, and does not stop the others."""
    title: str = ROWS[name].TITLE
    run: Callable[[Options, Path], Section] = ROWS[name].run
    print(f"\n{name}: {title}", flush=True)
    with TemporaryDirectory(prefix="canary-mw-bench-", ignore_cleanup_errors=True) as folder:
        try:
            with _at_most(ROW_SECONDS):
                return run(options, Path(folder))
        except (Missing, Failed) as exc:
            print(f"  {name} failed: {exc}", file=sys.stderr, flush=True)
            reason = in_short(exc)
        except Exception as exc:  # noqa: BLE001 - the other rows are to be measured all the same
            traceback.print_exc()
            reason = f"{type(exc).__name__}: {in_short(exc)}"
    return Section(name, title, verdicts=[Verdict("all of it", "the row", reason, None)])


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise Failed(f"took longer than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main())
