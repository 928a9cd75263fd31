from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasweep.errors import SpecError
from lorasweep.evaluate.code.task import CodeTask, Problem, load_problems, read_code_task
from lorasweep.evaluate.tasks import ASSETS, code_tasks, task_files
from lorasweep.spec.sweep import EvaluateSpec
from tests.evaluate.programs import TASK, TEST, write_task


def _task(folder: Path) -> CodeTask:
    spec = EvaluateSpec(tasks=str(folder), learning=("quoted",), allow_code_execution=True)
    return code_tasks(spec)["quoted"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": "4"}, "samples: must be a valid integer, got '4'"),
        ({"samples": None}, "samples: must be given"),
        ({"samples": 0}, "samples: must be greater than or equal to 1, got 0"),
        ({"temperature": -1}, "temperature: must be greater than or equal to 0, got -1"),
        ({"temperature": 0, "pass_at": [1]}, "samples: must be 1 at temperature 0, where all are"),
        ({"top_p": 1.5}, "top_p: must be less than or equal to 1, got 1.5"),
        ({"pass_at": [1, 5]}, "pass_at: no k may be above samples = 4, got 5"),
        ({"pass_at": [2]}, "pass_at: must hold 1, since pass@1 is the score, got [2]"),
        ({"pass_at": 1}, "pass_at: must be a valid array, got 1"),
        ({"until": [1]}, "until.0: must be a valid string, got 1"),
        ({"until": [""]}, "until.0: String should have at least 1 character, got ''"),
        ({"max_gen_tokens": 3}, "max_gen_tokens: no such field; check its spelling"),
        ({"doc_to_text": "{{prompt"}, "doc_to_text: must be a jinja2 template, got '{{prompt'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_in_a_task_file_is_a_sentence_with_file_and_field(
    tmp_path: Path, changes: dict[str, Any], sentence: str
):
    write_task(tmp_path, **changes)
    with pytest.raises(SpecError) as error:
        task_files(EvaluateSpec(tasks=str(tmp_path)))
    (problem,) = error.value.problems
    assert problem.startswith(f"evaluate.tasks: {tmp_path / 'quoted.yaml'}: {sentence}")


def test_every_mistake_is_told_at_once():
    with pytest.raises(SpecError) as error:
        read_code_task(TASK | {"samples": 0, "top_p": 0}, "mine.yaml")
    assert len(error.value.problems) == 2


def test_problems_are_put_together_as_humaneval_has_them(tmp_path: Path):
    first, second = load_problems(_task(write_task(tmp_path, problems=2)))
    assert first == Problem(0, "q/0", "word0 = r'''", f"{TEST}\ncheck(word0)\n")
    assert second.number == 1
    assert first.program("ab") == f"word0 = r'''ab\n{TEST}\ncheck(word0)\n"


def test_a_limit_keeps_the_first_problems(tmp_path: Path):
    assert len(load_problems(_task(write_task(tmp_path)), 3)) == 3
    assert len(load_problems(_task(tmp_path), 30)) == 5


def test_a_template_renders_what_the_model_continues(tmp_path: Path):
    text = "# {{canonical_solution}}\n{{prompt | trim}}\n"
    (problem,) = load_problems(_task(write_task(tmp_path, problems=1, doc_to_text=text)))
    assert problem.prompt == "# ab\nword0 = r'''\n"
    assert problem.program("") == f"# ab\nword0 = r'''\n\n{TEST}\ncheck(word0)\n"


def test_a_missing_column_is_told_with_its_file(tmp_path: Path):
    write_task(tmp_path, doc_to_text="{{question}}")
    with pytest.raises(SpecError) as error:
        load_problems(_task(tmp_path))
    assert error.value.problems == (
        "evaluate: the data of task 'quoted' must have the columns task_id, test, entry_point, "
        f"question; {tmp_path / 'quoted.jsonl'} lacks question",
    )


def test_data_that_are_none_are_refused(tmp_path: Path):
    write_task(tmp_path, problems=1)
    with pytest.raises(SpecError, match=r"must have at least one problem, got none in .*quoted"):
        load_problems(_task(tmp_path), 0)


def test_data_that_are_not_there_are_refused(tmp_path: Path):
    task = _task(write_task(tmp_path))
    (tmp_path / "quoted.jsonl").unlink()
    with pytest.raises(SpecError, match=r"^evaluate: the data of task 'quoted' cannot be loaded"):
        load_problems(task)


def test_humaneval_is_measured_as_the_paper_measures_it():
    packaged = {file.stem: yaml.safe_load(file.read_text()) for file in ASSETS.glob("*.yaml")}
    assert set(packaged) == {"humaneval", "humaneval_pass_at_256"}
    one = read_code_task(packaged["humaneval"], "humaneval")
    assert (one.samples, one.temperature, one.top_p, one.pass_at) == (50, 0.2, 0.95, (1,))
    many = read_code_task(packaged["humaneval_pass_at_256"], "humaneval_pass_at_256")
    assert (many.samples, many.temperature) == (256, 0.8)
    assert many.pass_at == tuple(2**power for power in range(9))
    assert one.until == many.until
    assert one.columns == ("task_id", "test", "entry_point", "prompt")
    assert not one.is_local


def test_reading_tasks_loads_neither_torch_nor_lm_eval():
    program = (
        "import sys; from lorasweep.evaluate.tasks import task_files; "
        "from lorasweep.spec.sweep import EvaluateSpec; task_files(EvaluateSpec()); "
        "print(*{'torch', 'lm_eval', 'datasets'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not done.stdout.strip()
