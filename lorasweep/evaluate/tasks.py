"""Find the tasks of both suites: built in, in task files, or lm-eval's own."""

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

# Biderman et al. 2024, v2, section 4. The paper does not state the number of shots; these are from
# the MosaicML Gauntlet, which it used.
PAPER_SOURCE = ("hellaswag@0", "arc_challenge@3", "winogrande@5")
RESPONSE_ACCURACY = "response_accuracy"
BASE_AGREEMENT = "base_agreement"
BUILT_IN = frozenset({RESPONSE_ACCURACY, BASE_AGREEMENT})
HUB_TIMEOUT_S = 5.0
ASSETS = Path(__file__).parent / "assets"  # task files that ship with lorasweep

Suite = Literal["learning", "source"]


def split_shots(task: str) -> tuple[str, int | None]:
    """Split NAME@SHOTS."""
    name, at, shots = task.partition("@")
    return name, int(shots) if at else None


def task_files(spec: EvaluateSpec) -> dict[str, dict[str, Any]]:
    """Read the task files that ship with lorasweep and the user's own, by task name.

    Data files are relative to the task file. They are made absolute here, since lm-eval would look
    for them relative to the working directory of a worker.

    Raises:
        SpecError: the folder is missing, or a file in it is not a valid task file.
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
    """Make file names absolute, in every form that datasets accepts; URLs stay as they are."""
    if isinstance(files, dict):
        return {split: _absolute_files(file, folder) for split, file in files.items()}
    if isinstance(files, list):
        return [_absolute_files(file, folder) for file in files]
    if "://" in str(files):
        return files
    # The file name may be a glob pattern; the folder's own name must not be read as one.
    return os.path.normpath(Path(glob.escape(str(folder.resolve()))) / str(files))


@functools.cache
def _task_manager(*, defaults: bool) -> Any:
    """Load lm-eval's index of tasks; indexing its own task files takes ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=defaults)


def load_tasks(names: tuple[str, ...], spec: EvaluateSpec) -> dict[str, Any]:
    """Load lm-eval's task objects, by the name that the sweep gives them.

    Built-in tasks and code tasks are left out; lm-eval is not imported if nothing remains.

    Raises:
        SpecError: a task is unknown or a group, its data cannot be loaded, or it has no metric for
            which higher is better.
    """
    if all(name in BUILT_IN for name in names):
        return {}
    files = task_files(spec)
    _refuse_shots(names, files)
    wanted = [name for name in names if not _is_ours(name, files)]
    if not wanted:
        return {}
    all_in_files = all(split_shots(name)[0] in files for name in wanted)
    manager = _task_manager(defaults=not all_in_files)
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
    """Require a metric for which higher is better, as in every suite's mean.

    Raises:
        SpecError: the task has none.
    """
    higher_is_better = task.higher_is_better()
    # Rolling log-likelihood only yields perplexities, whatever the task file says about them.
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
    """Whether a task is built in or a code task, so that lm-eval never sees it."""
    task, _ = split_shots(name)
    return task in BUILT_IN or is_code(files.get(task, {}))


def _refuse_shots(names: tuple[str, ...], files: dict[str, dict[str, Any]]) -> None:
    for name in names:
        task, shots = split_shots(name)
        if _is_ours(name, files) and shots is not None:
            raise SpecError([f"evaluate: {task} takes no shots, got {name!r}"])


def code_tasks(spec: EvaluateSpec) -> dict[str, CodeTask]:
    """Select the code tasks of both suites, by name.

    Raises:
        SpecError: there are some, and running programs is not allowed.
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
    """Check, without loading any, that task files and the data they name exist.

    If programs are to be run, the sandbox is probed too.

    Returns:
        Whether every task is built in or has a file; only lm-eval knows about others.

    Raises:
        SpecError: a file is missing or is not a task, a task that takes no shots is given some, or
            one runs programs without permission.
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
        for file in _flatten(named):
            if "://" not in file and not glob.glob(file):  # noqa: PTH207 - absolute patterns
                raise SpecError(
                    [
                        f"evaluate: the data of task {name!r} cannot be loaded, since there is no "
                        f"{file}"
                    ]
                )
    return all(split_shots(name)[0] in {*BUILT_IN, *files} for name in names)


def _flatten(files: Any) -> list[str]:
    """Flatten the file names of a task file, in every form that datasets accepts."""
    if isinstance(files, dict):
        files = list(files.values())
    if isinstance(files, list):
        return [name for part in files for name in _flatten(part)]
    return [] if files is None else [str(files)]


def _check_hub() -> None:
    """Check once that the hub answers; its own client would retry for half a minute.

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
        return  # it answers, whatever it says
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SpecError(
            [
                f"{constants.ENDPOINT} does not answer: {reason}; HF_HUB_OFFLINE=1 uses what was "
                "downloaded before"
            ]
        ) from None


def resolve_suites(
    spec: EvaluateSpec, settled: tuple[str, ...] = ()
) -> tuple[EvaluateSpec, tuple[str, ...]]:
    """Resolve `auto` and check all tasks, so that a mistake is found before anything starts.

    `auto` becomes the paper's three tasks, or `base_agreement` if those cannot be loaded, with a
    note that says so. lm-eval's own tasks and problems from the hub are loaded once. Tasks in local
    files are not: that takes seconds in which nothing trains, and lanes soon report a broken one.

    Args:
        settled: the tasks that `auto` became when the base was measured, empty before. What can be
            loaded may change between sessions, and trials only compare on the same tasks.

    Raises:
        SpecError: a named task is unknown, cannot be loaded, or may not run.
        SandboxError: this machine cannot run programs safely.
    """
    if spec.source == ("auto",) and settled:
        spec = spec.model_copy(update={"source": settled})
    all_local = check_tasks(spec)
    for task in code_tasks(spec).values():
        if not task.is_local:
            load_problems(task)
    if all_local:
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
            f"source tasks cannot be loaded here; name others with evaluate.source ({error})"
        )
        return spec.model_copy(update={"source": (BASE_AGREEMENT,)}), (note,)
    return spec.model_copy(update={"source": PAPER_SOURCE}), ()
