"""Measure how many trials should share a base on this machine, on a few real steps."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lorasweep.service.study_plan import SlotMeasurement
from lorasweep.spec.grid import planned_trials
from lorasweep.spec.sweep import SweepSpec, dump_sweep
from lorasweep.store.paths import SweepPaths


def measure_slots(spec: SweepSpec) -> tuple[SlotMeasurement, ...]:
    """Measure how many slots pay, with the first trials of each study that runs in lanes.

    Raises:
        UsageError: something that the user can fix: model, data or tasks.
    """
    studies = [study for study in spec.studies if study.sharding is None and study.slots != 1]
    return tuple(_measure(study) for study in studies)


def _measure(study: SweepSpec) -> SlotMeasurement:
    from lorasweep.data.shard import Shard
    from lorasweep.lanes.capacity import capacity, this_machine
    from lorasweep.lanes.quiet import set_up_process
    from lorasweep.lanes.runner import Runner
    from lorasweep.train.probe import SlotProbe
    from lorasweep.tune.prepare import prepare
    from lorasweep.tune.search import first_trials

    prepared = prepare(study)
    resources, device = this_machine(study.resources)
    planned = planned_trials(study)
    set_up_process(resources.cpus)
    size = capacity(study, resources, planned, float(os.cpu_count() or 1))
    trials = first_trials(study, prepared.points, size.max_slots)
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder))
        paths.sweep.write_text(dump_sweep(study), encoding="utf-8")
        runner = Runner(prepared.spec, paths.root, prepared.data, Shard(), device)
        for trial in trials:
            runner.admit(runner.prepare(trial))
        trainable = max(slot.trainable for slot in runner.engine.slots.values())
        probe = SlotProbe(tuple(runner.engine.slots), size.max_slots)
        while probe.choice is None:
            runner.engine.step({*runner.engine.slots} - {*probe.group})
            probe.record(runner.engine.tokens, runner.engine.seconds)
    is_auto = study.slots == "auto"
    return SlotMeasurement(
        study=study.study_name,
        trials=planned,
        confirmations=study.search.repetitions(planned),
        notes=tuple(prepared.notes),
        trainable=trainable,
        lanes=size.lanes,
        slots=probe.choice.slots if is_auto else size.max_slots,
        in_flight=size.in_flight,
        reason=probe.choice.reason if is_auto else "as given",
        tokens_per_s={n: round(speed) for n, speed in probe.choice.tokens_per_s.items()},
    )
