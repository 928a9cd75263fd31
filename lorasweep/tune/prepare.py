"""Everything about a sweep that can be found out, or found wrong, before a trial starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorasweep.data.prepare import prepare_data
from lorasweep.data.sources import find_source
from lorasweep.data.tokens import TrainingData
from lorasweep.evaluate.tasks import look_for_tasks, resolve_suites
from lorasweep.model.base import base_path, load_tokenizer, read_facts
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


def glance(spec: SweepSpec) -> None:
    """Look whether model, data and tasks are there, before anything that takes long.

    Raises:
        UsageError: one of them is not.
    """
    base_path(spec.model)
    find_source(spec.data)
    look_for_tasks(spec.evaluate)


def prepare(spec: SweepSpec) -> Prepared:
    """Read the model's tokenizer, the data and the tasks.

    Raises:
        UsageError: model, data, tasks or sequence length do not fit, in one sentence.
    """
    facts = read_facts(spec.model)
    data = prepare_data(spec.data, load_tokenizer(spec.model), facts.positions, facts.vocabulary)
    suites, notes = resolve_suites(spec.evaluate)
    model = spec.model.model_copy(update={"path": _absolute(spec.model.path)})
    tasks = None if suites.tasks is None else _absolute(suites.tasks)
    resolved = spec.model_copy(
        update={"model": model, "evaluate": suites.model_copy(update={"tasks": tasks})}
    )
    return Prepared(resolved, data, (*data.notes, *notes))


def _absolute(path: str) -> str:
    local = Path(path).expanduser()
    return str(local.resolve()) if local.exists() and path != "testbed" else path
