"""The command-line options from which a sweep is built, declared once for `tune` and `plan`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

Others = ParamSpec("Others")


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """Values of the shared options of one command."""

    sweep: Annotated[
        Path | None, typer.Argument(help="Sweep file; without one, a built-in sweep.")
    ] = None
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            help="Axes to search, such as 'lr,targets,rank' or 'lr=1e-5..1e-2,rank=4|16'; "
            "'full.lr=1e-6..1e-4' is for one method.",
        ),
    ] = None
    model: Annotated[
        str | None, typer.Option("--model", help="Base model: a hub name or a local folder.")
    ] = None
    data: Annotated[
        str | None,
        typer.Option("--data", help="Training data: a hub name, a local file or a folder."),
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Finetuning methods: lora, full, or lora,full. A sweep written for the other "
            "method is converted, its learning rates scaled.",
        ),
    ] = None
    trials: Annotated[int | None, typer.Option("--trials", help="Configurations to try.")] = None
    slots: Annotated[
        str | None,
        typer.Option(
            "--slots",
            metavar="auto|N",
            help="Most trials that share one base; auto measures how many are worth it, 1 runs "
            "every trial as a job of its own.",
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the search and its trials.")
    ] = None
    allow_code_execution: Annotated[
        bool,
        typer.Option(
            "--allow-code-execution",
            help="Allow tasks that run the model's programs, in the sandbox.",
        ),
    ] = False
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Set any field of the sweep file."),
    ] = None


def with_sweep_options(
    command: Callable[Concatenate[SweepOptions, Others], None],
) -> Callable[..., None]:
    """Add a sweep's options to a command, which gets them together as its first argument."""
    names = [field.name for field in fields(SweepOptions)]
    shared = inspect.signature(SweepOptions, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(*args: Others.args, **given: Others.kwargs) -> None:
        options: dict[str, Any] = {name: given.pop(name) for name in names}
        command(SweepOptions(**options), *args, **given)

    # Typer reads a command's options from its signature.
    parameters = [*shared.values(), *own]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run
