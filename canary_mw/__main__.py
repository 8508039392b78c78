"""`python -m canary_mw`."""

from .cli import main

main(prog_name="canary-mw")
