"""`canary-mw evidence`."""

import json
import sys

import click

from canary_mw.cli.rules import standard_input
from canary_mw.rollout.batch.answers import answer_line


@click.command()
@click.option("--batch", is_flag=True, required=True, help="Read JSON lines from stdin, write one JSON line for each.")
def evidence(batch: bool) -> None:
    """Say what counts of requests prove about gray, using the code that judges releases.

    \b
    With --batch each line of standard input is a JSON object with "kind" and what that kind needs:
      attribution     epochs of a weight: keys that failed in gray and in stable
      combined        the evidence of several metrics
      poisson_bounds  bounds of a rate after a number of events
      promotion       whether the next weight keeps a margin
      sample_ratio    whether keys come as drawn
      streams         requests in their order: when gray is called worse
      thinning        a sample of keys
      threshold       a quantile of the first times
      transitions     what a release does at an event or a command in a state

    A line that cannot be read is answered with "line", its number, and "error"; the exit code is 1 then.
    """
    failed = False
    for number, line in enumerate(standard_input(), 1):
        if line.strip():
            answer = answer_line(number, line)
            failed |= "error" in answer
            print(json.dumps(answer), flush=True)
    sys.exit(int(failed))
