"""Fuzzing under atheris: `python -m fuzz` runs every target, `... NAME` one, `... NAME FILE` one input again."""

import argparse
import faulthandler
import logging
import os
import subprocess
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.targets import Target

HERE = Path(__file__).parent
WORK = HERE.parent.parent / ".fuzz"
# Seconds and MiB that one input may take.
PATIENCE = 10
MEMORY = 2048


def main() -> int:
    """Do what the command line says; 1 when an input broke something."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("name", nargs="?", help="a target; all of them without it")
    parser.add_argument("file", nargs="?", type=Path, help="an input to run again, once")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--explore", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    # What is found is raised; what is logged besides, of every bad request, would only hide it.
    logging.disable(logging.CRITICAL)
    if given.explore:
        explore(given.name, given.seconds)
    if given.file is not None:
        return again(given.name, given.file.read_bytes())
    from fuzz.targets import TARGETS

    names = [given.name] if given.name else list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"{unknown[0]} is not a target; known are {', '.join(TARGETS)}")
    results = [broken(name, given.seconds) for name in names]
    return int(any(results))


def again(name: str, data: bytes) -> int:
    """Run one input, under the same patience."""
    from fuzz.targets import TARGETS

    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    TARGETS[name](data)
    print(f"{name}: {len(data)} bytes, and all holds")
    return 0


def broken(name: str, seconds: int) -> bool:
    """Explore a target in a process of its own, and print the outcome."""
    from fuzz.seeds import all_seeds
    from fuzz.words import words_of

    corpus, crashes = WORK / "corpus" / name, WORK / "crashes"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(all_seeds(name)):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
    words = ["".join(f"\\x{byte:02x}" for byte in word) for word in words_of(name) if word]
    (WORK / f"{name}.dict").write_text("".join(f'"{word}"\n' for word in words))
    known = set(crashes.glob(f"{name}-*"))
    command = [sys.executable, "-m", "fuzz", name, "--explore", "--seconds", str(seconds)]
    log = WORK / f"{name}.log"
    with log.open("wb") as output:
        status = subprocess.call(command, env={**os.environ, "PYTHONPATH": str(HERE.parent)}, stderr=output)
    found = sorted(set(crashes.glob(f"{name}-*")) - known)
    print(f"{name}: {last_count(log)}", f"ended with {status}, see {log}" if status else "nothing found", flush=True)
    for file in found:
        print(f"  to run it again: make fuzz TARGET={name} FILE={file.relative_to(WORK.parent)}", flush=True)
    return status != 0


def last_count(log: Path) -> str:
    """How many inputs were run, as the fuzzer said it last."""
    lines = [
        line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith("#") and line[1:2].isdigit()
    ]
    return f"{lines[-1].split()[0][1:]} inputs," if lines else "no input,"


def explore(name: str, seconds: int) -> None:
    """Run a target on inputs that lead to new places, until the time is up or something does not hold, and end."""
    import atheris

    with atheris.instrument_imports(include=["canary_mw", "yaml", "uvicorn.protocols", "websockets"]):
        from fuzz.targets import TARGETS

    options = {
        "max_total_time": seconds,
        "timeout": PATIENCE,
        "rss_limit_mb": MEMORY,
        "max_len": 8192,
        "dict": WORK / f"{name}.dict",
        "artifact_prefix": f"{WORK / 'crashes'}/{name}-",
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(WORK / "corpus" / name)], keeping(name, TARGETS[name]))
    atheris.Fuzz()


def keeping(name: str, target: "Target") -> "Target":
    """A target that keeps the input that breaks it, and ends the process at once."""

    def run(data: bytes) -> None:
        try:
            target(data)
        except BaseException:  # noqa: BLE001 - the process ends here, and this is all that is left of it
            traceback.print_exc()
            sys.stderr.flush()
            (WORK / "crashes" / f"{name}-{sha256(data).hexdigest()[:12]}").write_bytes(data)
            os._exit(1)

    return run


if __name__ == "__main__":
    sys.exit(main())
