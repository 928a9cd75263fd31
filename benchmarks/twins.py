"""Run the testbed's twins of the published sweeps, and keep what each of them found.

    python benchmarks/twins.py --only methods --out benchmarks/results/twins.json

Each twin is a subprocess of its own, `lorasweep tune sweeps/testbed/NAME.yaml`, timed from its
start to its exit. What comes out is what was measured, good or bad; nothing here is a bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lorasweep.analysis.result import read_analysis
from lorasweep.store.environment import environment
from lorasweep.store.results import SweepResults, TrialResult, load_results

TWINS = Path(__file__).resolve().parent.parent / "sweeps" / "testbed"
DURATIONS = ("epochs", "tokens")


def run_twin(name: str, folder: Path) -> dict[str, Any]:
    """Run one twin to its report.

    Raises:
        SystemExit: it failed; with the end of its standard error.
    """
    words = [sys.executable, "-m", "lorasweep", "tune", str(TWINS / f"{name}.yaml")]
    began = time.perf_counter()
    done = subprocess.run(
        [*words, "--out", str(folder)], capture_output=True, text=True, check=False
    )
    wall_s = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    results = load_results(folder)
    analysis = read_analysis(folder / "report" / "analysis.json")
    return {
        "arm": name,
        "wall_s": round(wall_s, 1),
        "trials": dict(Counter(trial.status for trial in results.trials)),
        "tokens": sum(trial.tokens for trial in results.trials),
        "bases": {domain: scores.model_dump() for domain, scores in results.bases.items()},
        "best": _best(results),
        "durations": _durations(results),
        "spectra": [
            row.model_dump(include={"domain", "trial", "whole"}) for row in analysis.spectra
        ],
        "programs": [row.model_dump() for row in analysis.programs],
    }


def _best(results: SweepResults) -> list[dict[str, Any]]:
    """Find the trial that learned most, for each method in each domain."""
    rows = []
    for part in results.parts:
        for method in dict.fromkeys(trial.method for trial in part.trials):
            own = [t for t in part.trials if t.method == method and t.learning is not None]
            if own:
                rows.append(_row(max(own, key=lambda trial: trial.learning or 0.0)))
    return rows


def _durations(results: SweepResults) -> list[dict[str, Any]]:
    """List all trials where the duration varied, which is what the curves are made of."""
    varied = {axis for axis in DURATIONS if axis in results.axes}
    return [_row(trial) for trial in results.trials if varied and trial.status == "COMPLETE"]


def _row(trial: TrialResult) -> dict[str, Any]:
    return {
        "domain": trial.domain,
        "method": trial.method,
        "seed": trial.seed,
        **trial.hyperparameters,
        "steps": trial.steps,
        "tokens_trained": trial.tokens,
        "train_s": trial.train_s,
        "learning": trial.learning,
        "source_accuracy": trial.source_accuracy,
        "forgetting": trial.forgetting,
    }


def main() -> None:
    """Run the twins one after another and write what they found after each."""
    names = sorted(file.stem for file in TWINS.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--keep", type=Path, help="folder for the results folders")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arms: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lorasweep-twins-") as temporary:
        for name in arguments.only:
            print(f"running {name}, load {os.getloadavg()[0]:.1f}", flush=True)
            arms.append(run_twin(name, (arguments.keep or Path(temporary)) / name))
            print(json.dumps(arms[-1]["best"], indent=1), f"{arms[-1]['wall_s']} s", flush=True)
            result = {"environment": environment(), "arms": arms}
            text = json.dumps(result, indent=2, allow_nan=False) + "\n"
            arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
