"""The arm written from Ray's user guide: a Tuner whose trials each start a TorchTrainer.

See "Hyperparameter Tuning with Ray Tune" in Ray Train's documentation. Everything is left at Ray's
defaults, and each trial loads what it needs, as the guide's training function does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
import ray.train.torch
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from scores import AXES, parse_arguments, trial_row, write_scores

from lorasweep.spec.file import read_yaml
from lorasweep.spec.sweep import parse_sweep


def train_fn_per_worker(config: dict[str, Any]) -> None:
    """Train and measure one trial in a worker of Ray Train."""
    # Imported here, so that only workers load torch, and not the driver process of each trial too.
    from plain import (
        attach_adapter,
        load_base,
        load_data,
        load_tasks,
        load_tokenizer,
        read_sweep,
        run_trial,
    )

    spec, device = read_sweep(Path(config["sweep"])), ray.train.torch.get_device()
    trial = spec.trial({name: config[name] for name in AXES})
    tokenizer, base = load_tokenizer(spec), load_base(spec, device)
    model = attach_adapter(base, trial.hyperparameters, trial.seed)
    measured = run_trial(
        ray.train.torch.prepare_model(model),
        tokenizer,
        load_data(spec, tokenizer),
        load_tasks(spec.evaluate),
        spec,
        trial.hyperparameters,
        seed=trial.seed,
        device=device,
    )
    ray.train.report(measured)


def train_driver_fn(config: dict[str, Any]) -> None:
    """Start the Ray Train job of one trial and wait for it."""
    TorchTrainer(
        train_fn_per_worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1, use_gpu=config["gpu"]),
        run_config=RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def main() -> None:
    """Run the trials of a sweep file and write their scores."""
    sweep, out = parse_arguments(__doc__)
    spec = parse_sweep(read_yaml(sweep))
    levels = spec.space.levels(spec.search.grid_points)
    storage = str(out.parent / "textbook")

    # The guide bounds max_concurrent_trials so that the drivers, which take a CPU each by default,
    # leave CPUs for the workers. On two cores that leaves room for one trial at a time. So the
    # drivers take a resource made up for them, as the guide does to pin drivers to a node, and
    # every core trains.
    ray.init(resources={"driver": 1000})
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    tuner = tune.Tuner(
        tune.with_resources(train_driver_fn, {"cpu": 0, "driver": 1}),
        param_space={
            **{name: tune.grid_search(list(values)) for name, values in levels.items()},
            "sweep": str(sweep),
            "storage": storage,
            "gpu": gpus > 0,
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=gpus or int(resources["CPU"])),
        run_config=tune.RunConfig(name="tune", storage_path=storage),
    )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]
    trials = [trial_row(result.config, result.metrics) for result in results]
    write_scores(out, trials, min(result.metrics["first_step"] for result in results))


if __name__ == "__main__":
    main()
