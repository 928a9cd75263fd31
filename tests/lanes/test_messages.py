"""Messages arrive as they were sent: through Tune, and pickled between processes."""

import pytest
from ray import cloudpickle
from ray.tune.utils import flatten_dict

from lorasweep.lanes.messages import (
    LaneCommands,
    LaneFacts,
    LaneNews,
    LeaseLost,
    MeasuredBase,
    RungPassed,
    SessionCutOff,
    Suggestion,
    TrialFailed,
    TrialRequeued,
    TrialSaved,
    TuneReport,
    from_config,
    from_tune,
    is_final,
    rung_of,
    to_config,
    to_tune,
)
from lorasweep.spec.trial import LoraHyperparameters, TrialSpec
from lorasweep.store.records import MatrixSpectrum, Rung, SpectrumMeasured
from lorasweep.store.scores import Scores
from tests.lanes.reports import ended, progress

RUNG = Rung(percent=25, step=3, response_loss=1.0)
MATRIX = MatrixSpectrum(
    name="q_proj",
    layer=0,
    module="q_proj",
    outputs=4,
    inputs=4,
    update=1,
    base=2,
    tuned=2,
    noise=3,
    noisy=2,
    effective=1.5,
    share=0.1,
    intruders=0,
)
SPECTRUM = SpectrumMeasured(trial="a", matrices=(MATRIX,), wall_s=0.5)
TRIAL = TrialSpec(id="a", hyperparameters=LoraHyperparameters(lr=2e-3), seed=3, stage="confirm")
REPORTS: list[TuneReport] = [
    progress(),
    progress(rung=RUNG),
    RungPassed(trial="a", rung=RUNG),
    ended(),
    ended(scores=Scores(tasks={"gsm8k": 0.5}), spectrum=SPECTRUM, peak_memory_bytes=7),
    ended(status="DIVERGED", error="the training loss is not finite", scores=Scores()),
    TrialFailed(trial="a", error="no memory"),
    SessionCutOff(trial="a"),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_comes_out_of_tune_as_it_went_in(report):
    added = {"done": True, "training_iteration": 3, "time_total_s": 1.0, "config": {"lr": 0.1}}
    result = cloudpickle.loads(cloudpickle.dumps({**to_tune(report), **added}))
    assert from_tune(result) == report
    assert from_tune(flatten_dict(result)) == report  # which is what Tune's schedulers get


def test_a_result_in_which_no_trial_has_reported_holds_no_report():
    assert from_tune({}) is None
    assert from_tune({"training_iteration": 1, "done": False}) is None


def test_a_suggestion_comes_out_of_a_config_as_it_went_in():
    suggestion = Suggestion(TRIAL, 7)
    assert from_config(cloudpickle.loads(cloudpickle.dumps(to_config(suggestion)))) == suggestion


def test_an_ended_and_a_failed_trial_report_nothing_further():
    assert [is_final(report) for report in REPORTS] == [False] * 3 + [True] * 4 + [False]


def test_only_progress_at_a_rung_and_rungs_passed_before_are_judged():
    assert [rung_of(report) for report in REPORTS] == [None, RUNG, RUNG] + [None] * 5


@pytest.mark.parametrize(
    "message",
    [
        LaneNews(
            0,
            1,
            LaneFacts(2, "as given", {"1": 100.0}, notes=("a note",)),
            (progress(), TrialSaved("a"), TrialRequeued("a", "no memory")),
            MeasuredBase(Scores(learning=0.1)),
        ),
        LaneCommands(start=(TRIAL,), release=("b",), measure_base=True),
        LeaseLost(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_of_a_lane_is_pickled_whole(message):
    assert cloudpickle.loads(cloudpickle.dumps(message)) == message
