import csv
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.errors import DataError, UsageError
from lorasweep.store.results import TrialResult
from lorasweep.store.table import format_table, read_table

PUBLISHED = Path(__file__).parent.parent / "data" / "biderman_v2.csv"
GOOD = """trial,method,status,seed,learning,source_accuracy,lr,targets,rank,alpha
a,lora,COMPLETE,0,0.41,0.63,2e-4,all,16,2r
b,lora,complete,1,0.40,0.62,1e-3,mlp,64,32
c,lora,DIVERGED,0,,,1e-2,all,,
"""


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "trials.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_table_is_read_with_every_level_in_its_own_type(table):
    results = read_table(table(GOOD), ["lr", "targets", "rank", "alpha"])
    first, second, third = results.trials
    assert first.hyperparameters == {"lr": 2e-4, "targets": "all", "rank": 16, "alpha": "2r"}
    assert type(first.hyperparameters["rank"]) is int
    assert second.hyperparameters["alpha"] == 32.0
    assert (first.status, second.status, third.status) == ("COMPLETE", "COMPLETE", "DIVERGED")
    assert third.learning is None
    assert third.hyperparameters == {"lr": 1e-2, "targets": "all"}
    assert results.axes == ("lr", "targets", "rank", "alpha")
    assert results.base is None
    assert results.name == "trials"


def test_only_learning_is_needed(table):
    results = read_table(table("learning,rank\n0.5,4\n,16\n"))
    done, failed = results.trials
    assert (done.trial, done.method, done.seed, done.status) == ("row-2", "lora", 0, "COMPLETE")
    assert failed.status == "FAILED"
    assert results.axes == ("rank",)


def test_columns_of_unknown_meaning_count_where_an_axis_names_them(table):
    path = table("learning,setting,width,note\n0.5,code,8,x\n0.6,math,16,y\n")
    assert read_table(path).trials[0].hyperparameters == {}
    levels = read_table(path, ["setting", "width"]).trials[0].hyperparameters
    assert levels == {"setting": "code", "width": 8}


def test_tokens_are_a_hyperparameter_only_where_an_axis_names_them(table):
    path = table("learning,tokens,rank\n0.5,2e9,4\n0.6,4e9,16\n")
    assert read_table(path).axes == ("rank",)
    assert read_table(path).trials[0].tokens == 2_000_000_000
    assert read_table(path, ["tokens"]).trials[1].hyperparameters["tokens"] == 4_000_000_000


def test_a_method_may_lack_an_axis_altogether(table):
    text = "method,learning,lr,rank\nlora,0.5,1e-4,4\nfull,0.6,1e-5,\n"
    assert read_table(table(text), ["lr", "rank"]).trials[1].hyperparameters == {"lr": 1e-5}


def test_a_byte_order_mark_and_blank_lines_do_no_harm(table):
    assert len(read_table(table("\ufefflearning,lr\n0.5,1e-4\n\n,\n"), ["lr"]).trials) == 1


@pytest.mark.parametrize(
    ("text", "axes", "where", "what"),
    [
        ("", (), "row 1", "must have a column 'learning'"),
        ("trial;learning\na;0.5\n", (), "row 1", "comma-separated"),
        ("trial,lr\na,1e-4\n", (), "row 1", "must have a column 'learning'"),
        ("learning,lr\n", (), "", "at least one trial"),
        ("learning,lr\n0.5,fast\n", (), "row 2, column lr", "must be a number"),
        ("learning,lr\n0.5,1_0\n", (), "row 2, column lr", "must be a number"),
        ("learning,lr\n0.5,-1\n", (), "row 2, column lr", "must be above 0"),
        ("learning,lr\nnan,1e-4\n", (), "row 2, column learning", "finite"),
        ("learning,lr\n0.5,1e-4\ninf,1e-4\n", (), "row 3, column learning", "finite"),
        ("learning,x\n0.5,nan\n", ("x",), "row 2, column x", "finite"),
        ("learning,rank\n0.5,1.5\n", (), "row 2, column rank", "whole number"),
        ("learning,status\n0.5,done\n", (), "row 2, column status", "must be one of COMPLETE"),
        ("learning,status\n,COMPLETE\n", (), "row 2, column learning", "must have a score"),
        ("learning,trial\n0.5,a\n0.6,a\n", (), "row 3, column trial", "row 2 too"),
        ("learning,trial\n0.5,\n", (), "row 2, column trial", "must not be empty"),
        ("learning,method\n0.5,\n", (), "row 2, column method", "must not be empty"),
        ("learning,seed\n0.5,x\n", (), "row 2, column seed", "must be a number"),
        ("learning,lr\n0.5,1e-4,3\n", (), "row 2", "must have 2 columns"),
        ("learning,lr,lr\n0.5,1,1\n", (), "row 1", "name once, got 'lr'"),
        ("learning,lr,\n0.5,1,1\n", (), "row 1", "name once, got ''"),
        ("learning,rank\n0.5,4\n0.6,\n", ("rank",), "row 3, column rank", "must have a level"),
        ('learning,lr\n0.5,"1\n', (), "", "must be a CSV file"),
        ("learning,lr\n0.5,1e-4\n", ("rank",), "", "the axis 'rank' must be"),
        ("learning,seed\n0.5,1\n", ("seed",), "", "the axis 'seed' must be"),
    ],
)
def test_a_bad_table_is_named_in_one_sentence(table, text, axes, where, what):
    path = table(text)
    with pytest.raises(UsageError) as caught:
        read_table(path, axes)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert where in message
    assert what in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_the_users_to_mend(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(tmp_path / "none.csv")


def test_a_file_that_is_no_text_is_bad_data(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_bytes(b"learning,lr\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_table(path)


def test_the_published_table_is_read(table):
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    # The table says how long a trial was in `duration`, and knows no learning rate.
    text = PUBLISHED.read_text(encoding="utf-8").replace("duration", "hours", 1)
    results = read_table(table(text), ["setting", "rank", "hours"])
    assert len(results.trials) == len(rows)
    assert {t.method for t in results.trials} == {"lora", "full"}
    assert all(t.status == "COMPLETE" for t in results.trials)
    full = [t for t in results.trials if t.method == "full"]
    assert all("rank" not in t.hyperparameters for t in full)


NAME = st.text(string.ascii_letters + " |*_\"',=", min_size=1, max_size=8).filter(
    lambda text: text == text.strip()
)
SCORE = st.none() | st.floats(-2, 2)


@st.composite
def trial_results(draw):
    status = draw(st.sampled_from(["COMPLETE", "PRUNED", "DIVERGED", "FAILED", "RUNNING"]))
    return TrialResult(
        trial="",
        method=draw(NAME),
        status=status,
        seed=draw(st.integers(0, 9)),
        hyperparameters={
            "lr": draw(st.floats(1e-6, 1)),
            "targets": draw(NAME),
            "rank": draw(st.integers(1, 512)),
            "alpha": draw(st.sampled_from(["2r", "rslora:16", 32.0, 0.5])),
            "epochs": draw(st.floats(0.5, 8)),
        },
        number=draw(st.integers(0, 99)),
        stage=draw(st.sampled_from(["search", "confirm"])),
        learning=draw(st.floats(-1, 1)) if status == "COMPLETE" else None,
        source_accuracy=draw(SCORE),
        forgetting=draw(SCORE),
        response_loss=draw(SCORE),
        train_loss=draw(SCORE),
        tasks=draw(st.dictionaries(st.sampled_from(["gsm8k", "mbpp@3"]), st.floats(0, 1))),
        steps=draw(st.integers(0, 10**6)),
        tokens=draw(st.integers(0, 10**18)),
        wall_s=draw(st.floats(0, 1e6)),
        trainable=draw(st.integers(0, 10**12)),
        error=draw(st.none() | NAME),
    )


@given(st.lists(trial_results(), min_size=1, max_size=6))
def test_a_table_written_and_read_holds_the_same_trials(tmp_path_factory, drawn):
    from dataclasses import replace

    trials = tuple(replace(trial, trial=f"t{i}") for i, trial in enumerate(drawn))
    path = tmp_path_factory.mktemp("table") / "trials.csv"
    path.write_text(format_table(trials), encoding="utf-8")
    assert read_table(path, ["lr", "targets", "rank"]).trials == trials
