"""A sweep built from command-line options: methods, axes, data and what they replace."""

import pytest
import yaml

from lorasweep.errors import SpecError
from lorasweep.service.build import build_sweep
from lorasweep.service.options import SweepOptions
from lorasweep.spec.presets import default_sweep
from lorasweep.spec.space import DEFAULT_AXES, Choices, Range
from lorasweep.spec.sweep import parse_sweep
from lorasweep.spec.trial import LoraHyperparameters

TESTBED = Range(low=3e-4, high=3e-2, log=True)
TENTH = Range(low=3e-5, high=3e-3, log=True)
NO_RANK = "space.rank: full finetuning has no rank; it has lr, attention_dropout, weight_decay"
BOTH = {
    "space": {"lr": [1e-3], "rank": [4]},
    "methods": {
        "lora": {"space": {"targets": ["mlp"]}, "search": {"trials": 5}},
        "full": {"space": {"lr": [3e-5], "attention_dropout": [0.0, 0.1]}},
    },
}


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


def built(path, **options):
    return build_sweep(SweepOptions(path, **options))


def refusal(path, **options):
    with pytest.raises(SpecError) as caught:
        built(path, **options)
    return caught.value.problems


def test_without_options_the_built_in_sweep_is_built():
    assert built(None) == parse_sweep(default_sweep(None, None))
    assert built(None, method="lora") == built(None)


def test_the_built_in_sweep_is_converted_to_full_finetuning():
    (full,) = built(None, method="full").studies
    assert full.space.axes == {"lr": TENTH}
    assert full.search.trials == 16
    assert (full.method, full.hyperparameters.lr) == ("full", 2e-5)
    published = built(None, method="full", model="org/model").studies[0]
    assert published.space.axes == {"lr": Range(low=1e-6, high=5e-4, log=True)}


@pytest.mark.parametrize("method", ["lora,full", "full,lora", " full , lora,full"])
def test_both_methods_share_the_built_in_sweep_in_any_order(method):
    lora, full = built(None, method=method).studies
    assert lora.space == built(None).space
    assert full.space.axes == {"lr": TENTH}


def test_methods_that_remain_keep_their_own_sections(file):
    path = file(BOTH)
    assert [study.method for study in built(path).studies] == ["lora", "full"]
    (lora,) = built(path, method="lora").studies
    assert tuple(lora.space.axes) == ("lr", "targets", "rank")
    assert lora.search.trials == 5
    (full,) = built(path, method="full").studies
    assert full.space.axes == {
        "lr": Choices(values=(3e-5,)),
        "attention_dropout": Choices(values=(0.0, 0.1)),
    }
    assert built(path, method="full,lora") == built(path)


def test_a_file_for_full_finetuning_is_converted_to_lora(file):
    path = file({"space": {"lr": [1e-5]}, "hyperparameters": {"method": "full", "lr": 3e-5}})
    (lora,) = built(path, method="lora").studies
    assert lora.hyperparameters == LoraHyperparameters(lr=3e-4)
    assert lora.space.axes.get("lr") == Choices(values=(1e-4,))
    lora, full = built(path, method="lora,full").studies
    assert (lora.method, full.method) == ("lora", "full")
    assert full.space.axes.get("lr") == Choices(values=(1e-5,))


@pytest.mark.parametrize(
    ("method", "got"), [("dora", "dora"), ("lora,fulll", "fulll"), ("", ""), ("lora,", "")]
)
def test_an_unknown_method_is_one_sentence_that_names_the_known_ones(method, got):
    assert refusal(None, method=method) == (f"--method: must be one of lora, full, got {got!r}",)


def test_axes_that_are_named_are_taken_as_given():
    (full,) = built(None, method="full", space="lr=1e-4..1e-2,warmup").studies
    assert full.space.axes == {
        "lr": Range(low=1e-4, high=1e-2, log=True),
        "warmup": DEFAULT_AXES["warmup"],
    }
    (full,) = built(None, method="full", space="lr").studies
    assert full.space.axes == {"lr": TENTH}


def test_an_axis_that_no_method_has_is_refused():
    (problem,) = refusal(None, method="full", space="lr,rank")
    assert problem.startswith(NO_RANK)
    (problem,) = refusal(None, method="lora", space="lr,attention_dropout")
    assert problem.startswith("space.attention_dropout: LoRA has no attention_dropout")
    (problem,) = refusal(None, method="lora,full", space="lr,full.rank=4")
    assert problem.startswith(NO_RANK)


def test_an_axis_of_one_method_is_searched_by_that_one():
    lora, full = built(None, method="lora,full", space="lr,rank=4|8,attention_dropout").studies
    assert lora.space.axes == {"lr": TESTBED, "rank": Choices(values=(4, 8))}
    assert full.space.axes == {
        "lr": TENTH,
        "attention_dropout": DEFAULT_AXES["attention_dropout"],
    }


def test_a_method_may_be_given_a_range_of_its_own():
    lora, full = built(None, method="lora,full", space="lr,full.lr").studies
    assert (lora.space.axes.get("lr"), full.space.axes.get("lr")) == (TESTBED, TENTH)
    space = "lr=1e-4..1e-2,full.lr=1e-6..1e-4,lora.rank=4"
    lora, full = built(None, method="lora,full", space=space).studies
    assert lora.space.axes == {
        "lr": Range(low=1e-4, high=1e-2, log=True),
        "rank": Choices(values=(4,)),
    }
    assert full.space.axes == {"lr": Range(low=1e-6, high=1e-4, log=True)}


def test_axes_named_without_a_range_keep_each_methods_own(file):
    lora, full = built(file(BOTH), space="lr,rank").studies
    assert lora.space.axes == {"lr": Choices(values=(1e-3,)), "rank": Choices(values=(4,))}
    assert full.space.axes == {"lr": Choices(values=(3e-5,))}
    lora, full = built(file(BOTH), space="lr=1e-2").studies
    assert full.space.axes == {"lr": Choices(values=(1e-3,))}


def test_the_space_of_a_method_that_does_not_run_is_one_sentence():
    assert refusal(None, space="lr,full.lr=1e-6..1e-4") == (
        "space.full: must be a method of the sweep, lora, got 'full'; --method names those that "
        "run",
    )


def test_all_mistakes_come_at_once():
    problems = refusal(None, method="dora", space="lr,speed", assignments=["oops=1"])
    assert [problem.split(":")[0] for problem in problems] == ["--method", "space", "oops"]


DOMAINS = {
    "space": {"lr": True},
    "domains": {
        "code": {
            "data": {"path": "testbed-code"},
            "evaluate": {"learning": ["testbed_code"], "allow_code_execution": False},
            "search": {"trials": 3},
        },
        "math": {"data": {"limit": 9}},
    },
}


def test_programs_may_run_where_the_command_line_says_so(file):
    assert not any(study.evaluate.allow_code_execution for study in built(file(DOMAINS)).studies)
    allowed = built(file(DOMAINS), allow_code_execution=True)
    assert all(study.evaluate.allow_code_execution for study in allowed.studies)
    assert allowed.studies[0].evaluate.learning == ("testbed_code",)


def test_domains_are_carried_over_with_the_rest(file):
    domain = {"space": {"lr": [1e-3], "rank": [4]}, "hyperparameters": {"dropout": 0.1}}
    path = file({"space": {"lr": True}, "domains": {"code": domain}})
    (full,) = built(path, method="full").studies
    assert full.study_name == "code/full"
    assert full.space.axes == {"lr": Choices(values=(1e-4,))}


def test_the_number_of_trials_is_that_of_every_study(file):
    assert [study.search.trials for study in built(file(DOMAINS), trials=7).studies] == [7, 7]


def test_data_cannot_be_named_beside_those_of_domains(file):
    assert refusal(file(DOMAINS), data="mine.jsonl") == (
        "--data: must not be given where domains.code names its own data; use "
        "--set domains.code.data.path=mine.jsonl",
    )
    spec = built(file(DOMAINS), assignments=["domains.code.data.path=mine.jsonl"])
    assert spec.studies[0].data.path == "mine.jsonl"


def test_the_last_word_is_that_of_an_assignment():
    spec = built(None, seed=3, slots="2", model="org/model", assignments=["seed=4"])
    assert (spec.seed, spec.slots, spec.model.path) == (4, 2, "org/model")


def test_a_file_that_names_an_unknown_method_is_refused_by_its_own_sentence(file):
    content = {"space": {"lr": True}, "methods": {"dora": {}, "full": {}}}
    assert refusal(file(content), space="lr") == ("methods: must be one of lora, full, got 'dora'",)


LORAS, FULLS = Range(low=1e-5, high=5e-3, log=True), Range(low=1e-6, high=5e-4, log=True)
OF_FULL = {"hyperparameters": {"method": "full"}}


@pytest.mark.parametrize(
    ("content", "options", "ranges"),
    [
        ({**OF_FULL, "space": {"warmup": True}}, {"space": "lr"}, [FULLS]),
        ({**OF_FULL, "space": {"lr": True}}, {"method": "lora"}, [LORAS]),
        ({"space": {"rank": True}}, {"method": "full", "space": "lr"}, [FULLS]),
        ({"space": {"rank": True}}, {"method": "lora,full", "space": "lr"}, [LORAS, FULLS]),
        ({"space": {"rank": True}}, {"method": "lora,full", "space": "rank,full.lr"}, [FULLS]),
    ],
)
def test_a_learning_rate_without_any_range_has_its_methods_default(file, content, options, ranges):
    spec = built(file(content), **options)
    assert [axes["lr"] for study in spec.studies if "lr" in (axes := study.space.axes)] == ranges


def test_a_range_for_one_method_leaves_the_others_what_they_have(file):
    own = {"lora": {}, "full": {"space": {"lr": "1e-6..1e-5"}}}
    content = {"methods": own, "space": {"lr": "1e-5..1e-2", "rank": [4]}}
    spec = built(file(content), space="lora.lr=1e-4..1e-3,rank")
    mine, its = Range(low=1e-4, high=1e-3, log=True), Range(low=1e-6, high=1e-5, log=True)
    assert [study.space.axes.get("lr") for study in spec.studies] == [mine, its]
    spec = built(file(content), space="lr=1e-4..1e-3,rank")  # without an owner it is for all
    shared = Range(low=1e-5, high=1e-4, log=True)
    assert [study.space.axes.get("lr") for study in spec.studies] == [mine, shared]


def test_a_range_for_one_method_is_refused_where_a_domain_has_one_for_all(file):
    content = {
        "methods": {"lora": {}, "full": {}},
        "domains": {"code": {"space": {"lr": "1e-4..1e-3"}}},
        "space": {"lr": "1e-5..1e-2", "rank": [4]},
    }
    assert refusal(file(content), space="lr,rank,full.lr=1e-6..1e-5") == (
        "space.full.lr: must not be given where domains.code.space.lr is, which is for all "
        "methods; use --set domains.code.space.lr=RANGE",
    )


@pytest.mark.parametrize("path", ["/data/my #1 set", "[a].jsonl", "./run: final", "2024", "*"])
def test_a_path_is_taken_as_it_stands(path):
    spec = built(None, model=path, data=path)
    assert (spec.model.path, spec.data.path) == (path, path)


def test_a_number_of_slots_is_written_in_digits():
    assert built(None, slots="3").slots == 3
    assert refusal(None, slots="²") == ("slots: must be auto or a number of at least 1, got '²'",)


def test_a_misspelt_hyperparameter_is_refused_for_any_method(file):
    content = {"hyperparameters": {"wamup": 0.2}, "space": {"lr": True}}
    assert "wamup" in refusal(file(content), method="full")[0]
