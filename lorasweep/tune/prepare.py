"""Everything about a sweep that can be found out, or found wrong, before Ray starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorasweep.data.prepare import prepare_data
from lorasweep.data.tokens import TrainingData
from lorasweep.evaluate.tasks import only_task_files, resolve_suites
from lorasweep.model.base import load_tokenizer, read_facts
from lorasweep.spec.presets import first_points
from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Prepared:
    """Hold a sweep that is ready to run.

    spec: the sweep with its suites resolved and its local paths absolute, since workers run in
        other folders.
    data: tokenised once for all trials.
    notes: what a reader of the results must know about data and tasks, in sentences.
    """

    spec: SweepSpec
    data: TrainingData
    notes: tuple[str, ...]


def published_points(spec: SweepSpec) -> list[dict[str, Level]]:
    """Place the published recipes in the sweep's space, which takes the model's size and family.

    Raises:
        ModelError: the model cannot be read.
    """
    facts = read_facts(spec.model)
    return first_points(spec, facts.hidden_size, facts.model_type)


def prepare(spec: SweepSpec, meanwhile: Callable[[], None] = lambda: None) -> Prepared:
    """Read the model's tokenizer, the data and the tasks.

    Args:
        meanwhile: called as soon as hardly anything is left that a user may have to mend, to start
            what takes long while the rest is read.

    Raises:
        UsageError: model, data, tasks or sequence length do not fit, in one sentence.
    """
    facts = read_facts(spec.model)
    data = prepare_data(spec.data, load_tokenizer(spec.model), facts.positions, facts.vocabulary)
    ours = only_task_files(spec.evaluate)
    if ours:
        meanwhile()
    suites, notes = resolve_suites(spec.evaluate)
    if not ours:
        meanwhile()
    model = spec.model.model_copy(update={"path": _absolute(spec.model.path)})
    tasks = None if suites.tasks is None else _absolute(suites.tasks)
    resolved = spec.model_copy(
        update={"model": model, "evaluate": suites.model_copy(update={"tasks": tasks})}
    )
    return Prepared(resolved, data, (*data.notes, *notes))


def _absolute(path: str) -> str:
    local = Path(path).expanduser()
    return str(local.resolve()) if local.exists() and path != "testbed" else path
