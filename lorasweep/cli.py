"""The command line: parse, call, print.

Heavy libraries are imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import lorasweep
from lorasweep.errors import LorasweepError, SpecError

COMMANDS = ("tune", "plan", "status", "report")

app = typer.Typer(
    name="lorasweep",
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


Sweep = Annotated[Path | None, typer.Argument(help="Sweep file; without one, a built-in sweep.")]
Axes = Annotated[
    str | None,
    typer.Option(
        "--space", help="Axes to search, such as 'lr,targets,rank' or 'lr=1e-5..1e-2,rank=4|16'."
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", help="Base model: a hub name or a local folder.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Training data: a hub name, a local file or a folder."),
]
Method = Annotated[str | None, typer.Option("--method", help="Finetuning method: lora.")]
Trials = Annotated[int | None, typer.Option("--trials", help="Configurations to try.")]
Slots = Annotated[
    str | None,
    typer.Option(
        "--slots",
        metavar="auto|N",
        help="Trials that share one base at most; auto measures how many pay, 1 gives every trial "
        "a job of its own.",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the search and its trials.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Set any field of the sweep file."),
]


@app.command()
def tune(
    sweep: Sweep = None,
    space: Axes = None,
    model: Model = None,
    data: Data = None,
    method: Method = None,
    trials: Trials = None,
    slots: Slots = None,
    seed: Seed = None,
    assignments: Assignments = None,
    out: Annotated[Path | None, typer.Option(help="Results folder; default results/NAME.")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster: 'auto' or HOST:PORT to drive it from here, http://HOST:8265 to "
            "submit the sweep as a job. Default RAY_ADDRESS, else this machine."
        ),
    ] = None,
) -> None:
    """Search, train, measure and report; run it again to go on."""
    from lorasweep.service.sweep import assemble, run_sweep

    spec = assemble(
        sweep,
        space=space,
        model=model,
        data=data,
        method=method,
        trials=trials,
        slots=slots,
        seed=seed,
        assignments=assignments or [],
    )
    address = address or os.environ.get("RAY_ADDRESS")
    folder = out or Path("results") / spec.name
    if address is not None and address.startswith(("http://", "https://")):
        from lorasweep.service.jobs import submit_sweep

        raise typer.Exit(submit_sweep(spec, folder, address))
    raise typer.Exit(run_sweep(spec, folder, address))


@app.command()
def plan(
    sweep: Sweep = None,
    space: Axes = None,
    model: Model = None,
    data: Data = None,
    method: Method = None,
    trials: Trials = None,
    slots: Slots = None,
    seed: Seed = None,
    assignments: Assignments = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many trials share a base, from a few steps on this machine; run no sweep."""
    from lorasweep.service.plan import plan_sweep, show_plan
    from lorasweep.service.sweep import assemble

    facts = plan_sweep(
        assemble(
            sweep,
            space=space,
            model=model,
            data=data,
            method=method,
            trials=trials,
            slots=slots,
            seed=seed,
            assignments=assignments or [],
        )
    )
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        show_plan(facts)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="Results folder.")] = Path("results/default"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a sweep has come; also while it runs."""
    from lorasweep.service.status import show_status, status_of

    facts = status_of(folder)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        show_status(facts)


@app.command()
def report(
    folders: Annotated[list[Path] | None, typer.Argument(help="Results folder.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="CSV of trials made elsewhere, instead of a folder.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="With --table: the hyperparameters that were searched.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
) -> None:
    """Write the report: Markdown, CSV and figures; also while a sweep runs."""
    from lorasweep.service.status import write_reports

    for line in write_reports(folders or [], table=table, space=space, out=out):
        typer.echo(line)


def main() -> None:
    """Run the command line; an error is one sentence on stderr and an exit code."""
    # Threads that spin for long while they wait for one another are fifty times slower once
    # another process wants one of their cores; those that do not spin are slow always. Read when
    # torch is loaded, here and in the workers that Ray starts on this machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        app()
    except LorasweepError as error:
        sentences = error.problems if isinstance(error, SpecError) else (str(error),)
        for sentence in sentences:
            print(f"lorasweep: {sentence}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("lorasweep: stopped", file=sys.stderr)
        sys.exit(130)
