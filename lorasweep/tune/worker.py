"""What runs inside the workers of a trial: load, train, measure, report."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasweep.errors import LorasweepError
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import Rung, Scores
from lorasweep.tune.quiet import quiet_loggers

REPORTS = 5  # progress reports of a trial besides its rungs
# A report waits until Ray Train's controller asks for it, which by default is every two seconds:
# with twelve reports that idled away 24 s of a trial whose training took less than one.
POLL_S = 0.2


@dataclass(frozen=True)
class SweepJob:
    """Hold what all trials of a sweep share.

    spec: the sweep, its suites resolved.
    root: the results folder, which every node must see.
    data: reference to the tokenised data in Ray's object store.
    samples: reference to the base's own samples, None where the source suite needs none.
    cpus: per worker; so many threads a worker computes with.
    """

    spec: SweepSpec
    root: str
    data: Any
    samples: Any
    cpus: float


def set_up_process(cpus: float) -> None:
    """Keep libraries quiet and give torch its share of the cores."""
    quiet_loggers()
    import torch

    torch.set_num_threads(max(1, int(cpus)))


def measure_base(job: SweepJob) -> tuple[Scores, Any, float]:
    """Measure the base model, in a Ray task of its own.

    Returns:
        Its scores, its own samples where the source suite asks for agreement, and the seconds
        taken.
    """
    began = time.perf_counter()
    set_up_process(job.cpus)
    import ray
    import torch

    from lorasweep.data.shard import Shard
    from lorasweep.evaluate.agreement import sample_base
    from lorasweep.evaluate.measure import Measurement
    from lorasweep.evaluate.tasks import BASE_AGREEMENT
    from lorasweep.model.base import load_base, load_tokenizer, read_facts

    spec = job.spec
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, model = load_tokenizer(spec.model), load_base(spec.model, device)
    samples = None
    if BASE_AGREEMENT in (*spec.evaluate.source, *spec.evaluate.learning):
        facts, first = read_facts(spec.model), tokenizer.bos_token_id
        samples = sample_base(
            model,
            first if first is not None and first < facts.vocabulary else tokenizer.eos_token_id,
            positions=facts.positions,
            batch_size=spec.evaluate.batch_size,
            device=device,
        )
    heldout = ray.get(job.data).heldout
    measurement = Measurement(spec.evaluate, tokenizer, heldout, samples, Shard(), device)
    return measurement.scores(model), samples, time.perf_counter() - began


def train_and_measure(config: dict[str, Any]) -> None:  # noqa: PLR0915 - one loop, top to bottom
    """Run one trial in a Ray Train worker; every worker of the trial calls this.

    Args:
        config: `job` (SweepJob) and `trial` (TrialSpec).
    """
    job, trial = config["job"], config["trial"]
    began = time.perf_counter()
    set_up_process(job.cpus)
    import ray
    import ray.train
    import ray.train.torch
    import torch

    from lorasweep.data.batches import Batches, steps_of
    from lorasweep.data.shard import Shard
    from lorasweep.evaluate.measure import Measurement
    from lorasweep.model.base import base_path, load_base, load_tokenizer
    from lorasweep.model.lora import adapter_parameters, attach_lora, save_adapter
    from lorasweep.train.checkpoint import drop_state, load_state, save_state
    from lorasweep.train.optim import build_optimizer
    from lorasweep.train.solo import train_lora

    spec, hyperparameters = job.spec, trial.hyperparameters
    sweep = SweepPaths(Path(job.root))
    paths = sweep.trial(trial.id)
    if not sweep.sweep.is_file():
        raise LorasweepError(
            f"--out: every node must see the results folder, and this worker does not see "
            f"{job.root}; put it on storage that the nodes share"
        )
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    data = ray.get(job.data)
    samples = None if job.samples is None else ray.get(job.samples)
    tokenizer, base = load_tokenizer(spec.model), load_base(spec.model, device)
    measurement = Measurement(spec.evaluate, tokenizer, data.heldout, samples, shard, device)

    if spec.train.recompute:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    model = attach_lora(base, hyperparameters, trial.seed)
    parameters = adapter_parameters(model)
    optimizer = build_optimizer(
        spec.train, list(parameters.values()), hyperparameters.lr, hyperparameters.weight_decay
    )
    start, notes = load_state(paths.state, parameters, optimizer)
    size = hyperparameters.batch_size
    batches = Batches(
        data.train,
        size,
        spec.train.micro_batch or size // shard.workers,
        trial.seed,
        tokenizer.pad_token_id,
    )
    steps = spec.train.steps or steps_of(len(data.train), size, hyperparameters.epochs)
    rung_steps = {math.ceil(steps * percent / 100): percent for percent in spec.search.rungs}
    pulse = max(1, steps // REPORTS)
    evaluate_s = float(notes.get("evaluate_s", 0.0))
    rungs = [Rung.model_validate(rung) for rung in notes.get("rungs", [])]
    for rung in rungs:  # a scheduler that has not seen this trial must judge it again
        ray.train.report({"trial": trial.id, **rung.model_dump()})

    position, diverged = start, None
    for progress in train_lora(
        model,
        parameters,
        optimizer,
        batches,
        spec=spec.train,
        hyperparameters=hyperparameters,
        steps=steps,
        start=start,
        shard=shard,
        device=device,
    ):
        position, diverged = progress.position, progress.diverged
        if diverged is not None:
            break
        percent = rung_steps.get(position.step)
        if percent is None and position.step % pulse:
            continue
        report: dict[str, Any] = {
            "trial": trial.id,
            "step": position.step,
            "percent": percent or 100 * position.step // steps,
            "train_loss": position.train_loss,
            "grad_norm": progress.grad_norm,
            "lr": progress.lr,
            "tokens": position.tokens,
            "tokens_per_s": position.tokens / position.train_s,
            "train_s": position.train_s,
            "evaluate_s": evaluate_s,
        }
        if percent is not None and position.step < steps:
            measured = time.perf_counter()
            loss = measurement.response_loss(model)
            evaluate_s += time.perf_counter() - measured
            rungs.append(Rung(percent=percent, step=position.step, response_loss=loss))
            report |= {"response_loss": rungs[-1].response_loss, "evaluate_s": evaluate_s}
            if shard.worker == 0:
                story = {"rungs": [r.model_dump() for r in rungs], "evaluate_s": evaluate_s}
                save_state(paths.state, parameters, optimizer, position, story)
        if shard.worker == 0:
            paths.root.mkdir(parents=True, exist_ok=True)
            with paths.progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
        ray.train.report(report)

    scores = Scores()
    if diverged is None:
        measured = time.perf_counter()
        scores = measurement.scores(model)
        evaluate_s += time.perf_counter() - measured
        if shard.worker == 0:
            save_adapter(model, paths.adapter, base_path(spec.model))
    if shard.worker == 0:
        drop_state(paths.state)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    ray.train.report(
        {
            "trial": trial.id,
            "status": "COMPLETE" if diverged is None else "DIVERGED",
            "error": diverged,
            "step": position.step,
            "percent": 100 * position.step // steps,
            "train_loss": position.train_loss,
            "tokens": position.tokens,
            "tokens_per_s": position.tokens / position.train_s if position.train_s else 0.0,
            "train_s": position.train_s,
            "evaluate_s": evaluate_s,
            "wall_s": time.perf_counter() - began,
            "trainable": sum(p.numel() for p in parameters.values()),
            "peak_memory_bytes": peak,
            **scores.model_dump(),
        }
    )


def run_trial(config: dict[str, Any], job: SweepJob, shape: Any) -> None:
    """Run one Tune trial as a Ray Train job of its own.

    Args:
        config: `trial`, as plain values, and `number`.
        job: what all trials share.
        shape: resources of a trial (cluster.Shape).
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
    from ray.tune.integration.ray_train import TuneReportCallback

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    # What a stopped trial held is freed by an actor of Ray Train that looks for its cluster among
    # the processes of the machine, and gives up where it finds several; so it is told which it is.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    trial = TrialSpec.model_validate(config["trial"])
    TorchTrainer(
        train_and_measure,
        train_loop_config={"job": job, "trial": trial},
        scaling_config=ScalingConfig(
            num_workers=shape.workers,
            use_gpu=shape.gpus > 0,
            resources_per_worker=shape.per_worker,
        ),
        run_config=RunConfig(
            name=f"{job.spec.name}-{trial.id}",
            storage_path=str(SweepPaths(Path(job.root)).ray / "train"),
            callbacks=[TuneReportCallback()],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=1),
        ),
    ).fit()
