"""`python -m epd` is the `epd` command."""

from epd.cli.main import run

run()
