"""Remake the testbed: ``python -m lorasweep.testbed [--out FOLDER] [--only corpora|model]``."""

import argparse
import time
from pathlib import Path

from lorasweep.testbed import ASSETS
from lorasweep.testbed.corpora import write_corpora


def main() -> None:
    """Write the corpora (seconds) and pretrain the base (minutes)."""
    parser = argparse.ArgumentParser(prog="python -m lorasweep.testbed", description=main.__doc__)
    parser.add_argument(
        "--out", type=Path, default=ASSETS, metavar="FOLDER", help="default: the package's assets"
    )
    parser.add_argument("--only", choices=("corpora", "model"), help="make one part only")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.only != "model":
        write_corpora(options.out)
        print(f"corpora and tasks: {options.out} ({time.perf_counter() - started:.0f} s)")
    if options.only != "corpora":
        from lorasweep.testbed.pretrain import make_model

        make_model(options.out / "model")
        print(f"model: {options.out / 'model'} ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
