"""Sweep a real model on real text, then check everything that was said of it by plain PEFT.

    python benchmarks/real.py --model FOLDER --data FILE [--data FILE ...] [--out FILE.json]

The data are JSONL, gzipped or not, with question and answer (GSM8K), prompt and canonical_solution
(HumanEval), prompt and response, or messages; the last 16 rows are held out. Eight trials of 20
steps run through the command line; `plain_checks.py` then reads the results with transformers and
PEFT alone. The exit code is 1 if one of its checks fails.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from lorasweep.store.environment import environment
from lorasweep.store.results import load_results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HELDOUT = 16
SHOWN = 20
STEPS = 20
SEQ_LEN = 256
SPACE: dict[str, list[Any]] = {
    "lr": [3e-4, 3e-3],
    "targets": ["attention", "all"],
    "rank": [4, 16],
}
TAIL = 40  # lines shown of a command that failed

Row = dict[str, Any]


def read_lines(data: Path) -> list[bytes]:
    """Read the lines of a file as they are; only line feeds end a line of JSON."""
    content = data.read_bytes()
    content = gzip.decompress(content) if data.suffix == ".gz" else content
    return [line + b"\n" for line in content.split(b"\n") if line.strip()]


def split_rows(data: Path, folder: Path) -> tuple[Path, Path]:
    """Split a file into rows to train on and rows held out.

    Raises:
        SystemExit: there are too few rows.
    """
    lines = read_lines(data)
    if len(lines) < HELDOUT + SHOWN:
        raise SystemExit(
            f"--data: {data} must have {HELDOUT + SHOWN} rows at least, got {len(lines)}"
        )
    train, heldout = folder / "train.jsonl", folder / "heldout.jsonl"
    train.write_bytes(b"".join(lines[:-HELDOUT]))
    heldout.write_bytes(b"".join(lines[-HELDOUT:]))
    return train, heldout


def sweep_content(model: Path, train: Path, heldout: Path, name: str) -> Row:
    """Write the sweep; nothing in it stops a trial early or adds one."""
    columns = json.loads(train.read_bytes().split(b"\n", 1)[0])
    humaneval = {"prompt": "prompt", "response": "canonical_solution"}
    named = humaneval if "canonical_solution" in columns else {}
    return {
        "name": f"real-{name}",
        "question": "Is what a sweep says of a real model what plain PEFT finds?",
        "model": {"path": str(model)},
        "data": {
            "path": str(train),
            "heldout": str(heldout),
            "heldout_examples": HELDOUT,
            "seq_len": SEQ_LEN,
            **named,
        },
        "space": SPACE,
        "hyperparameters": {"batch_size": 2},
        "train": {"steps": STEPS},
        "search": {"algorithm": "grid", "scheduler": "none", "confirm": 0},
        # No source tasks: on a CPU, sampling the base takes longer than the sweep itself.
        "evaluate": {"learning": ["response_accuracy"], "source": [], "batch_size": 8},
        "seed": 0,
    }


def run(words: list[str], log: Path) -> str:
    """Run a command, its standard error in a file.

    Returns:
        Its standard output.

    Raises:
        SystemExit: it failed; the tail of the file says why.
    """
    # A Ray of its own, and nothing but local files.
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    variables.pop("RAY_ADDRESS", None)
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = [*done.stdout.splitlines(), *log.read_text(encoding="utf-8").splitlines()]
        failed = f"{' '.join(words)} failed with exit code {done.returncode}, see above"
        raise SystemExit("\n".join([*lines[-TAIL:], failed]))
    return done.stdout


def show_examples(sweep: Path, folder: Path) -> Path:
    """Let the command line show the first examples as it trains them, and keep them in a file."""
    words = ["-m", "lorasweep", "data", str(sweep), "--examples", str(SHOWN), "--json"]
    (domain,) = json.loads(run(words, folder / "data.log"))
    file = folder / "shown.json"
    file.write_text(json.dumps(domain["shown"]), encoding="utf-8")
    return file


def run_arm(model: Path, data: Path, folder: Path) -> Row:
    """Sweep one file and check the sweep, in an empty folder."""
    folder.mkdir()
    train, heldout = split_rows(data, folder)
    sweep, results = folder / "sweep.yaml", folder / "results"
    content = sweep_content(model, train, heldout, data.name.partition(".")[0])
    sweep.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    shown = show_examples(sweep, folder)

    load, began = os.getloadavg(), time.perf_counter()
    run(["-m", "lorasweep", "tune", str(sweep), "--out", str(results)], folder / "tune.log")
    swept = time.perf_counter()
    checked = folder / "checked.json"
    files = {"model": model, "results": results, "train": train, "heldout": heldout}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    run(
        [
            *(str(HERE / "plain_checks.py"), *options, "--shown", str(shown)),
            *("--seq-len", str(SEQ_LEN), "--out", str(checked)),
        ],
        folder / "plain.log",
    )
    found = load_results(results)
    return {
        "arm": data.name.partition(".")[0],
        "data": {
            "file": data.name,
            "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
            "rows": len(read_lines(data)),
            "heldout": HELDOUT,
        },
        "sweep": {key: content[key] for key in ("space", "hyperparameters", "train", "seed")},
        "notes": list(found.notes),
        "sweep_s": swept - began,
        "checks_s": time.perf_counter() - swept,
        # Of the whole machine, over 1, 5 and 15 minutes, before the sweep and after the checks.
        "load_average": {"before": load, "after": os.getloadavg()},
        "trials": [
            {
                "trial": trial.trial,
                **{axis: trial.hyperparameters[axis] for axis in SPACE},
                "status": trial.status,
                "train_loss": trial.train_loss,
                "response_loss": trial.response_loss,
                "response_accuracy": trial.learning,
            }
            for trial in found.trials
        ],
        **json.loads(checked.read_text(encoding="utf-8")),
    }


def table(arm: Row) -> str:
    """Write an arm's trials, checks and answers as lines of text."""
    lines = [
        f"{arm['arm']}: {arm['data']['rows']} rows, sweep {arm['sweep_s']:.0f} s, "
        f"checks {arm['checks_s']:.0f} s, load {arm['load_average']['before'][0]:.1f}",
        f"{'lr':>8} {'targets':<10} {'rank':>4} {'response loss':>13} {'accuracy':>8}",
    ]
    lines += [
        f"{t['lr']:>8.0e} {t['targets']:<10} {t['rank']:>4} "
        f"{_cell(t['response_loss'])} {_cell(t['response_accuracy'])}"
        for t in arm["trials"]
    ]
    lines += [
        f"{'holds' if c['holds'] else 'FAILS':<6} {c['check']}: sweep {c['sweep']:.7g}, "
        f"plain {c['plain']:.7g}, tolerance {c['tolerance']:g}"
        for c in arm["checks"]
    ]
    for answers in arm["answers"]:
        lines += [f"{name:<9}{answers[name]!r}" for name in ("prompt", "expected", "base", "best")]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-':>13}" if value is None else f"{value:>13.4f}"


def main() -> None:
    """Run an arm for each file, write the result and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--data", type=Path, action="append", required=True, help="JSONL file")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lorasweep-real-") as temporary:
        arms = []
        for number, data in enumerate(given.data):
            arm = run_arm(given.model.resolve(), data.resolve(), Path(temporary) / str(number))
            print(table(arm), flush=True)
            arms.append(arm)
    result = {"environment": environment(), "model": given.model.name, "arms": arms}
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", "utf-8")
    failed = [check for arm in arms for check in arm["checks"] if not check["holds"]]
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
