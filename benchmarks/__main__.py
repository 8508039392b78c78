"""`python -m benchmarks`: all rows, into RESULTS.md when all could be measured; `--row P1`: one row, to look at."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from . import p1, p4, p5, p7
from .compare import Options
from .processes import Failed, Missing
from .report import Section, Verdict, aligned, machine, markdown, verdict_lines, versions

Row = Callable[[Options, Path], Section]
ROWS: dict[str, tuple[str, Row]] = {
    "P1": (p1.TITLE, p1.run),
    "P4": (p4.TITLE, p4.run),
    "P5": (p5.TITLE, p5.run),
    "P7": (p7.TITLE, p7.run),
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    """Run what is asked for; 1 when a row could not be measured."""
    arguments = _arguments()
    options = Options(arguments.rounds, arguments.seconds)
    load = os.getloadavg()[0]
    print(f"{machine()}; load average {load:.2f}\n{'; '.join(versions())}", flush=True)
    names = [arguments.row] if arguments.row else list(ROWS)
    sections = [_run(name, options) for name in names]
    print("\n" + aligned(verdict_lines(sections)))
    complete = all(verdict.met is not None for section in sections for verdict in section.verdicts)
    if complete and not arguments.row:
        command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
        RESULTS.write_text(markdown(sections, command, load), encoding="utf-8")
        print(f"\nwritten to {RESULTS}")
    return 0 if complete else 1


def _arguments() -> argparse.Namespace:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What canary-mw costs beside its peers.")
    parser.add_argument("--row", choices=list(ROWS), type=str.upper, help="only this one; RESULTS.md stays as it is")
    parser.add_argument("--rounds", type=int, default=defaults.rounds, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=defaults.seconds, help="for each server and round; default: 3")
    return parser.parse_args()


def _run(name: str, options: Options) -> Section:
    """One row in a folder of its own; what is missing becomes its verdict."""
    title, run = ROWS[name]
    print(f"\n{name}: {title}", flush=True)
    with TemporaryDirectory(prefix="canary-mw-bench-") as folder:
        try:
            return run(options, Path(folder))
        except (Missing, Failed) as exc:
            print(f"  {name} is left out: {exc}", file=sys.stderr, flush=True)
            reason = str(exc).partition("\n")[0]
            return Section(name, title, [Verdict("all of it", "", reason, None)])


if __name__ == "__main__":
    sys.exit(main())
