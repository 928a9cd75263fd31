"""Run the command line as `python -m lorasweep`, also when Ctrl-C comes while it is imported."""

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from lorasweep.cli import main as run
    except KeyboardInterrupt:
        print("lorasweep: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
