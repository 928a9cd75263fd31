"""Run the command line as `python -m lorasweep`."""

from lorasweep.cli import main

main()
