"""Rules for the whole source tree: layers, light imports, small modules, clear names."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "lorasweep").rglob("*.py"))
HEAVY = ("torch", "ray", "transformers", "peft", "datasets", "deepspeed", "lm_eval")
LIGHT = ("errors", "spec", "store", "analysis", "report", "cli")


def modules_of(layer: str) -> list[str]:
    files = [f for f in MODULES if f.relative_to(ROOT).with_suffix("").parts[1] == layer]
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("layer", LIGHT)
def test_the_light_layers_import_nothing_heavy(layer):
    modules = modules_of(layer)
    assert modules
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_imports_point_down_only():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_over_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_names_say_what_is_inside(path):
    assert not {path.stem, path.parent.name} & {"utils", "helpers", "common", "misc", "manager"}


def imports_of(path: Path) -> set[str]:
    """List the modules that a module imports, in functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("layer", ["lanes", "tune"])
def test_no_module_of_these_layers_imports_itself_through_others(layer):
    files = (ROOT / "lorasweep" / layer).glob("*.py")
    modules = {f"lorasweep.{layer}.{file.stem}": file for file in files}
    graph = {name: imports_of(file) & modules.keys() for name, file in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # which raises CycleError, with the modules
