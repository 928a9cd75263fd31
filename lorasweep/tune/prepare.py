"""Read and check everything that a sweep needs before a trial starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorasweep.data.prepare import prepare_data
from lorasweep.data.sources import check_local_files
from lorasweep.data.tokens import TrainingData
from lorasweep.errors import SpecError
from lorasweep.evaluate.tasks import check_tasks, resolve_suites
from lorasweep.model.arrival import Arrival, check_targets
from lorasweep.model.base import BaseReader, base_path
from lorasweep.model.coverage import coverage, coverage_notes
from lorasweep.spec.presets import first_points
from lorasweep.spec.space import Level
from lorasweep.spec.sweep import DataSpec, EvaluateSpec, SweepSpec
from lorasweep.store import journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.scores import Scores
from lorasweep.tune.base import measured_base
from lorasweep.tune.stream import stream


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run.

    study: as the sweep has it.
    spec: the study with its suites resolved and its local paths absolute, since workers run in
        other folders.
    data: tokenised once for all trials.
    points: published recipes, as points of the study's space.
    notes: sentences about data, tasks and targets that a reader of the results must know.
    arrivals: what plain PEFT makes of each set of targets; empty where tests vouch for it.
    """

    study: SweepSpec
    spec: SweepSpec
    data: TrainingData
    points: list[dict[str, Level]]
    notes: tuple[str, ...]
    arrivals: Mapping[str, Arrival] = field(default_factory=dict)


def published_points(study: SweepSpec, base: BaseReader) -> list[dict[str, Level]]:
    """Convert the published recipes to points of a study's space, for the base's size and family.

    Raises:
        ModelError: the base cannot be read.
    """
    return first_points(study, base.facts.hidden_size, base.facts.model_type)


def check_inputs(spec: SweepSpec) -> None:
    """Check that the base and each study's data and tasks exist, before slower work begins.

    Raises:
        UsageError: one of them does not.
    """
    base_path(spec.model)
    for study in spec.studies:
        check_local_files(study.data)
        check_tasks(study.evaluate)


def prepare_studies(
    spec: SweepSpec, paths: SweepPaths, base: BaseReader, say: Callable[[str], None]
) -> list[Prepared]:
    """Read what all studies of a sweep need; studies with the same data share them.

    Args:
        paths: of the results folder, which keeps the tokens of streamed documents.
        say: prints how far a long reading is.

    Raises:
        UsageError: model, targets, data, tasks or sequence length do not fit, in one sentence.
    """
    records = journal.read(paths.journal)
    bases = {study.domain: measured_base(records, study.domain) for study in spec.studies}
    streamed = [study for study in spec.studies if study.data.streaming]
    for study in streamed:  # streaming may take hours, so mistakes of the user's are found first
        _notes_on_targets(study, base)
        check_targets(study, base.facts.family)
        _suites(study, bases[study.domain])
    read: dict[DataSpec, TrainingData] = {}
    for study in streamed:
        if study.data not in read:
            read[study.data] = stream(spec, study.data, paths, base.facts, base.tokenizer, say)
    prepared = []
    for study in spec.studies:
        prepared.append(prepare(study, base, read.get(study.data), bases[study.domain]))
        read[study.data] = prepared[-1].data
    return prepared


def prepare(
    spec: SweepSpec,
    base: BaseReader | None = None,
    data: TrainingData | None = None,
    measured: Scores | None = None,
) -> Prepared:
    """Read the data and the tasks of a study.

    Args:
        base: of the sweep; None reads it.
        data: of the study, if they have been read already.
        measured: scores of the base from an earlier session, whose tasks are kept.

    Raises:
        UsageError: model, targets, data, tasks or sequence length do not fit, in one sentence.
    """
    base = base or BaseReader(spec.model)
    targets = _notes_on_targets(spec, base)
    arrivals = check_targets(spec, base.facts.family)
    if data is None:
        facts = base.facts
        data = prepare_data(spec.data, base.tokenizer, facts.positions, facts.vocabulary)
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
    points, notes = published_points(spec, base), (*data.notes, *notes, *targets)
    return Prepared(spec, resolved, data, points, notes, arrivals)


def _suites(study: SweepSpec, measured: Scores | None) -> tuple[EvaluateSpec, tuple[str, ...]]:
    """Resolve a study's suites, to the same tasks as an earlier session if there was one."""
    tasks, learning = () if measured is None else measured.tasks, study.evaluate.learning
    return resolve_suites(study.evaluate, tuple(name for name in tasks if name not in learning))


def _notes_on_targets(study: SweepSpec, base: BaseReader) -> list[str]:
    """Check that the base has the layers that a study's targets stand for.

    Returns:
        Sentences on what the targets leave out, and on sets that the sweep defines.

    Raises:
        ModelError: it does not, with the sentence that each of the trials would fail with.
    """
    if study.method != "lora":
        return []
    sets = [str(targets) for targets in study.levels_of("targets")]
    return coverage_notes(coverage(base.shape.linear, study.targets, sets), study.targets)


def _absolute(path: str) -> str:
    local = Path(path).expanduser()
    return str(local.resolve()) if local.exists() and path != "testbed" else path
