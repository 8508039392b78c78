"""Whether gray is worse than stable, and whether it may get more: statistics and verdicts, without I/O."""
