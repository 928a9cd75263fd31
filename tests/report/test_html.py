"""The page as a file: complete in itself, closed to hostile names, readable in both themes."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest

from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.sensitivity import importance
from lorasweep.report import payload
from lorasweep.report.figures import pictures
from lorasweep.report.html import SCRIPTS, page_script, page_style
from lorasweep.report.render import write_report
from lorasweep.report.wording import LONGEST
from tests.analysis.planted import planted_grid, sweep, trial
from tests.report import pages

# Attributes with which a page reaches out or runs something.
REACHING = {
    "src",
    "srcset",
    "action",
    "formaction",
    "data",
    "poster",
    "ping",
    "background",
    "style",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(importance, "_effort", lambda _: (8, 2, 4))
    monkeypatch.setattr(importance, "_FULL_TREES", 8)


class Reader(HTMLParser):
    """Collect tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.raw, self.text = [], [], []
        self._open = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._open = (tag, dict(attrs).get("type", ""))
            self.raw.append((*self._open, ""))

    def handle_endtag(self, tag):
        self._open = None if tag in {"script", "style"} else self._open

    def handle_data(self, data):
        if self._open:
            self.raw[-1] = (*self._open, self.raw[-1][2] + data)
        else:
            self.text.append(data)


STATES: dict[str, Any] = {
    "empty": (pages.empty, dict),
    "one trial": (pages.one, dict),
    "everything": (pages.everything, pages.further),
    "hostile": (pages.hostile, pages.hostile_fields),
}


@cache
def rendered(state):
    results, further = STATES[state]
    text = pages.render(results(), **further())
    return text, Reader(text)


@pytest.fixture(params=STATES)
def page(request):
    return rendered(request.param)


def test_a_page_is_complete_in_itself(page):
    text, read = page
    for tag, attributes in read.tags:
        assert tag not in {"iframe", "object", "embed", "img", "base", "form", "audio", "video"}
        assert not REACHING & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        if "href" in attributes:
            assert re.fullmatch(r"#[\w-]+|data:,|[a-z]+\.(csv|json|md)", attributes["href"])
    assert "@import" not in page_style()
    assert "url(" not in page_style()
    assert len(text) - len(read.raw[1][2]) < 300_000


def test_the_policy_allows_the_pages_own_script_and_style_only(page):
    _, read = page
    [policy] = [a["content"] for t, a in read.tags if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    (_, _, style), (_, kind, data), (_, _, script) = read.raw
    assert kind == "application/json"
    assert json.loads(data).keys() == {"parts"}
    for source in (style, script):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_headings_go_down_one_step_at_a_time(page):
    _, read = page
    depths = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert depths[0] == 1
    assert depths.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(depths))
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for _, a in read.tags if a.get("href", "").startswith("#")}
    assert links <= set(ids)


def test_tables_say_what_their_cells_belong_to(page):
    _, read = page
    assert all("scope" in attributes for tag, attributes in read.tags if tag == "th")
    tags = [tag for tag, _ in read.tags]
    assert tags.count("table") == tags.count("caption")


def test_the_parts_stand_in_the_order_in_which_one_asks(page):
    _, read = page
    sections = [a["id"] for tag, a in read.tags if tag == "section" and "id" in a]
    asked = ("question", "answer", "evidence", "caveats", "reproduce")
    assert [name for name in sections if name in asked] == list(asked)


def test_the_scripts_make_no_markup_of_text():
    script = page_script()
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert way not in script
    folder = files("lorasweep.report") / "page"
    assert {f"{name}.js" for name in SCRIPTS} == {
        entry.name for entry in folder.iterdir() if entry.name.endswith(".js")
    }
    assert "</" not in script.replace("</script", "", 0)


def test_embedded_data_cannot_leave_their_element():
    results = pages.hostile()
    drawn = pictures(results, analyse(results))
    text, count = payload.embed([results], [drawn])
    assert count == len(pages.HOSTILE)
    assert not set("<>&\u2028") & set(text)
    assert text.isascii()
    [part] = json.loads(text)["parts"]
    assert part["columns"]["trial"] == list(pages.HOSTILE)
    titles = {panel["title"] for picture in part["pictures"] for panel in picture["panels"]}
    assert set(pages.HOSTILE[:4]) <= titles


def test_numbers_that_json_has_no_word_for_become_null():
    assert payload.tidy([float("nan"), float("inf"), 0.1 + 0.2, 4.0]) == [None, None, 0.3, 4]
    assert len(payload.tidy("x" * 10**6)) == LONGEST


def test_a_cell_as_long_as_a_book_does_not_fill_the_page():
    book = "x" * 10**6
    results = replace(sweep([trial(book, 0.5, lr=0.1, targets=book)]), name=book, question=book)
    assert len(pages.render(results)) < 300_000


def test_the_page_lies_beside_the_rest_and_is_the_same_every_time(tmp_path):
    first, second = (write_report(planted_grid(), tmp_path / name).page for name in "ab")
    assert first.name == "report.html"
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text(encoding="utf-8")
    assert "lorasweep report --table made --space lr,targets,rank" in text


# Contrast, computed from the sheet itself by the formula of WCAG 2.2.


def palette(theme):
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", page_style())
    return {name: dark if theme == "dark" else light for name, light, dark in pairs}


def luminance(colour):
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(theme):
    colours = palette(theme)
    for allocation in ("paper", "raised", "wash"):
        for text in ("ink", "soft", "accent", "warm", "good"):
            assert contrast(colours[text], colours[allocation]) >= 4.5, (text, allocation)
    for step in range(9):
        assert contrast(colours[f"on-q{step}"], colours[f"q{step}"]) >= 4.5, step
    # Markers have an outline in ink, so their own colour need not carry the shape alone.
    for mark in ("s0", "s1", "s2", "edge"):
        assert contrast(colours[mark], colours["raised"]) >= 3, mark


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_colour_ramp_rises_all_the_way(theme):
    steps = [luminance(palette(theme)[f"q{i}"]) for i in range(9)]
    assert steps == sorted(steps, reverse=theme == "light")
