"""Write docs/cli.md from --help and what the code declares; a test checks the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from lorasweep.cli import COMMANDS, app
from lorasweep.spec.space import DEFAULT_AXES, Axis, Range
from lorasweep.spec.studies import factor
from lorasweep.spec.trial import HYPERPARAMETERS, OF_METHOD
from lorasweep.store.scores import MEASURES

PAGE = Path(__file__).with_name("cli.md")
ABOUT = """## Hyperparameters

What `--space` may search and `hyperparameters` in a sweep file fixes. An axis that is named without
a range takes the default axis. A range LOW..HIGH needs a scale; the others take levels only. Full
finetuning takes LoRA's learning rates times {lr:g}.

| name | methods | default | default axis | scale | unit | |
|---|---|---|---|---|---|---|
"""
MEASURED = """## Scores and counts

What is measured on a trial, under the same name in journal, tables, exports and, of scores, gauges.

| name | better | unit | |
|---|---|---|---|
"""
_BETTER = {True: "higher", False: "lower", None: ""}


def page() -> str:
    """Build the reference: the root's help and each command's, as the terminal shows them."""
    runner = CliRunner(env={"COLUMNS": "96", "TERMINAL_WIDTH": "96"})
    parts = ["# Command line\n\nMade from `--help` by `make docs`.\n"]
    for words in ([], *([name] for name in COMMANDS)):
        shown = runner.invoke(app, [*words, "--help"], prog_name="lorasweep").output.strip()
        title = f"## lorasweep {words[0]}\n\n" if words else ""
        parts.append(f"{title}```\n{shown}\n```\n")
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _hyperparameters())
    measures = "".join(
        f"| `{name}` | {_BETTER[measure.higher_is_better]} | {measure.unit} | {measure.help} |\n"
        for name, measure in MEASURES.items()
    )
    about = ABOUT.format(lr=factor("lr", "full"))
    return "\n".join(parts) + "\n" + about + rows + "\n" + MEASURED + measures


def _hyperparameters() -> Iterator[tuple[str, ...]]:
    """Describe each hyperparameter by its declaration."""
    for name, declared in HYPERPARAMETERS.items():
        fields = {m: k.model_fields[name] for m, k in OF_METHOD.items() if name in k.model_fields}
        defaults = dict.fromkeys(str(field.default) for field in fields.values())
        scale = declared.scale or ""
        yield (
            f"`{name}`",
            ", ".join(fields),
            ", ".join(defaults),
            _axis(DEFAULT_AXES[name]),
            scale,
            declared.unit,
            declared.help,
        )


def _axis(axis: Axis) -> str:
    if isinstance(axis, Range):
        return f"{axis.low:g}..{axis.high:g}"
    return ", ".join(str(level) for level in axis.values)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
