"""Every module, function and page that the docs point to exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
POINTER = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|js))(?::([\w.]+))?`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def places_of(file: str) -> list[Path]:
    """Files that a path in the docs may mean: of the package, of the repository, or by its name."""
    whole = [ROOT / "lorasweep" / file, ROOT / file]
    if "/" in file:
        return [path for path in whole if path.is_file()]
    named = (*(ROOT / "lorasweep").rglob(file), ROOT / "benchmarks" / file)
    return [path for path in (*whole, *named) if path.is_file()]


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods (as CLASS.METHOD) of a module."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
            inner = node.body if isinstance(node, ast.ClassDef) else []
            names |= {f"{node.name}.{n.name}" for n in inner if isinstance(n, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_function_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    missing = [
        f"{file}:{name}" if name else file
        for file, name in POINTER.findall(text)
        if not any(not name or name in names_in(path) for path in places_of(file))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_reading_path_has_ten_stops_at_most():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    path = text.split("## From the command")[1].split("## Layers")[0]
    stops = re.findall(r"^\| \d+ \| `[\w/]+\.py:[\w.]+` \|", path, re.MULTILINE)
    assert 0 < len(stops) <= 10
    with_the_search = path.split("With `--slots 1`")[0]
    files = {file for file, _ in POINTER.findall(with_the_search) if not file.startswith("tests/")}
    assert len(files) <= 16


def test_the_glossary_has_thirty_words_at_most():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert 0 < len(rows) <= 30
