"""How long does the report of many trials take? Made-up tables, from the file to the written page.

Two thirds of a table's trials are LoRA over learning rate, targets, rank, the rule for alpha and
dropout, one third full finetuning over the learning rate and weight decay; one in twenty diverged.

    python benchmarks/report.py --out benchmarks/results/report-2cores.json
    python benchmarks/report.py --out /tmp/try.json --trials 1000 --repeats 1
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorasweep.store.environment import environment

COLUMNS = (
    *("trial", "method", "seed", "status", "learning", "forgetting"),
    *("lr", "targets", "rank", "alpha", "dropout", "weight_decay"),
)
TARGETS = ("attention", "mlp", "all")


def made_up_trial(number: int, draw: random.Random) -> dict[str, object]:
    """Draw a configuration, and scores that fall off by its distance from the best rate."""
    method = "full" if number % 3 == 2 else "lora"
    peak = -4.5 if method == "full" else -3.5
    rate = draw.uniform(peak - 1.5, peak + 1.5)
    row: dict[str, object] = {
        "trial": f"t{number:06d}",
        "method": method,
        "seed": draw.randrange(3),
        "lr": 10**rate,
    }
    score = 0.6 - 0.06 * (rate - peak) ** 2 + draw.gauss(0, 0.02)
    forgotten = 0.1 + 0.05 * (rate - peak) + draw.gauss(0, 0.02)
    if method == "lora":
        targets, rank = draw.randrange(3), draw.choice((4, 16, 64, 256))
        row |= {
            "targets": TARGETS[targets],
            "rank": rank,
            "alpha": draw.choice((rank, 2 * rank)),
            "dropout": draw.choice((0.0, 0.05, 0.1)),
        }
        score += 0.02 * targets + 0.005 * math.log2(rank) - 0.05
        forgotten -= 0.05
    else:
        row["weight_decay"] = draw.choice((0.0, 0.1))
    if draw.random() < 0.05:
        return row | {"status": "DIVERGED"}
    return row | {"status": "COMPLETE", "learning": score, "forgetting": forgotten}


def write_table(file: Path, trials: int) -> None:
    """Write a table of made-up trials, the same every time."""
    draw = random.Random(0)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(made_up_trial(number, draw) for number in range(trials))


def measure(words: list[str]) -> dict[str, float]:
    """Run a command to its end: wall time and CPU time of all its processes, in seconds."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user - before.children_user
    return {"wall_s": wall, "cpu_s": cpu + after.children_system - before.children_system}


def main() -> None:
    """Write every table, report it as often as asked, and keep all times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the times")
    parser.add_argument("--trials", default="100,1000,10000,100000", help="sizes of the tables")
    parser.add_argument("--repeats", type=int, default=3, help="reports of each table")
    arguments = parser.parse_args()
    arms = []
    with tempfile.TemporaryDirectory() as folder:
        for trials in map(int, arguments.trials.split(",")):
            table, report = Path(folder) / f"{trials}.csv", Path(folder) / f"{trials}-report"
            write_table(table, trials)
            words = [sys.executable, "-m", "lorasweep", "report", "--table", str(table)]
            times = [measure([*words, "--out", str(report)]) for _ in range(arguments.repeats)]
            page = (report / "report.html").stat().st_size
            arms.append({"trials": trials, "page_bytes": page, "runs": times})
            print(f"{trials} trials: {min(run['wall_s'] for run in times):.1f} s")
    content = {"environment": environment(), "arms": arms}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
