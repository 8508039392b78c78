"""`python -m benchmarks.statistics`: simulate all tables and write results.json and RESULTS.md beside this file."""

import argparse
import json
from pathlib import Path

from .pages import page
from .tables import Row, detections, false_alarms, slow_answers, whole_releases

FOLDER = Path(__file__).parent
# Of worse versions, and of slow ones.
_WORSE, _SLOW = 500, 300


def main() -> None:
    """Simulate, and write what came out; the seeds are fixed, so that it is the same everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="of equal versions; fewer of worse ones")
    runs = parser.parse_args().runs
    found: dict[str, list[Row]] = {}
    tables = {
        "false alarms": false_alarms(runs),
        "detections": detections(min(runs, _WORSE)),
        "slow answers": slow_answers(min(runs, _SLOW)),
        "whole releases": whole_releases(runs),
    }
    for name, rows in tables.items():
        found[name] = []
        for row in rows:
            print(row, flush=True)
            found[name].append(row)
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / "results.json").write_text(text, encoding="utf-8")
    (FOLDER / "RESULTS.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
