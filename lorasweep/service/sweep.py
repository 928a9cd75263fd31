"""Run a sweep, write its report, keep its best weights and print a summary."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from pathlib import Path

from rich.console import Console

from lorasweep.errors import LorasweepError, in_a_line
from lorasweep.report.render import ReportPaths, write_report
from lorasweep.report.wording import plural
from lorasweep.service.merged import check_merge, merge_best
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.best import find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.kept import checks_of_best, describe
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, load_results


def run_sweep(spec: SweepSpec, folder: Path, address: str | None, *, merge: bool = False) -> int:
    """Run a sweep and report on it.

    Args:
        folder: for the results.
        address: of a Ray cluster; None reads RAY_ADDRESS, or starts Ray here.
        merge: also merge the best adapters into their base.

    Returns:
        The exit code: 0, 1 if trials failed or kept weights are not those that were measured, 130
        if it was interrupted.

    Raises:
        UsageError: something the user can fix before it starts.
        LorasweepError: the report or a merged model cannot be written.
    """
    if merge:
        check_merge(spec)
    from lorasweep.tune.driver import tune_sweep

    console = Console(stderr=True)
    ending = tune_sweep(spec, folder, console, address)
    results, paths = load_results(folder), SweepPaths(folder)
    best = keep_best(results, paths)  # before the report, which links to them
    try:
        report = write_report(results, paths.report)
    except OSError as error:
        raise LorasweepError(
            f"{paths.report}: the report cannot be written ({error.strerror or error}); once it "
            f"can be, `lorasweep report {shlex.quote(str(folder))}` writes it"
        ) from None
    if ending.state == "interrupted":
        console.print(
            f"interrupted after {plural(ending.ran, 'trial')}; run the same command again to "
            "resume",
            highlight=False,
        )
    elif ending.ran == 0:
        console.print("nothing to do: every trial of this sweep has ended", highlight=False)
    checks = checks_of_best(results)
    for line in (*summary(results, report, paths), *best):
        print(line)
    for check in checks:
        print(f"kept     {describe(check)}")
    if ending.state == "interrupted":
        return 130
    if merge:
        for line in merge_best(results, paths):
            print(line)
    wrong = any(check.status in {"differs", "unloadable"} for check in checks)
    return 1 if wrong or any(trial.status == "FAILED" for trial in results.trials) else 0


def keep_best(results: SweepResults, paths: SweepPaths) -> list[str]:
    """Copy each method's best weights to `best/`, chosen by the report's rule.

    Returns:
        A line for each method: where its weights are, or why they are not there.
    """
    return [
        f"best     {_keep(best.winner.trial, paths, best.method, part.domain)}"
        for part in results.parts
        for best in find_best(configurations(part.trials))
    ]


def _keep(trial: str, paths: SweepPaths, method: str, domain: str) -> str:
    """Copy a trial's weights unless they are there; say where they are, or why they are not."""
    target, name = paths.best(method, domain), paths.best_trial(method, domain)
    files = paths.trial(trial)
    held = name.read_text(encoding="utf-8").strip() if name.is_file() else "another trial"
    if held == trial:
        return str(target)
    source = files.adapter if files.adapter.is_dir() else files.model
    if source.is_dir():
        try:
            _copy(source, target, trial, name.name)
            return str(target)
        except OSError as error:
            reason = (
                f"{source} cannot be copied ({_reason(error)}); fix that and run this command again"
            )
    else:
        reason = f"{files.root} no longer has them"
    earlier = f", which still holds those of {held}" if target.is_dir() else ""
    return f"the weights of trial {trial} are not in {target}{earlier}: {reason}"


def _copy(source: Path, target: Path, trial: str, name: str) -> None:
    """Replace a folder by a copy of another, with a file that names its trial.

    The copy is made beside the target and renamed, so a full disk leaves the earlier weights alone.
    """
    temporary = target.with_name(f".{target.name}")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        (temporary / name).write_text(f"{trial}\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reason(error: OSError) -> str:
    """Extract why a copy failed; `copytree` reports a list with one entry per file."""
    return str(error.args[0][0][2]) if isinstance(error, shutil.Error) else in_a_line(error)


def summary(results: SweepResults, report: ReportPaths, paths: SweepPaths) -> list[str]:
    """Summarise the outcome and where the files are, in a few lines."""
    counts = Counter(trial.status.lower() for trial in results.trials)
    return [
        ", ".join(f"{count} {status}" for status, count in counts.items()) or "no trials",
        f"report   {report.markdown}",
        f"page     {report.page}",
        f"journal  {paths.journal}",
    ]
