"""`python -m canary_mw`."""

from canary_mw.cli.main import main

main(prog_name="canary-mw")
