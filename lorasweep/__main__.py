"""Run the command line as `python -m lorasweep`, also when Ctrl-C comes while it is imported."""

import os
import sys
import tempfile


def main() -> None:
    """Import the command line and run it."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111  # Path.home() would raise an error
        # A user id of its own, as in a container: libraries look for a home when they are imported.
        os.environ["HOME"] = tempfile.gettempdir()
    try:
        from lorasweep.cli import main as run
    except KeyboardInterrupt:
        print("lorasweep: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
