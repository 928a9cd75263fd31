import csv
import io
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.errors import DataError, UsageError
from lorasweep.store.results import TrialResult
from lorasweep.store.table import format_table, read_table
from tests.cost import seconds

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
        ("trial|learning\na|0.5\n", (), "row 1", "commas, semicolons or tabs"),
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
        ("learning,lr\n0,5e-1\n1.5;1e-4\n", (), "row 3", "must have 2 columns"),
        ("learning;lr\n0,5;1e-4\n", (), "row 2, column learning", "with a decimal point"),
        ("learning,lr\n1e31,1e-4\n", (), "row 2, column learning", "at most 1e+30"),
        ("learning,lr\n0.5,1e-320\n", (), "row 2, column lr", "at least 1e-30 in size"),
        ("learning,targets\n0.5,a\x1bb\n", (), "row 2, column targets", "control characters"),
        ("learning,a\x1bb\n0.5,1\n", (), "row 1", "printable"),
        (f"learning,{'x' * 999}\n0.5,1\n", (), "row 1", "at most 200"),
        ("learning,domain\n0.5,a\n0.6,\n", (), "row 3, column domain", "must not be empty"),
        ("learning,setting\n0.5,a\n0.6,\n", (), "row 3, column setting", "must not be empty"),
        (
            "learning,method\n" + "".join(f"0.5,m{i}\n" for i in range(60)),
            (),
            "column method",
            "at most 50, got 60",
        ),
        (
            "learning,note\n" + "".join(f"0.5,n{i}\n" for i in range(300)),
            ("note",),
            "column note",
            "at most 200 levels, got 300",
        ),
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


@pytest.mark.parametrize("name", ["none.csv", ""])
def test_a_missing_file_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read_is_one_sentence(table):
    path = table(GOOD)
    path.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(path)


def test_a_file_that_is_no_text_is_bad_data(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_bytes(b"learning,lr\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="row 2: must be text in UTF-8, got byte 0xff"):
        read_table(path)


def test_the_published_table_is_read_setting_by_setting():
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    results = read_table(PUBLISHED, ["rank", "targets", "duration"])
    assert len(results.trials) == len(rows)
    assert {t.method for t in results.trials} == {"lora", "full"}
    assert all(t.status == "COMPLETE" for t in results.trials)
    assert all("rank" not in t.hyperparameters for t in results.trials if t.method == "full")
    assert [part.domain for part in results.parts] == list(
        dict.fromkeys(r["setting"] for r in rows)
    )
    assert results.notes == (
        "duration is in billion tokens (code-cpt, math-cpt), epochs (code-ift, math-ift)",
    )
    assert results.trials[0].hyperparameters["duration"] == 0.25


def test_a_setting_is_a_domain_unless_an_axis_or_a_domain_says_otherwise(table):
    text = "learning,setting,rank\n0.5,code,4\n0.6,math,16\n"
    assert [t.domain for t in read_table(table(text)).trials] == ["code", "math"]
    assert [t.domain for t in read_table(table(text), ["setting"]).trials] == ["", ""]
    both = "learning,setting,domain\n0.5,a,code\n0.6,b,math\n"
    assert [t.domain for t in read_table(table(both)).trials] == ["code", "math"]


def test_durations_carry_their_unit_where_one_domain_has_several(table):
    text = "learning,duration,unit\n0.5,1,epochs\n0.6,2,epochs\n0.7,2,billion tokens\n"
    results = read_table(table(text))
    levels = [t.hyperparameters["duration"] for t in results.trials]
    assert levels == ["1 epochs", "2 epochs", "2 billion tokens"]
    assert results.axes == ("duration",)
    assert results.notes == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_is_read(tmp_path, separator, end):
    path = tmp_path / "trials.csv"
    text = GOOD.replace(",", separator).replace("\n", end)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    expected = tmp_path / "plain.csv"
    expected.write_text(GOOD)
    assert read_table(path).trials == read_table(expected).trials


def test_a_quoted_cell_may_go_over_lines_and_rows_are_those_of_the_file(table):
    text = 'learning,targets,note\n0.5,"at\ntention","a\nb"\nx,all,\n'
    with pytest.raises(DataError, match="row 5, column learning"):
        read_table(table(text))
    results = read_table(table(text.replace("x,all", "1,all")))
    assert results.trials[0].hyperparameters["targets"] == "at tention"


def test_a_remark_may_be_long_and_a_level_may_not(table):
    long = "x" * 10**6
    assert len(read_table(table(f"learning,note,error\n0.5,{long},{long}\n")).trials) == 1
    assert csv.field_size_limit() < 10**6
    with pytest.raises(DataError, match="at most 200 characters") as caught:
        read_table(table(f"learning,targets\n0.5,{long}\n"))
    assert len(str(caught.value)) < 300


def test_more_learning_is_better_whatever_its_unit(table):
    scores = [t.learning for t in read_table(table("learning\n-3.5\n0\n87.5\n")).trials]
    assert scores == [-3.5, 0.0, 87.5]


def test_a_trial_that_did_not_complete_may_have_nan_as_its_score(table):
    text = "learning,response_loss,status\nnan,inf,DIVERGED\nNaN,,FAILED\n0.5,1.5,COMPLETE\n"
    diverged, failed, complete = read_table(table(text)).trials
    assert (diverged.learning, diverged.response_loss, failed.learning) == (None, None, None)
    assert (complete.learning, complete.response_loss) == (0.5, 1.5)


def test_axes_may_be_written_as_for_a_sweep(table):
    path = table("learning,rank,a b\n0.5,4,x\n0.6,16,y\n")
    assert read_table(path, ["rank=4|16", "a  b", "rank"]).axes == ("rank", "a b")


def test_planned_tokens_and_trained_tokens_are_different_columns(tmp_path):
    stopped = TrialResult(
        trial="a",
        method="lora",
        status="PRUNED",
        seed=0,
        hyperparameters={"tokens": 10**9, "lr": 1e-4},
        tokens=5 * 10**8,
    )
    path = tmp_path / "trials.csv"
    path.write_text(format_table([stopped]))
    assert read_table(path, ["lr", "tokens"]).trials[0].tokens == stopped.tokens
    assert read_table(path, ["tokens"]).trials[0].hyperparameters == stopped.hyperparameters


def test_ten_thousand_rows_are_read_in_a_second_and_fewer_in_proportion(tmp_path):
    def reading(count):
        rows = "".join(f"t{i},lora,0,0.{i:06d},{i % 7},all,1e-4\n" for i in range(count))
        path = tmp_path / f"{count}.csv"
        path.write_text("trial,method,seed,learning,rank,targets,lr\n" + rows)
        assert len(read_table(path, ["lr", "rank"]).trials) == count
        return lambda: read_table(path, ["lr", "rank"])

    spent = seconds(reading(10_000))
    assert spent < 1
    assert spent < 30 * seconds(reading(1_000))  # 100 times as their square


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
    trials = tuple(trial.model_copy(update={"trial": f"t{i}"}) for i, trial in enumerate(drawn))
    path = tmp_path_factory.mktemp("table") / "trials.csv"
    path.write_text(format_table(trials), encoding="utf-8")
    assert read_table(path, ["lr", "targets", "rank"]).trials == trials


CELL = st.text(max_size=12) | st.sampled_from(
    [
        "0.5",
        "nan",
        "-inf",
        "1e400",
        "",
        " ",
        "COMPLETE",
        "lora",
        "all",
        "16",
        '"',
        ",",
        "\n",
        "\x00",
    ]
)
COLUMN = st.sampled_from(
    ["learning", "lr", "rank", "targets", "method", "trial", "status", "seed", "domain", "note"]
)


@given(
    header=st.lists(COLUMN | CELL, max_size=5),
    rows=st.lists(st.lists(CELL, max_size=5), max_size=5),
    separator=st.sampled_from(",;\t"),
    axes=st.lists(COLUMN, max_size=2),
    raw=st.binary(max_size=8),
)
def test_whatever_a_table_holds_it_is_read_or_refused_in_one_sentence(
    tmp_path_factory, header, rows, separator, axes, raw
):
    path = tmp_path_factory.mktemp("any") / "trials.csv"
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([["learning", *header], *rows])
    content = text.getvalue().encode("utf-8", "surrogatepass")
    path.write_bytes(content.replace(b"all", raw) if raw else content)
    refused = None
    try:
        trials = read_table(path, axes).trials
    except UsageError as error:
        refused = str(error)
    if refused is None:
        assert trials
        assert all(t.learning is not None for t in trials if t.status == "COMPLETE")
    else:
        assert "\n" not in refused
        assert len(refused) < 1000
