import random
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorasweep.analysis.advice.command import extended_range, train_command
from lorasweep.analysis.advice.recommend import gain_of_more_trials
from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.scale import lay_out
from lorasweep.service.build import build_sweep
from lorasweep.service.options import SweepOptions
from lorasweep.spec.file import read_yaml
from lorasweep.spec.space import Choices, Range, read_axis
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.store.results import SweepResults, TrialResult
from tests.analysis.planted import planted_grid, sweep, trial

SWEEPS = Path(__file__).parent.parent.parent.parent / "sweeps"


def spec_of(command):
    """Assemble the sweep of a command line as `lorasweep tune` does."""
    words = shlex.split(command)
    assert words[:2] == ["lorasweep", "tune"]
    given: dict[str, Any] = {}
    assignments, path, rest = [], None, words[2:]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            path = Path(word)
        elif word == "--set":
            assignments.append(rest.pop(0))
        else:
            given[word.removeprefix("--")] = rest.pop(0)
    given.pop("out", None)
    return build_sweep(SweepOptions(path, assignments=assignments, **given))


def results_of(name, folder):
    """Make the results of a sweep file, with one trial at the first point of each study."""
    spec = parse_sweep(read_yaml(SWEEPS / f"{name}.yaml"))
    (folder / "sweep.yaml").write_text(dump_sweep(spec))
    trials = []
    for study in spec.studies:
        made = study.trial(next(iter(study.space.grid(3))))
        levels = made.hyperparameters.model_dump(exclude_none=True)
        method = levels.pop("method")
        trials.append(
            TrialResult(
                trial=made.id,
                method=method,
                status="COMPLETE",
                seed=made.seed,
                hyperparameters=levels,
                domain=study.domain,
                learning=0.5,
            )
        )
    return SweepResults(name, "", spec.axes, tuple(trials), str(folder), spec=spec)


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("*.yaml")))
def test_the_command_trains_the_very_trial_and_no_other(name, tmp_path):
    results = results_of(name, tmp_path)
    for part in results.parts:
        for found in analyse(part).of_domain(part.domain).recommendation.values():
            (study,) = spec_of(found.command).studies
            (point,) = study.space.grid(study.search.grid_points)
            wanted = next(t for t in part.trials if t.method == found.method)
            assert study.trial(point).id == wanted.trial
            assert study.search.algorithm == "grid"
            assert study.search.repetitions(1) == 0


def test_a_table_gives_a_command_to_be_filled_in():
    levels: dict[str, Any] = {"lr": 1e-4, "targets": "q,v", "rank": 16, "duration": 2.0}
    spec = spec_of(train_command(sweep([]), "lora", levels))
    assert spec.model.path == "MODEL"
    assert next(iter(spec.space.grid(2))) == {"lr": 1e-4, "rank": 16}
    assert train_command(sweep([]), "dora", levels) is None
    assert train_command(sweep([]), "full", {"duration": 2.0}) is None


@pytest.mark.parametrize(
    ("name", "axis", "side", "fragment"),
    [
        ("lr", Range(low=1e-5, high=1e-2, log=True), "upper", "lr=1e-05..0.1"),
        ("lr", Range(low=1e-5, high=4e-5, log=True), "lower", "lr=2.5e-06..4e-05"),
        ("lr", Range(low=1e-1, high=10, log=True), "upper", None),
        ("dropout", Range(low=0.1, high=0.3), "lower", "dropout=0..0.3"),
        ("rank", Choices(values=(4, 16, 64)), "upper", "rank=4|16|64|256"),
        ("rank", Choices(values=(1, 2, 4)), "lower", None),
        ("epochs", Choices(values=(1.0, 2.0, 4.0)), "lower", "epochs=0.5|1|2|4"),
        ("duration", Choices(values=(1.0, 2.0, 4.0)), "upper", None),
        ("targets", Choices(values=("mlp", "all")), "upper", None),
    ],
)
def test_a_range_is_extended_where_the_best_hit_its_end(name, axis, side, fragment):
    values = list(axis.values) if isinstance(axis, Choices) else [axis.low, axis.high]
    found = extended_range(name, lay_out(name, values, axis), side)
    assert found == fragment
    if found:
        assert read_axis(name, found.partition("=")[2])


def test_an_end_that_was_hit_is_named_with_words_for_the_command_line():
    steps = analyse(planted_grid()).recommendation["lora"].steps
    by_name = {step.hyperparameter: step for step in steps if step.action == "extend"}
    assert by_name["rank"].options == "--space 'lr,targets,rank=4|16|64|256'"
    assert by_name["lr"].side == "upper"


def test_a_rate_above_which_trials_diverged_is_not_extended():
    results = planted_grid()
    lost = trial("lost", status="DIVERGED", lr=1e-3, targets="all", rank=4, number=99)
    steps = analyse(replace(results, trials=(*results.trials, lost))).recommendation["lora"].steps
    assert "lr" not in {step.hyperparameter for step in steps}


def test_a_plateau_is_told_from_a_rise_and_from_too_little():
    draw = random.Random(2)
    flat = [trial(f"t{i}", 0.5 + draw.gauss(0, 0.0005), rank=i) for i in range(40)]
    assert gain_of_more_trials(flat, 0.005, is_grid=False).verdict == "unlikely to help"
    wide = [trial(f"t{i}", draw.random(), rank=i) for i in range(10)]
    assert gain_of_more_trials(wide, 0.005, is_grid=False).verdict == "may help"
    assert gain_of_more_trials(flat[:5], 0.005, is_grid=False).verdict == "cannot tell"
    assert gain_of_more_trials(flat, 0.005, is_grid=True).gain is None


def test_the_gain_of_doubling_equals_its_definition():
    """By enumeration: the best of eight draws less that of four, of the scores drawn."""
    import itertools

    scores = [0.1, 0.2, 0.4, 0.8, 0.1, 0.2, 0.4, 0.8]
    trials = [trial(f"t{i}", score, rank=i) for i, score in enumerate(scores)]
    found = gain_of_more_trials(trials, 0.005, is_grid=False).gain

    def best_of(draws):
        every = [max(own) for own in itertools.product(scores[:4], repeat=draws)]
        return sum(every) / len(every)

    assert found is not None
    assert found.effect == pytest.approx(best_of(8) - best_of(4))


def test_a_tie_with_the_runner_up_is_called_one():
    trials = [
        trial(f"{name}{seed}", score + 0.02 * (seed - 0.5), number=i, seed=seed, rank=rank)
        for i, (name, score, rank) in enumerate((("a", 0.5, 4), ("b", 0.499, 16), ("c", 0.4, 64)))
        for seed in range(2)
    ]
    found = analyse(sweep(trials, axes=("rank",))).recommendation["lora"]
    assert "tie" in found.why
    expected = found.expected
    assert expected.low is not None
    assert expected.high is not None
    assert expected.low < expected.learning < expected.high
    assert [step.action for step in found.steps] == ["extend", "confirm"]
