import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorasweep.errors import UsageError
from lorasweep.spec.sweep import parse_sweep
from lorasweep.store.merge import merge
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.scores import Scores
from tests.cost import seconds

ROOT = Path(__file__).parent.parent.parent
FIXED = {"lr": 1e-4, "targets": "all", "rank": 16, "alpha": "2r", "epochs": 1.0}


def trial(name, score=0.5, **given):
    """Make a trial of its own configuration; `given` may be fields or hyperparameters."""
    fields = {k: given.pop(k) for k in list(given) if k in TrialResult.model_fields}
    levels = {**FIXED, **given}
    return TrialResult(
        trial=name,
        method=fields.pop("method", "lora"),
        status=fields.pop("status", "COMPLETE"),
        seed=0,
        hyperparameters=levels,
        learning=score,
        **fields,
    )


def sweep(name, trials, *, base=0.8, origin=None, **content):
    """Build results as they are read from a folder."""
    spec = parse_sweep({"name": name, "space": {"lr": True}, **content})
    domains = tuple(spec.domains) or ("",)
    bases = {domain: Scores(source_accuracy=base) for domain in domains}
    return SweepResults(
        name=name,
        question=spec.question,
        axes=spec.axes,
        trials=tuple(trials),
        origin=origin or f"results/{name}",
        base=bases.get(""),
        bases=bases,
        spec=spec,
        state="complete",
        trials_planned=len(trials),
        started=1.0,
    )


def test_one_sweep_stays_as_it_is():
    alone = sweep("a", [trial("t1")])
    assert merge([alone]) is alone


def test_trials_of_sweeps_that_compare_stand_together_and_each_is_counted_once():
    shared = trial("t1", number=0)
    a = sweep("a", [shared, trial("t2", lr=1e-3, number=1)])
    b = sweep(
        "b",
        [trial("t3", lr=1e-2, number=0), shared.model_copy(update={"wall_s": 9.0, "number": 4})],
    )
    merged = merge([a, b])
    assert [t.trial for t in merged.trials] == ["t1", "t2", "t3"]
    assert [t.number for t in merged.trials] == [0, 1, 2]
    assert merged.parts == (merged,)
    assert merged.name == "a + b"
    assert (merged.state, merged.trials_planned) == ("complete", 3)
    assert merged.base == Scores(source_accuracy=0.8)
    assert merged.notes == (
        "results/a: 2 trials of the sweep a",
        "results/b: 2 trials of the sweep b, 1 of which were counted before",
    )
    assert merged.sweeps == (a, b)


def test_the_order_of_the_folders_does_not_change_the_trials():
    a = sweep("a", [trial("t1"), trial("t2", lr=1e-3)])
    b = sweep("b", [trial("t1"), trial("t3", method="full", lr=1e-5)])
    both = {t.trial: t.hyperparameters for t in merge([a, b]).trials}
    assert both == {t.trial: t.hyperparameters for t in merge([b, a]).trials}


def test_axes_are_those_of_all_and_what_differs_from_sweep_to_sweep():
    a = sweep("a", [trial("t1"), trial("t2", lr=1e-3)])
    b = sweep("b", [trial("t3", alpha="1r")], space={"rank": [16, 64]})
    c = sweep("c", [trial("t4", targets="mlp")])
    assert merge([a, b, c]).axes == ("lr", "targets", "rank", "alpha")


def test_what_each_sweep_holds_fixed_in_training_counts_as_a_hyperparameter():
    a = sweep("a", [trial("t1")], train={"optimizer": "adamw", "betas": [0.9, 0.99]})
    b = sweep("b", [trial("t2")], train={"optimizer": "lion"})
    merged = merge([a, b])
    assert merged.axes == ("lr", "train.optimizer", "train.betas")
    first, second = merged.trials
    assert first.hyperparameters["train.betas"] == "0.9 0.99"
    assert second.hyperparameters["train.betas"] == "none"
    assert (
        "train.optimizer, train.betas differ between the sweeps and so count as hyperparameters"
        in merged.notes
    )


def test_two_definitions_of_one_set_of_targets_are_two_levels():
    own = {"upper": ["up_proj"], "same": "q_proj|v_proj"}
    a = sweep("a", [trial("t1", targets="upper"), trial("t2", targets="same")], targets=own)
    b = sweep("b", [trial("t3", targets="upper"), trial("t4", targets="same")])
    b = replace(b, spec=parse_sweep({"space": {"lr": True}, "targets": {**own, "upper": "up|o_"}}))
    c = sweep("c", [trial("t5", targets="upper")], targets=own)
    merged = merge([a, b, c])
    levels = {t.trial: t.hyperparameters["targets"] for t in merged.trials}
    assert levels == {
        "t1": "upper=up_proj",
        "t2": "same",
        "t3": "upper=up|o_",
        "t4": "same",
        "t5": "upper=up_proj",
    }
    assert (
        "targets upper are defined differently in the sweeps, and so are told apart by their "
        "definitions" in merged.notes
    )
    assert [t.hyperparameters["targets"] for t in merge([a, c]).trials] == [
        "upper",
        "same",
        "upper",
    ]


def test_what_changes_no_result_sets_no_sweeps_apart():
    a = sweep("a", [trial("t1")])
    b = sweep("b", [trial("t2")], train={"recompute": True}, evaluate={"batch_size": 4})
    merged = merge([a, b])
    assert merged.parts == (merged,)
    assert merged.axes == ("lr",)


def test_durations_of_one_kind_keep_their_number():
    short = sweep("a", [trial("t1")], train={"steps": 10})
    long = sweep("b", [trial("t2", epochs=2.0)], train={"steps": 20})
    merged = merge([short, long])
    assert [t.hyperparameters.get("train.steps") for t in merged.trials] == [10, 20]
    assert all("epochs" not in t.hyperparameters for t in merged.trials)


def test_durations_of_several_kinds_are_told_in_words():
    steps = sweep("a", [trial("t1")], train={"steps": 10})
    epochs = sweep("b", [trial("t2", epochs=2.0)])
    counted = trial("t3").model_copy(update={"hyperparameters": {**FIXED, "tokens": 10**6}})
    tokens = sweep("c", [counted], hyperparameters={"tokens": 10**6})
    merged = merge([steps, epochs, tokens])
    levels = [t.hyperparameters["duration"] for t in merged.trials]
    assert levels == ["10 steps", "2.0 epochs", "1000000 tokens"]
    assert merged.axes == ("lr", "duration")
    assert not {"epochs", "tokens", "train.steps"} & set(merged.trials[0].hyperparameters)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"data": {"path": "other.jsonl"}}, "data.path"),
        ({"evaluate": {"learning": ["gsm8k"]}}, "evaluate.learning"),
        ({"evaluate": {"source": ["hellaswag"]}}, "evaluate.source"),
        ({"model": {"path": "other"}}, "model.path"),
    ],
)
def test_scores_that_do_not_compare_stand_apart(content, what):
    a = sweep("a", [trial("t1")])
    b = sweep("b", [trial("t2")], base=0.6, **content)
    merged = merge([a, b])
    assert [(part.domain, len(part.trials)) for part in merged.parts] == [("a", 1), ("b", 1)]
    assert [part.base for part in merged.parts] == [a.base, b.base]
    assert merged.base is None
    assert f"Learning is not compared between a, b, which differ in {what}" in merged.notes


def test_domains_meet_those_of_other_sweeps_that_are_the_same():
    domains = {
        "code": {"data": {"path": "code.jsonl"}},
        "math": {"data": {"path": "math.jsonl"}},
    }
    both = [trial("t1", domain="code"), trial("t2", domain="math")]
    a = sweep("a", both, domains=domains)
    b = sweep("b", [trial("t3", domain="math")], domains={"math": domains["math"]})
    c = sweep("c", [trial("t4")], data={"path": "math.jsonl"})
    merged = merge([a, b])
    assert [(p.domain, len(p.trials)) for p in merged.parts] == [("code", 1), ("math", 2)]
    merged = merge([a, c])
    assert [(p.domain, len(p.trials)) for p in merged.parts] == [("code", 1), ("math + c", 2)]


def test_sweeps_of_one_name_are_told_apart_by_their_folders():
    a = sweep("default", [trial("t1")], origin="one/results")
    b = sweep("default", [trial("t2")], origin="two/results", data={"path": "x.jsonl"})
    assert [p.domain for p in merge([a, b]).parts] == ["one/results", "two/results"]
    c = replace(b, origin="two/other")
    assert [p.domain for p in merge([a, c]).parts] == ["results", "other"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (trial("t1", 0.6), r"another learning than in results/a \(0\.6 and 0\.5\)"),
        (trial("t1", source_accuracy=0.3), r"another source accuracy .* \(0\.3 and 0\.5\)"),
        (trial("t1", None, status="DIVERGED"), "another status .* \\(DIVERGED and COMPLETE\\)"),
        (trial("t1", rank=4), r"another rank than in results/a \(4 and 16\)"),
        (trial("t1", method="full"), "another method"),
    ],
)
def test_one_trial_with_two_results_is_refused_in_one_sentence(other, what):
    a = sweep("a", [trial("t1", source_accuracy=0.5)])
    with pytest.raises(UsageError, match=f"^results/b: trial t1 has {what}") as caught:
        merge([a, sweep("b", [other])])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "FAILED", "PRUNED"])
@pytest.mark.parametrize("first", [True, False])
def test_what_one_sweep_finished_counts_where_another_did_not(status, first):
    done = sweep("a", [trial("t1", 0.7)])
    cut = sweep("b", [trial("t1", None, status=status)])
    (found,) = merge([done, cut] if first else [cut, done]).trials
    assert (found.status, found.learning) == ("COMPLETE", 0.7)


def test_a_rounding_on_another_machine_is_no_conflict():
    a = sweep("a", [trial("t1", response_loss=1.5)])
    b = sweep("b", [trial("t1", response_loss=1.50001)])
    assert merge([a, b]).trials[0].response_loss == 1.5


def test_bases_that_were_measured_differently_are_noted():
    a = sweep("a", [trial("t1", source_accuracy=0.7, forgetting=0.1)], base=0.8)
    b = sweep("b", [trial("t2", lr=1e-3, source_accuracy=0.7, forgetting=0.05)], base=0.75)
    merged = merge([a, b])
    assert [t.forgetting for t in merged.trials] == [0.1, 0.05]
    assert merged.notes[-1] == (
        "the base's source accuracy was measured as 0.800 in results/a, 0.750 in results/b, and "
        "each sweep counts forgetting against its own"
    )


def test_a_sweep_that_has_not_begun_or_was_cut_off_says_so_for_all():
    begun = replace(sweep("a", [trial("t1")]), notes=("data were cut",))
    new = replace(sweep("b", []), state=None, trials_planned=None, started=None)
    merged = merge([begun, new])
    assert (merged.state, merged.trials_planned, merged.started) == ("complete", None, 1.0)
    assert "results/b: 0 trials of the sweep b" in merged.notes
    assert "results/a: data were cut" in merged.notes
    assert merge([begun, replace(new, state="interrupted")]).state == "interrupted"


def test_methods_of_two_sweeps_meet_in_one_domain():
    lora = sweep("a", [trial("t1")])
    full = sweep(
        "b", [trial("t2", method="full")], hyperparameters={"method": "full"}, train={"clip": 2.0}
    )
    merged = merge([full, lora])
    assert [t.method for t in merged.trials] == ["lora", "full"]
    assert merged.parts == (merged,)
    # Nothing sets trials of one method apart.
    assert "train.clip" not in merged.axes


def test_ten_thousand_trials_are_merged_in_a_second_and_fewer_in_proportion():
    def merging(count):
        sweeps = [
            sweep(name, [trial(f"{name}{i}", lr=1e-6 * (i + 1), number=i) for i in range(count)])
            for name in "ab"
        ]
        assert len(merge(sweeps).trials) == 2 * count
        return lambda: merge(sweeps)

    spent = seconds(merging(5000))
    assert spent < 1
    assert spent < 30 * seconds(merging(500))  # 100 times as their square


def test_neither_torch_nor_ray_is_loaded():
    program = (
        "import sys; from lorasweep.service.report import write_reports\n"
        "import lorasweep.store.merge, lorasweep.store.table, lorasweep.service.export\n"
        "import lorasweep.service.export_optuna, lorasweep.service.export_runs\n"
        "import lorasweep.report.render\n"
        "print(*[m for m in ('torch', 'ray', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
