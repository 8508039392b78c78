"""What canary-mw costs, side by side with its peers on the same machine: `python -m benchmarks`, `--row P1` for one.

The measure is CPU time of the proxy process per request served: on a shared machine it is steadier than requests per
second, and it is what a cluster pays for. All peers of a row run at the same time and are loaded one after the other,
round by round, so that a change of the machine's mood meets all of them; ratios are taken within a round.

A row is a module with `TITLE` and `run(options, folder) -> Section`, named in `__main__.ROWS`.
"""
