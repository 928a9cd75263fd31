"""Status of a sweep: a line for each method of each domain, whose scores do not compare."""

import json

import pytest

from lorasweep.errors import UsageError
from lorasweep.service.display import show_status
from lorasweep.service.report import write_reports
from lorasweep.service.status import status_of
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import load_results
from tests.folders import DIVERGED, TASK, sweep_folder

METHODS: dict[str, dict[str, object]] = {"lora": {}, "full": {}}
DOMAINS = {"code": {"evaluate": TASK["evaluate"]}, "math": {"evaluate": TASK["evaluate"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "mine"
    return sweep_folder(root, trials=4, ends=(DIVERGED,), methods=METHODS, domains=DOMAINS)


def test_each_method_of_each_domain_has_its_own_best_and_base(folder):
    studies = {(study.domain, study.method): study for study in status_of(folder).studies}
    assert set(studies) == {(d, m) for d in ("code", "math") for m in ("lora", "full")}
    trials = load_results(folder).trials
    for (domain, method), study in studies.items():
        own = [t for t in trials if (t.domain, t.method) == (domain, method)]
        assert study.best is not None
        assert study.base is not None
        assert study.best.learning == max(t.learning or 0 for t in own)
        assert study.base.source_accuracy == 0.8
        assert study.trials == {"COMPLETE": 3, "DIVERGED": 1}


def test_there_is_no_best_over_domains(folder):
    assert status_of(folder).best is None


def test_a_person_reads_a_line_for_each_study(folder, capsys):
    show_status(status_of(folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mine: complete, 16 of 16 trials"
    for name in ("code/lora", "code/full", "math/lora", "math/full"):
        assert sum(line.startswith(f"  best      {name}: learning 0.") for line in lines) == 1


def test_status_live_view_and_report_name_the_same_best_configuration(tmp_path, capsys):
    from lorasweep.tune.live import View
    from lorasweep.tune.progress import SweepProgress, count_known

    chosen = LoraHyperparameters(lr=1e-3, rank=16)
    lucky = {"learning": 0.9}  # on one seed alone
    twice = {"learning": 0.5, "configuration": chosen}
    again = {"learning": 0.54, "configuration": chosen, "seed": 1, "stage": "confirm"}
    root = sweep_folder(tmp_path / "mine", trials=5, ends=(lucky, twice, again))
    best = status_of(root).studies[0].best
    assert best is not None
    named = next(t for t in load_results(root).trials if t.hyperparameters["lr"] == 1e-3)
    assert (best.trial, best.seeds) == (named.trial, (0, 1))
    assert best.learning == pytest.approx(0.52)
    assert status_of(root).best == best
    show_status(status_of(root))
    assert f"learning 0.520 over 2 seeds ({named.trial})" in capsys.readouterr().out

    paths, progress = SweepPaths(root), SweepProgress(planned=5)
    with Journal(paths.journal, paths.lock) as journal:
        count_known(progress, journal)
    live = View("mine", progress, ("lr",)).summary().plain
    assert f"best learning 0.520 over 2 seeds ({named.trial[:6]})" in live

    write_reports([root], table=None, space=None, out=None)
    document = json.loads((paths.report / "analysis.json").read_text())
    recommended = document["recommendation"]["lora"]
    assert recommended["trial"] == named.trial
    assert recommended["learning"] == best.learning
    assert recommended["configuration"] == best.configuration


def test_a_folder_without_a_sweep_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="must be a results folder"):
        status_of(tmp_path)
