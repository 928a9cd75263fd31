"""Race four ways to run one list of 32 trials: lanes, one slot, Ray's user guide, one warm process.

    python benchmarks/sweep.py --out benchmarks/results/sweep.json

Each arm is a subprocess, timed from its start to its exit; all train the same trials on the same
rows and measure them on the same tasks, which the agreement between their scores shows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from scores import AXES, SCORES, trial_row

from lorasweep.spec.file import read_yaml
from lorasweep.store.environment import environment
from lorasweep.store.journal import read
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import LaneEnded
from lorasweep.store.results import load_results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LEVELS: dict[str, list[Any]] = {
    "lr": [3e-4, 1e-3, 3e-3, 1e-2],
    "targets": ["attention", "all"],
    "rank": [2, 4, 8, 32],
}
ARMS = ("lanes", "one-slot", "textbook", "warm-sequential")
REFERENCE = "warm-sequential"
COMPARED = ("response_loss", "learning", "source_accuracy")
TAIL = 40  # lines shown of an arm that failed
# Threads that share a step wait for one another by spinning: one other busy process on two cores
# made warm-sequential fifty times slower, and the others hardly.
IDLE = 0.1  # share of the cores that may be busy before an arm
SETTLE_S = 3.0
LIBRARIES = "import lm_eval, peft, ray, torch, transformers"

Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """Time that one arm took, and what it found.

    wall_s: seconds from the start of its process to its exit.
    first_step_s: seconds until an optimizer step was reported, None where none was; for lanes until
        one had ended.
    busy_before: share of the cores that something else kept busy before the arm.
    lanes: what each of them reported: slots, occupancy, refill delay, share of its time in which it
        waited for Tune.
    """

    arm: str
    wall_s: float
    busy_before: float
    first_step_s: float | None
    trials: list[Row]
    lanes: tuple[Row, ...] = ()


def first_levels(trials: int) -> dict[str, list[Any]]:
    """Cut the grid down to its first trials, the rank varying fastest.

    Raises:
        SystemExit: that many trials from the start are no grid.
    """
    lr, targets, rank = LEVELS.values()
    block = len(targets) * len(rank)
    if 1 <= trials <= len(rank):
        return {"lr": lr[:1], "targets": targets[:1], "rank": rank[:trials]}
    if trials % block == 0 and 1 <= trials // block <= len(lr):
        return {"lr": lr[: trials // block], "targets": targets, "rank": rank}
    raise SystemExit(
        f"--trials: must be 1 to {len(rank)}, or {block} times 1 to {len(lr)}, since the trials "
        f"are a grid, got {trials}"
    )


def sweep_content(trials: int, steps: int) -> dict[str, Any]:
    """Write the sweep that all arms run; nothing in it stops a trial early or adds one."""
    return {
        "name": "benchmark",
        "question": "How long does one list of trials take?",
        "model": {"path": "testbed"},
        "data": {"path": "testbed", "seq_len": 96},
        "space": first_levels(trials),
        "train": {"steps": steps, "micro_batch": 16},
        "search": {"algorithm": "grid", "scheduler": "none", "confirm": 0},
        "evaluate": read_yaml(ROOT / "sweeps" / "default.yaml")["evaluate"],
        "seed": 0,
    }


def command(arm: str, sweep: Path, folder: Path) -> list[str]:
    """Build the command line of an arm."""
    if arm in {"lanes", "one-slot"}:
        slots = "auto" if arm == "lanes" else "1"
        words = ["-m", "lorasweep", "tune", str(sweep), "--slots", slots, "--out", str(folder)]
    else:
        script = HERE / f"{arm.replace('-', '_')}.py"
        words = [str(script), str(sweep), "--out", str(folder / "scores.json")]
    return [sys.executable, *words]


def measure_busy(arm: str) -> float:
    """Measure what else the machine is doing, and warn where it would spoil the times."""
    busy = psutil.cpu_percent(interval=SETTLE_S) / 100
    if busy > IDLE:
        print(f"before {arm}, {busy:.0%} of the cores are busy; the times mean little", flush=True)
    return busy


def run_arm(arm: str, sweep: Path, folder: Path) -> Arm:
    """Run an arm in an empty folder and read what it left.

    Raises:
        SystemExit: it failed; the tail of its output says why.
    """
    # Every arm starts a Ray of its own and reads nothing but local files.
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    variables.pop("RAY_ADDRESS", None)
    folder.mkdir()
    log = folder.with_suffix(".log")
    busy = measure_busy(arm)
    with log.open("w", encoding="utf-8") as output:
        started, began = time.time(), time.perf_counter()
        done = subprocess.run(
            command(arm, sweep, folder),
            cwd=ROOT,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        wall_s = time.perf_counter() - began
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
        raise SystemExit(
            "\n".join([*tail, f"{arm} failed with exit code {done.returncode}, see above"])
        )
    lorasweep_ran = (folder / "journal.jsonl").is_file()
    first_step, trials = (read_sweep_folder if lorasweep_ran else read_scores)(folder)
    lanes = read_lanes(folder, started) if lorasweep_ran else ()
    steps = [lane["first_step_s"] for lane in lanes if lane["first_step_s"] is not None]
    first_step_s = None if first_step is None else min([first_step - started, *steps])
    return Arm(arm, wall_s, busy, first_step_s, trials, lanes)


def read_scores(folder: Path) -> tuple[float | None, list[Row]]:
    """Read what a plain arm wrote."""
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return content["first_step"], content["trials"]


def read_sweep_folder(folder: Path) -> tuple[float | None, list[Row]]:
    """Read a results folder: the journal, and the first line of each trial's progress."""
    trials = [
        trial_row(trial.hyperparameters, {name: getattr(trial, name) for name in SCORES})
        for trial in load_results(folder).trials
    ]
    times = []
    for progress in SweepPaths(folder).trials.glob("*/progress.jsonl"):
        with progress.open(encoding="utf-8") as file:
            line = file.readline()
        times.append(json.loads(line).get("time") if line else None)
    known = [moment for moment in times if moment is not None]
    return min(known, default=None), trials


def read_lanes(folder: Path, started: float) -> tuple[Row, ...]:
    """Read what the lanes of a sweep reported; none with a job for each trial."""
    ended = [r for r in read(SweepPaths(folder).journal) if isinstance(r, LaneEnded)]
    return tuple(
        {
            "slots": lane.slots,
            "reason": lane.reason,
            "first_step_s": lane.first_step and lane.first_step - started,
            "occupancy": lane.occupancy,
            "refill_steps": lane.refill_steps,
            "tune_share": lane.waited_s and lane.waited_s / (lane.last_step - lane.first_step),
            "tokens_per_s": lane.tokens / lane.train_s if lane.train_s else None,
        }
        for lane in ended
    )


def configuration(trial: Row) -> tuple[Any, ...]:
    """Key a trial by its configuration, by which arms are compared."""
    return tuple(trial[name] for name in AXES)


def best(trials: list[Row], score: str) -> tuple[Any, ...] | None:
    """Find the best configuration by a score, the lower response loss among equals.

    None if no trial has scores.
    """
    scored = [trial for trial in trials if trial["response_loss"] is not None]
    if not scored:
        return None
    if score == "response_loss":
        return configuration(min(scored, key=lambda trial: trial["response_loss"]))
    return configuration(max(scored, key=lambda t: (t[score], -t["response_loss"])))


def agreement(trials: list[Row], reference: list[Row]) -> dict[str, Any]:
    """Compare the scores of an arm with those of the reference, trial by trial.

    Trials that diverged have no scores; how many did so in one of the two only is counted. The
    median is given besides the largest difference, since a trial on the edge of divergence ends
    elsewhere whenever one rounding differs.
    """
    expected = {configuration(trial): trial for trial in reference}
    if {configuration(trial) for trial in trials} != set(expected):
        raise SystemExit("the arms did not run the same trials")
    pairs = [(trial, expected[configuration(trial)]) for trial in trials]
    found: dict[str, Any] = {}
    for score in COMPARED:
        values = [(a[score], b[score]) for a, b in pairs]
        both = [abs(a - b) for a, b in values if a is not None and b is not None]
        found[f"largest_difference_{score}"] = max(both, default=None)
        found[f"median_difference_{score}"] = statistics.median(both) if both else None
    found["scored_in_one_only"] = sum(
        (a["response_loss"] is None) != (b["response_loss"] is None) for a, b in pairs
    )
    for score in ("learning", "response_loss"):
        found[f"same_best_by_{score}"] = best(trials, score) == best(reference, score)
    return found


def summary(arms: list[Arm], trials: int, steps: int) -> dict[str, Any]:
    """Assemble what the benchmark writes."""
    wall = {arm.arm: arm.wall_s for arm in arms}
    reference = next((arm.trials for arm in arms if arm.arm == REFERENCE), None)
    return {
        "environment": environment(),
        "trials": trials,
        "steps": steps,
        "arms": [vars(arm) for arm in arms],
        "speedups": {
            f"lanes over {slower}": wall[slower] / wall["lanes"]
            for slower in ("one-slot", "textbook", "warm-sequential")
            if {"lanes", slower} <= set(wall)
        },
        "agreement": {
            arm.arm: agreement(arm.trials, reference)
            for arm in arms
            if reference is not None and arm.arm != REFERENCE
        },
    }


def table(result: dict[str, Any]) -> str:
    """Write times, speedups and agreement as a few lines of text."""
    lines = ["arm                wall s first step s response loss  learning"]
    for arm in result["arms"]:
        compared = result["agreement"].get(arm["arm"], {})
        cells = [compared.get(f"largest_difference_{score}") for score in COMPARED[:2]]
        lines.append(
            f"{arm['arm']:<16} {arm['wall_s']:>8.1f} {_cell(arm['first_step_s'], '.1f'):>12} "
            f"{_cell(cells[0], '.1e'):>13} {_cell(cells[1], '.4f'):>9}"
        )
    lines.append(f"the last two columns: largest difference from {REFERENCE}")
    lines += [f"{name}: {times:.2f} times as fast" for name, times in result["speedups"].items()]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _arms(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in ARMS]:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(ARMS)}, got {unknown[0]!r}")
    return list(dict.fromkeys(names))


def main() -> None:
    """Run the arms one after another, write the result and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", type=_arms, default=list(ARMS), help="comma list; default all")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of each trial")
    parser.add_argument(
        "--trials",
        type=int,
        default=math.prod(map(len, LEVELS.values())),
        help="run only this many, from the start of the grid",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    arguments = parser.parse_args()
    content = sweep_content(arguments.trials, arguments.steps)

    # The first arm would pay for reading the libraries from disk.
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True)
    arms = []
    with tempfile.TemporaryDirectory(prefix="lorasweep-benchmark-") as temporary:
        sweep = Path(temporary) / "sweep.yaml"
        sweep.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        for arm in arguments.arms:
            print(f"running {arm}", flush=True)
            arms.append(run_arm(arm, sweep, Path(temporary) / arm))
    result = summary(arms, arguments.trials, arguments.steps)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
