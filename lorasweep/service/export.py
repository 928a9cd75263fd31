"""Export a sweep's trials to Optuna's storage, to tables and to experiment trackers.

Mistakes in any of the outputs are reported before the first of them is written.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lorasweep.errors import SpecError, UsageError
from lorasweep.service.finished import load_finished
from lorasweep.store.paths import write_atomically
from lorasweep.store.results import TrialResult
from lorasweep.store.table import format_table, lay_out_table


def export(
    folder: Path,
    *,
    optuna: Path | None = None,
    csv: Path | None = None,
    parquet: Path | None = None,
    mlflow: str | None = None,
    wandb: str | None = None,
    force: bool = False,
) -> list[str]:
    """Write a sweep's trials to every output that is named.

    Args:
        folder: results folder, finished or not.
        optuna, csv, parquet: files; mlflow: tracking URI; wandb: PROJECT or ENTITY/PROJECT.
        force: replace files that exist.

    Returns:
        A line to print for each output.

    Raises:
        SpecError: no output is named, or a file exists or clashes; all mistakes at once.
        UsageError: a library is missing, the results cannot be read or an output not written.
    """
    files = {"--optuna": optuna, "--csv": csv, "--parquet": parquet}
    _check_files({option: path for option, path in files.items() if path is not None}, force)
    if not any((optuna, csv, parquet, mlflow, wandb)):
        raise SpecError(
            ["export: must be given an output: --optuna, --csv, --parquet, --mlflow or --wandb"]
        )
    arrow = library("pyarrow", "pyarrow", "--parquet") if parquet else None
    mlflow_library = library("mlflow", "mlflow-skinny", "--mlflow") if mlflow else None
    wandb_library = library("wandb", "wandb", "--wandb") if wandb else None
    sweep = load_finished(folder)
    trials = sweep.results.trials
    lines = []
    if optuna is not None:
        from lorasweep.service.export_optuna import write_studies

        with replacing(optuna, "--optuna") as temporary:
            studies = write_studies(sweep, temporary)
        lines.append(f"optuna   {optuna} ({', '.join(studies)}{sweep.left_out})")
    if csv is not None:
        with _writing(csv, "--csv"):
            write_atomically(csv, format_table(trials))
        lines.append(f"csv      {csv}")
    if parquet is not None and arrow is not None:
        with replacing(parquet, "--parquet") as temporary:
            library("pyarrow.parquet", "pyarrow", "--parquet").write_table(
                _arrow_table(trials, arrow), temporary
            )
        lines.append(f"parquet  {parquet}")
    if mlflow is not None and mlflow_library is not None:
        from lorasweep.service.export_runs import log_to_mlflow

        lines.append(f"mlflow   {log_to_mlflow(sweep, mlflow, mlflow_library)}{sweep.left_out}")
    if wandb is not None and wandb_library is not None:
        from lorasweep.service.export_runs import log_to_wandb

        lines.append(f"wandb    {log_to_wandb(sweep, wandb, wandb_library)}{sweep.left_out}")
    return lines


def library(module: str, package: str, option: str) -> ModuleType:
    """Import an optional library.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(
            f"{option}: needs {package}, which is not installed; pip install {package}"
        ) from None


def _check_files(files: dict[str, Path], force: bool) -> None:
    problems = []
    for option, path in files.items():
        if path.is_dir():
            problems.append(f"{option}: must be a file, and {path} is a folder")
        elif path.exists() and not force:
            problems.append(f"{option}: {path} exists already; --force replaces it")
        elif sum(path == other for other in files.values()) > 1:
            problems.append(f"{option}: each output needs a file of its own, got {path} twice")
    if problems:
        raise SpecError(problems)


@contextmanager
def _writing(path: Path, option: str) -> Iterator[None]:
    """Turn an error in writing a file into one sentence."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{option}: {path} cannot be written ({error.strerror or error})"
        ) from None


@contextmanager
def replacing(path: Path, option: str) -> Iterator[Path]:
    """Open a temporary file that replaces another one when it is complete."""
    with _writing(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / "complete"
            yield temporary
            # Or a crash after the rename could leave an empty file under the final name.
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)


def _arrow_table(trials: Iterable[TrialResult], arrow: ModuleType) -> Any:
    """Convert trials to typed columns; a column of text and numbers, as alpha, becomes text."""
    header, rows = lay_out_table(trials)
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    typed = [_typed(name, list(values)) for name, values in zip(header, columns, strict=True)]
    return arrow.table(
        {
            name: arrow.array(values, type=kind)
            for name, (values, kind) in zip(header, typed, strict=True)
        }
    )


def _typed(name: str, values: list[Any]) -> tuple[list[Any], str | None]:
    """Choose a column's type; None leaves it to its values."""
    known = [value for value in values if value is not None]
    if not known:
        return values, "string" if name == "error" else "double"
    if any(isinstance(value, str) for value in known):
        return [None if value is None else str(value) for value in values], "string"
    return values, None
