"""Run the command line as ``python -m evenslice``."""

from evenslice.cli import main

main()
