"""Everything about a sweep that can be found out, or found wrong, before a trial starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorasweep.data.prepare import prepare_data
from lorasweep.data.sources import find_source
from lorasweep.data.tokens import TrainingData
from lorasweep.errors import SpecError
from lorasweep.evaluate.tasks import check_tasks, resolve_suites
from lorasweep.model.base import base_path, empty_base, load_tokenizer, read_facts
from lorasweep.model.shape import FAMILIES
from lorasweep.spec.presets import first_points
from lorasweep.spec.space import Level
from lorasweep.spec.sweep import DataSpec, EvaluateSpec, SweepSpec
from lorasweep.spec.trial import TARGET_SETS
from lorasweep.store import journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import BaseMeasured
from lorasweep.tune.stream import stream


@dataclass(frozen=True)
class Prepared:
    """Hold a study of a sweep that is ready to run.

    study: as the sweep has it.
    spec: the study with its suites resolved and its local paths absolute, since workers run in
        other folders.
    data: tokenised once for all trials.
    points: published recipes, placed in the study's space.
    notes: what a reader of the results must know about data and tasks, in sentences.
    """

    study: SweepSpec
    spec: SweepSpec
    data: TrainingData
    points: list[dict[str, Level]]
    notes: tuple[str, ...]


def published_points(spec: SweepSpec) -> list[dict[str, Level]]:
    """Place the published recipes in a study's space, which takes the model's size and family.

    Raises:
        ModelError: the model cannot be read.
    """
    facts = read_facts(spec.model)
    return first_points(spec, facts.hidden_size, facts.model_type)


def glance(spec: SweepSpec) -> None:
    """Look whether the model, and each study's data and tasks, are there, before what takes long.

    Raises:
        UsageError: one of them is not.
    """
    base_path(spec.model)
    for study in spec.studies:
        find_source(study.data)
        check_tasks(study.evaluate)


def prepare_studies(
    spec: SweepSpec, paths: SweepPaths, say: Callable[[str], None]
) -> list[Prepared]:
    """Read what all studies of a sweep need; studies with the same data share them.

    Args:
        paths: of the results folder, where tokens of streamed documents are, or are written to.
        say: tells the person in front how far a long reading is.

    Raises:
        UsageError: model, targets, data, tasks or sequence length do not fit, in one sentence.
    """
    settled = {
        record.domain: tuple(record.scores.tasks)
        for record in journal.read(paths.journal)
        if isinstance(record, BaseMeasured)
    }
    streamed = [study for study in spec.studies if study.data.streaming]
    for study in streamed:  # which may take hours, so that what a user may have to mend comes first
        _check_targets(study)
        _suites(study, settled.get(study.domain, ()))
    read: dict[DataSpec, TrainingData] = {}
    for study in streamed:
        if study.data not in read:
            read[study.data] = stream(spec, study.data, paths, say)
    prepared = []
    for study in spec.studies:
        prepared.append(prepare(study, read.get(study.data), settled.get(study.domain, ())))
        read[study.data] = prepared[-1].data
    return prepared


def prepare(
    spec: SweepSpec, data: TrainingData | None = None, measured: tuple[str, ...] = ()
) -> Prepared:
    """Read the model's tokenizer, and the data and the tasks of a study.

    Args:
        data: the study's, where they have been read already.
        measured: tasks on which an earlier session measured the base.

    Raises:
        UsageError: model, targets, data, tasks or sequence length do not fit, in one sentence.
    """
    _check_targets(spec)
    if data is None:
        facts, tokenizer = read_facts(spec.model), load_tokenizer(spec.model)
        data = prepare_data(spec.data, tokenizer, facts.positions, facts.vocabulary)
    counted = "tokens" in spec.space.axes or spec.hyperparameters.tokens is not None
    if counted and data.kind != "documents":
        raise SpecError(
            [
                "hyperparameters.tokens: a duration in tokens needs documents, which fill their "
                f"sequences, and {spec.data.path!r} holds instructions; use epochs or train.steps"
            ]
        )
    suites, notes = _suites(spec, measured)
    model = spec.model.model_copy(update={"path": _absolute(spec.model.path)})
    tasks = None if suites.tasks is None else _absolute(suites.tasks)
    resolved = spec.model_copy(
        update={"model": model, "evaluate": suites.model_copy(update={"tasks": tasks})}
    )
    return Prepared(spec, resolved, data, published_points(spec), (*data.notes, *notes))


def _suites(study: SweepSpec, measured: tuple[str, ...]) -> tuple[EvaluateSpec, tuple[str, ...]]:
    """Settle a study's tasks, as an earlier session has if there was one."""
    learning = study.evaluate.learning
    return resolve_suites(study.evaluate, tuple(name for name in measured if name not in learning))


def _check_targets(study: SweepSpec) -> None:
    """See that the model has the layers that the study's targets stand for.

    Raises:
        ModelError: it has not, with the sentence that each of the trials would fail with.
    """
    if study.method != "lora":
        return
    levels = study.levels_of("targets")
    if read_facts(study.model).model_type in FAMILIES and {*levels} <= {*TARGET_SETS}:
        return  # which have both halves, and torch need not be loaded to say so
    from lorasweep.model.lora import target_modules

    model = empty_base(study.model)
    for targets in levels:
        target_modules(model, str(targets))


def _absolute(path: str) -> str:
    local = Path(path).expanduser()
    return str(local.resolve()) if local.exists() and path != "testbed" else path
