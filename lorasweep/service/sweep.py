"""Run a sweep and leave its report, its best weights and a few closing words."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console

from lorasweep.analysis.best import find_best
from lorasweep.analysis.configurations import configurations
from lorasweep.report.render import write_report
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, load_results


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
    """Leave each method's best weights where a user looks for them, chosen as the report does."""
    for part in results.parts:
        for best in find_best(configurations(part.trials)):
            trial = paths.trial(best.winner.trial)
            source = trial.adapter if trial.adapter.is_dir() else trial.model
            target = paths.best(best.method, part.domain)
            temporary = target.with_name(f".{target.name}")
            temporary.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(source, temporary)
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
    lines.append(f"page     {report.with_name('report.html')}")
    lines.append(f"journal  {paths.journal}")
    for domain, method in sorted({(trial.domain, trial.method) for trial in results.trials}):
        if paths.best(method, domain).is_dir():
            lines.append(f"best     {paths.best(method, domain)}")
    return lines
