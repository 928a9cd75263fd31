"""The plain arm that wastes nothing: one warm process, one trial after another, on all cores."""

from __future__ import annotations

from plain import (
    attach_adapter,
    choose_device,
    load_base,
    load_data,
    load_tasks,
    load_tokenizer,
    read_sweep,
    run_trial,
)
from scores import parse_arguments, trial_row, write_scores


def main() -> None:
    """Run the trials of a sweep file and write their scores."""
    sweep, out = parse_arguments(__doc__)
    spec, device = read_sweep(sweep), choose_device()
    tokenizer, base = load_tokenizer(spec), load_base(spec, device)
    data, tasks = load_data(spec, tokenizer), load_tasks(spec.evaluate)
    trials, first_steps = [], []
    for values in spec.space.grid(spec.search.grid_points):
        trial = spec.trial(values)
        model = attach_adapter(base, trial.hyperparameters, trial.seed)
        measured = run_trial(
            model,
            tokenizer,
            data,
            tasks,
            spec,
            trial.hyperparameters,
            seed=trial.seed,
            device=device,
        )
        base = model.unload()
        trials.append(trial_row(values, measured))
        first_steps.append(measured["first_step"])
        print(trials[-1], flush=True)
    write_scores(out, trials, min(first_steps))


if __name__ == "__main__":
    main()
