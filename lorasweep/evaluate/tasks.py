"""Which tasks a suite consists of, and where lm-eval finds them."""

from __future__ import annotations

import functools
import glob
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

import yaml

from lorasweep import testbed
from lorasweep.errors import SpecError, in_a_line
from lorasweep.evaluate.code.task import CodeTask, is_code, load_problems, read_code_task
from lorasweep.evaluate.sandbox.execution import Sandbox
from lorasweep.spec.sweep import EvaluateSpec

# Biderman et al. 2024, v2, section 4; it states no shots, so these are of the suite that it used,
# the averages of the MosaicML Gauntlet.
PAPER_SOURCE = ("hellaswag@0", "arc_challenge@3", "winogrande@5")
RESPONSE_ACCURACY = "response_accuracy"
BASE_AGREEMENT = "base_agreement"
BUILT_IN = frozenset({RESPONSE_ACCURACY, BASE_AGREEMENT})
HUB_TIMEOUT_S = 5.0
ASSETS = Path(__file__).parent / "assets"  # tasks that come with the program

Suite = Literal["learning", "source"]


def split_shots(task: str) -> tuple[str, int | None]:
    """Read NAME@SHOTS."""
    name, at, shots = task.partition("@")
    return name, int(shots) if at else None


def task_files(spec: EvaluateSpec) -> dict[str, dict[str, Any]]:
    """Read the task files that come with the program and the user's own, by task name.

    Data files are named relative to the task file, and made absolute here, since lm-eval would
    look for them relative to wherever a worker happens to run.

    Raises:
        SpecError: the folder is missing, a file in it is no task, or one of ours has mistakes.
    """
    folders = [testbed.TASKS, ASSETS]
    if spec.tasks is not None:
        folders.append(Path(spec.tasks))
        if not folders[-1].is_dir():
            raise SpecError([f"evaluate.tasks: must be a folder of task files, got {spec.tasks!r}"])
    tasks: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            try:
                content = yaml.safe_load(file.read_text(encoding="utf-8"))
                if not isinstance(content["task"], str):
                    raise TypeError("it is a group; name its tasks one by one")
                tasks[content["task"]] = _absolute(content, folder)
            except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
                raise SpecError(
                    [
                        f"evaluate.tasks: {file} must be a plain YAML task file with a task: name "
                        f"({in_a_line(error, 200)})"
                    ]
                ) from None
            if is_code(content):
                read_code_task(content, str(file))
    return tasks


def _absolute(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    arguments = dict(content.get("dataset_kwargs") or {})
    if "data_files" in arguments:
        arguments["data_files"] = _absolute_files(arguments["data_files"], folder)
    return {**content, "dataset_kwargs": arguments} if arguments else content


def _absolute_files(files: Any, folder: Path) -> Any:
    """Make file names absolute, in every form that datasets takes; addresses are so already."""
    if isinstance(files, dict):
        return {split: _absolute_files(file, folder) for split, file in files.items()}
    if isinstance(files, list):
        return [_absolute_files(file, folder) for file in files]
    if "://" in str(files):
        return files
    # A file's name may be a pattern; what the folder happens to be called is none.
    return os.path.normpath(Path(glob.escape(str(folder.resolve()))) / str(files))


@functools.cache
def _task_manager(*, defaults: bool) -> Any:
    """Give lm-eval's index of tasks; its own task files take it ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=defaults)


def load_tasks(names: tuple[str, ...], spec: EvaluateSpec) -> dict[str, Any]:
    """Load lm-eval's task objects by the name they stand under in the sweep.

    What is built in and tasks whose answers are programs are left out, and lm-eval is left alone
    where there is nothing else.

    Raises:
        SpecError: a task is unknown or a group, its data cannot be had, or it has no metric for
            which higher is better.
    """
    if all(name in BUILT_IN for name in names):
        return {}
    files = task_files(spec)
    _refuse_shots(names, files)
    wanted = [name for name in names if not _is_ours(name, files)]
    if not wanted:
        return {}
    own = all(split_shots(name)[0] in files for name in wanted)
    manager = _task_manager(defaults=not own)
    loaded = {}
    for name in wanted:
        task, shots = split_shots(name)
        if task not in files and task in (*manager.all_groups, *manager.all_tags):
            raise SpecError([f"evaluate: {task!r} is a group; name its tasks one by one"])
        if task not in files and task not in manager.all_tasks:
            known = ", ".join(sorted([*files, *BUILT_IN]))
            raise SpecError(
                [f"evaluate: task must be one of {known}, or one of lm-eval's own, got {task!r}"]
            )
        try:
            objects = manager.load([files.get(task, task)])["tasks"]
        except Exception as error:  # data sets fail in many ways; the user needs one sentence
            reason = in_a_line(error, 200)
            raise SpecError(
                [
                    f"evaluate: the data of task {task!r} cannot be loaded "
                    f"({type(error).__name__}: {reason})"
                ]
            ) from error
        (loaded[name],) = objects.values()
        _require_metric(task, loaded[name])
        loaded[name].set_config(
            key="num_fewshot",
            value=loaded[name].get_config("num_fewshot") or 0 if shots is None else shots,
        )
    return loaded


def _require_metric(name: str, task: Any) -> None:
    """See that a task has a metric for which higher is better, as it is of every suite's mean.

    Raises:
        SpecError: it has none.
    """
    higher_is_better = task.higher_is_better()
    # What is rolled has perplexities alone, whatever its file says of them.
    if task.OUTPUT_TYPE == "loglikelihood_rolling" or not any(higher_is_better.values()):
        metrics = ", ".join(higher_is_better) or "none"
        raise SpecError(
            [
                f"evaluate: task {name!r} must have a metric for which higher is better, such as "
                f"acc or exact_match, got {metrics}; name another task, or give it such a metric "
                "in a task file of your own"
            ]
        )


def _is_ours(name: str, files: dict[str, dict[str, Any]]) -> bool:
    """Tell whether lm-eval has nothing to do with a task."""
    task, _ = split_shots(name)
    return task in BUILT_IN or is_code(files.get(task, {}))


def _refuse_shots(names: tuple[str, ...], files: dict[str, dict[str, Any]]) -> None:
    for name in names:
        task, shots = split_shots(name)
        if _is_ours(name, files) and shots is not None:
            raise SpecError([f"evaluate: {task} takes no shots, got {name!r}"])


def code_tasks(spec: EvaluateSpec) -> dict[str, CodeTask]:
    """Give the tasks of both suites whose answers are programs, by name.

    Raises:
        SpecError: there are such tasks, and programs may not be run.
    """
    files = task_files(spec)
    found, refused = {}, []
    for suite, names in (("learning", spec.learning), ("source", spec.source)):
        for name in names:
            if name in files and is_code(files[name]):
                found[name] = read_code_task(files[name], name)
                refused.append(
                    f"evaluate.{suite}: task {name!r} runs programs that the model writes; allow "
                    "it with --allow-code-execution"
                )
    if found and not spec.allow_code_execution:
        raise SpecError(refused)
    return found


def check_tasks(spec: EvaluateSpec) -> bool:
    """See, without loading any, that task files and the data that they name are there.

    Where programs are to be run, the sandbox is tried out, too.

    Returns:
        Whether every task is built in or has a file; of the others only lm-eval can tell.

    Raises:
        SpecError: one of them is missing, a file is no task, a task that takes no shots is given
            some, or one runs programs and may not.
        SandboxError: this machine cannot run programs safely.
    """
    names = (*spec.learning, *spec.source)
    files = task_files(spec)
    _refuse_shots(names, files)
    if code_tasks(spec):
        Sandbox().probe()
    for name in names:
        content = files.get(split_shots(name)[0], {})
        named = (content.get("dataset_kwargs") or {}).get("data_files")
        for file in _each(named):
            if "://" not in file and not glob.glob(file):  # noqa: PTH207 - absolute patterns
                raise SpecError(
                    [
                        f"evaluate: the data of task {name!r} cannot be loaded, since there is no "
                        f"{file}"
                    ]
                )
    return all(split_shots(name)[0] in {*BUILT_IN, *files} for name in names)


def _each(files: Any) -> list[str]:
    """Give file names one by one, in every form that datasets takes."""
    if isinstance(files, dict):
        files = list(files.values())
    if isinstance(files, list):
        return [name for part in files for name in _each(part)]
    return [] if files is None else [str(files)]


def _check_hub() -> None:
    """Ask the hub once whether it is there; its own client would try for half a minute.

    Raises:
        SpecError: it does not answer.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        with urllib.request.urlopen(
            urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S
        ):
            return
    except urllib.error.HTTPError:
        return  # it is there, whatever it says
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SpecError(
            [
                f"{constants.ENDPOINT} does not answer: {reason}; HF_HUB_OFFLINE=1 uses what was "
                "loaded before"
            ]
        ) from None


def resolve_suites(
    spec: EvaluateSpec, settled: tuple[str, ...] = ()
) -> tuple[EvaluateSpec, tuple[str, ...]]:
    """Settle which tasks there are, so that a wrong name is found before anything starts.

    `auto` becomes the paper's three tasks, or `base_agreement` where they cannot be had; the note
    that comes back says so. Tasks of lm-eval's own and problems from the hub are loaded once; what
    is in files here is not, since it takes seconds in which nothing trains, and lanes say soon if
    it is broken.

    Args:
        settled: the tasks that `auto` stood for when the base was measured, empty before; what can
            be had may change between sessions, and trials compare on the same tasks only.

    Raises:
        SpecError: a task that was asked for by name is unknown, cannot be loaded, or may not run.
        SandboxError: this machine cannot run programs safely.
    """
    if spec.source == ("auto",) and settled:
        spec = spec.model_copy(update={"source": settled})
    at_hand = check_tasks(spec)
    for task in code_tasks(spec).values():
        if not task.is_local:
            load_problems(task)
    if at_hand:
        return spec, ()
    load_tasks(spec.learning, spec)
    if spec.source != ("auto",):
        load_tasks(spec.source, spec)
        return spec, ()
    try:
        _check_hub()
        load_tasks(PAPER_SOURCE, spec)
    except SpecError as error:
        note = (
            "forgetting is measured as base_agreement, the share of positions in the base's own "
            "samples where the tuned model predicts what the base predicts, because the paper's "
            f"source tasks cannot be had here; name others with evaluate.source ({error})"
        )
        return spec.model_copy(update={"source": (BASE_AGREEMENT,)}), (note,)
    return spec.model_copy(update={"source": PAPER_SOURCE}), ()
