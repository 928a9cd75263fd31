"""Write docs/cli.md from --help; a test checks that it is up to date."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from lorasweep.cli import COMMANDS, app

PAGE = Path(__file__).with_name("cli.md")


def page() -> str:
    """Give the reference: the root's help and each command's, as the terminal shows them."""
    runner = CliRunner(env={"COLUMNS": "96", "TERMINAL_WIDTH": "96"})
    parts = ["# Command line\n\nMade from `--help` by `make docs`.\n"]
    for words in ([], *([name] for name in COMMANDS)):
        shown = runner.invoke(app, [*words, "--help"], prog_name="lorasweep").output.strip()
        title = f"## lorasweep {words[0]}\n\n" if words else ""
        parts.append(f"{title}```\n{shown}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
