"""The report as one HTML file, which loads nothing and sends nothing.

Text and tables are in `page/report.html.jinja` and need no script: question, answers, tables,
commands (`content.py` collects them). Figures are embedded as JSON (`payload.py`), and the scripts
in `page/` draw them: `base` elements and numbers, `scale` axes, `plot` what a plot does
when pointed at or focused, `panels` its kinds, `data` the embedded trials, `figures` the pictures
that Python made, `trials` the table, `page` the start. The page's policy lets the browser run that
one script and no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from lorasweep.report.content import DomainContent
from lorasweep.report.payload import embed
from lorasweep.report.picture import Picture
from lorasweep.report.wording import UNKNOWN, compact, interval, number, sentence, shorten, signed
from lorasweep.store.results import SweepResults

SCRIPTS = (
    *("base", "scale", "plot", "panels", "data"),
    *("figures", "trials", "page"),
)
# Marks that change the direction of all text after them.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LONGEST = 5000
# A number or an interval, unlike a name that happens to have a hyphen.
_ONE = r"-?[\d.,]+(?:e[+-]?\d+)?%?"
_NUMBERS = re.compile(rf"(?:above |below )?{_ONE}(?: to {_ONE})?")


def render_page(
    results: SweepResults,
    contents: Sequence[DomainContent],
    drawn: Sequence[Sequence[Picture]],
    *,
    warnings: Iterable[str],
    setup: Iterable[tuple[str, str]],
    commands: Iterable[str],
) -> str:
    """Write the page.

    Args:
        contents: text and tables, domain by domain; drawn: the figures of each.
        warnings: of the whole sweep.
        setup: how the sweep was made, in pairs of words and values.
        commands: those that make the trials again and this report from them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    style, script = page_style(), page_script()
    data, trials = embed(results.parts, drawn)
    environment = Environment(
        loader=PackageLoader("lorasweep.report", "page"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": lambda text: shorten(signed(text) if _NUMBERS.fullmatch(text) else text),
        "number": lambda value: signed(number(value)),
        "compact": lambda value: signed(compact(value)),
        "bounds": lambda of: signed(interval(of.low, of.high)),
        "sentence": lambda clause: sentence(clause) if clause else "",
    }
    return environment.get_template("report.html.jinja").render(
        results=results,
        trials=trials,
        parts=contents,
        unknown=UNKNOWN,
        warnings=list(warnings),
        setup=list(setup),
        commands="\n".join(commands),
        # Ours, and embedded as they are; everything else is escaped on its way into the page.
        style=Markup(style),
        script=Markup(script),
        data=Markup(data),
        policy=_policy(style, script),
    )


def page_style() -> str:
    """Read the page's style sheet."""
    return (files("lorasweep.report") / "page" / "page.css").read_text(encoding="utf-8")


def page_script() -> str:
    """Join the page's scripts into one that leaves no name behind."""
    folder = files("lorasweep.report") / "page"
    texts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return "\n".join(['(() => {\n"use strict";', *texts, "})();"])


def _plain(value: Any) -> Any:
    """Keep a name from turning the text around it, and a book from filling the page."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
    return _TURNING.sub("\N{REPLACEMENT CHARACTER}", text)


def _policy(style: str, script: str) -> str:
    """Allow the embedded style and script by what they contain, and nothing else."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
