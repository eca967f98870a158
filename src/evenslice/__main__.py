"""Run the command line as ``python -m evenslice``."""

from evenslice.cli.app import main

main()
