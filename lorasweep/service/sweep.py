"""From the words of the command line to a sweep, its run and its report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from lorasweep.analysis.best import find_best
from lorasweep.analysis.configurations import configurations
from lorasweep.errors import SpecError
from lorasweep.report.render import write_report
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.space import Axis, parse_space
from lorasweep.spec.sweep import SweepSpec, override, parse_sweep, read_yaml
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, load_results


def assemble(
    sweep: Path | None,
    *,
    space: str | None,
    model: str | None,
    data: str | None,
    method: str | None,
    trials: int | None,
    slots: str | None,
    seed: int | None,
    assignments: list[str],
) -> SweepSpec:
    """Put a sweep together: file or built-in, then options, then --set; the later ones win.

    Raises:
        SpecError: with all mistakes at once.
    """
    content = read_yaml(sweep) if sweep is not None else default_sweep(model, data)
    for path, value in (("model.path", model), ("data.path", data)):
        if value is not None:
            override(content, [f"{path}={value}"])
    if slots is not None:
        content["slots"] = int(slots) if slots.isdigit() else slots
    if seed is not None:
        content["seed"] = seed
    if trials is not None:
        override(content, [f"search.trials={trials}"])
    problems: list[str] = []
    if method not in {None, "lora"}:
        problems.append(f"--method: must be lora, got {method!r}")
    if space is not None:
        try:
            content["space"] = parse_space(space, lambda name: _range_of(content, name))
        except SpecError as error:
            problems += error.problems
            content["space"] = {"lr": True}
    try:
        override(content, assignments)
    except SpecError as error:
        problems += error.problems
    try:
        spec = parse_sweep(content)
    except SpecError as error:
        raise SpecError([*problems, *error.problems]) from None
    if problems:
        raise SpecError(problems)
    return spec


def _range_of(content: dict[str, Any], name: str) -> Axis | Any | None:
    """Give the range that the sweep at hand has for an axis."""
    space = content.get("space")
    return space.get(name) if isinstance(space, dict) else None


def run_sweep(spec: SweepSpec, folder: Path, address: str | None) -> int:
    """Run a sweep and report on it.

    Returns:
        The exit code: 0, 1 if trials failed, 130 if it was interrupted.
    """
    from lorasweep.tune.driver import tune_sweep

    console = Console(stderr=True)
    ending = tune_sweep(spec, folder, console, address)
    results = load_results(folder)
    keep_best(results, SweepPaths(folder))
    report = write_report(results, SweepPaths(folder).report)
    if ending.state == "interrupted":
        console.print(
            f"interrupted after {ending.ran} trials; run the same command again to go on",
            highlight=False,
        )
    elif ending.ran == 0:
        console.print("nothing to do: every trial of this sweep has ended", highlight=False)
    for line in closing(folder, report.markdown):
        print(line)
    if ending.state == "interrupted":
        return 130
    return 1 if any(trial.status == "FAILED" for trial in results.trials) else 0


def keep_best(results: SweepResults, paths: SweepPaths) -> None:
    """Leave each method's best adapter where a user looks for it, chosen as the report chooses."""
    for best in find_best(configurations(results.trials)):
        target = paths.best(best.method)
        temporary = target.with_name(f".{target.name}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(paths.trial(best.winner.trial).adapter, temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)


def closing(folder: Path, report: Path) -> list[str]:
    """Say in a few lines what came out and where it lies."""
    paths, results = SweepPaths(folder), load_results(folder)
    counts: dict[str, int] = {}
    for trial in results.trials:
        counts[trial.status.lower()] = counts.get(trial.status.lower(), 0) + 1
    lines = [", ".join(f"{count} {status}" for status, count in counts.items()) or "no trials"]
    lines.append(f"report   {report}")
    lines.append(f"journal  {paths.journal}")
    for method in sorted({trial.method for trial in results.trials}):
        if paths.best(method).is_dir():
            lines.append(f"best     {paths.best(method)}")
    return lines
