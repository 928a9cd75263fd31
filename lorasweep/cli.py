"""Command line: parse, call, print.

Heavy libraries are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lorasweep
from lorasweep.errors import LorasweepError, SpecError, in_a_line, is_of_the_machine
from lorasweep.service.options import SweepOptions, with_sweep_options
from lorasweep.service.terminal import check_names, prepare_streams, use_utf8

COMMANDS = ("tune", "plan", "data", "status", "report", "export")

# Set to print the traceback of errors that are a sentence otherwise.
DEBUG = "LORASWEEP_DEBUG"


class _Commands(TyperGroup):
    """Commands that say so when Ctrl-C ends them; typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("lorasweep: stopped", file=sys.stderr)
            raise typer.Exit(130) from None
        except EOFError as error:  # of which typer would say "Aborted!" and no more
            raise RuntimeError(f"a file ended too early ({error})") from error


app = typer.Typer(
    name="lorasweep",
    cls=_Commands,
    help="Sweep LoRA finetuning with Ray: what was learned, what was forgotten, what mattered.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lorasweep {lorasweep.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
@with_sweep_options
def tune(
    options: SweepOptions,
    out: Annotated[Path | None, typer.Option(help="Results folder; default results/NAME.")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster: 'auto' or HOST:PORT to drive it from here, http://HOST:8265 to "
            "submit the sweep as a job. Default RAY_ADDRESS, else this machine."
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Also merge the best adapter into the base: best/lora-merged, an ordinary "
            "transformers folder.",
        ),
    ] = False,
) -> None:
    """Search, train, measure and report; run it again to resume."""
    from lorasweep.service.build import build_sweep
    from lorasweep.service.sweep import run_sweep

    spec = build_sweep(options)
    address = address or os.environ.get("RAY_ADDRESS")
    folder = out or Path("results") / spec.name
    if address is not None and address.startswith(("http://", "https://")):
        from lorasweep.service.jobs import submit_sweep

        raise typer.Exit(submit_sweep(spec, folder, address, merge=merge))
    raise typer.Exit(run_sweep(spec, folder, address, merge=merge))


@app.command()
@with_sweep_options
def plan(
    options: SweepOptions,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Also measure how many trials should share a base, on this machine.",
        ),
    ] = False,
    throughput: Annotated[
        float | None,
        typer.Option(
            metavar="TOKENS_PER_S_PER_GPU",
            help="Assumed speed; by default derived from the paper's measurement.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate what a sweep takes: trials, parameters, FLOPs, memory, hours; start nothing."""
    from lorasweep.service.build import build_sweep
    from lorasweep.service.display import show_plan, show_slots
    from lorasweep.service.plan import plan_sweep
    from lorasweep.service.slots import measure_slots

    spec = build_sweep(options)
    planned = plan_sweep(spec, throughput)
    if not as_json:
        show_plan(planned)
    measured = measure_slots(spec) if measure else None
    if as_json:
        hidden = set() if measure else {"measured"}
        values = planned.model_copy(update={"measured": measured})
        typer.echo(json.dumps(values.model_dump(mode="json", exclude=hidden), indent=2))
    elif measured is not None:
        show_slots(measured)


@app.command()
@with_sweep_options
def data(
    options: SweepOptions,
    examples: Annotated[
        int, typer.Option("--examples", "-n", min=0, help="How many to print.")
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with token ids.")] = False,
) -> None:
    """Show training examples as they will be trained, and which tokens carry loss."""
    from lorasweep.service.build import build_sweep
    from lorasweep.service.display import show_data
    from lorasweep.service.examples import view_data

    views = view_data(build_sweep(options), examples)
    if as_json:
        typer.echo(json.dumps([view.model_dump(mode="json") for view in views], indent=2))
    else:
        show_data(views)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results/default"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the progress of a sweep; also while it runs."""
    from lorasweep.service.display import show_status
    from lorasweep.service.status import status_of

    state = status_of(folder)
    if as_json:
        typer.echo(json.dumps(state.model_dump(mode="json"), indent=2))
    else:
        show_status(state)


@app.command()
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Results folders, several as one; default results/default."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Trials made elsewhere, instead of a folder."),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="With --table: the columns that were searched, such as 'lr,rank'; without it, "
            "each known one that differs between trials.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the report; default FOLDER/report, results/report of several, "
            "FILE-report of a table."
        ),
    ] = None,
) -> None:
    """Write the report of one sweep or several, or of a table; also while a sweep runs."""
    from lorasweep.service.report import write_reports

    for line in write_reports(folders or [], table=table, space=space, out=out):
        typer.echo(line)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results/default"),
    optuna: Annotated[
        Path | None,
        typer.Option(metavar="FILE.db", help="Optuna studies in SQLite, one for each study."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="All trials, as `report --table` reads them."),
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="The same in typed columns.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow tracking server or store, a run for each trial."),
    ] = None,
    wandb: Annotated[
        str | None,
        typer.Option(
            metavar="[ENTITY/]PROJECT", help="Weights & Biases project, a run for each trial."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Export the trials to other tools; several outputs may be given at once."""
    from lorasweep.service.export import export as write

    for line in write(
        folder,
        optuna=optuna,
        csv=csv,
        parquet=parquet,
        mlflow=mlflow,
        wandb=wandb,
        force=force,
    ):
        typer.echo(line)


def main() -> None:
    """Run the command line; an error is one sentence on stderr and an exit code.

    An error that lorasweep did not foresee keeps its traceback, above the sentence.
    """
    prepare_streams()
    use_utf8()
    # OpenMP threads that spin for long while waiting are fifty times slower once another process
    # needs one of their cores; threads that never spin are always slow. torch reads this when it is
    # loaded, here and in the workers that Ray starts on this machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        check_names()
        app()
    except LorasweepError as error:
        _end(error.problems if isinstance(error, SpecError) else (str(error),), error.exit_code)
    except KeyboardInterrupt:
        _end(("stopped",), 130)
    except OSError as error:
        if not is_of_the_machine(error):
            _end((_unforeseen(error),), 1, traced=True)
        name = f"{error.filename}: " if error.filename else ""
        _end(
            (
                f"{name}a file cannot be read or written ({error.strerror}); mend that and run the "
                f"same command again ({DEBUG}=1 shows where it happened)",
            ),
            1,
        )
    except Exception as error:  # the last to see it
        _end((_unforeseen(error),), 1, traced=True)


def _end(sentences: tuple[str, ...], code: int, *, traced: bool = False) -> None:
    """Print sentences, after the traceback of the error at hand if it is wanted, and exit."""
    if traced or os.environ.get(DEBUG):
        traceback.print_exc()
    for sentence in sentences:
        print(f"lorasweep: {sentence}", file=sys.stderr)
    sys.exit(code)


def _unforeseen(error: Exception) -> str:
    return (
        f"failed with {type(error).__name__}: {in_a_line(error) or 'no text'}; this is a fault of "
        "lorasweep or of a library, please report it with the traceback above"
    )
