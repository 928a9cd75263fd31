"""How far a sweep has come: a line for each method of each domain, whose scores do not compare."""

import pytest

from lorasweep.errors import UsageError
from lorasweep.service.status import show_status, status_of
from lorasweep.store.results import load_results
from tests.folders import DIVERGED, TASK, sweep_folder

METHODS: dict[str, dict[str, object]] = {"lora": {}, "full": {}}
DOMAINS = {"code": {"evaluate": TASK["evaluate"]}, "math": {"evaluate": TASK["evaluate"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "mine"
    return sweep_folder(root, trials=4, ends=(DIVERGED,), methods=METHODS, domains=DOMAINS)


def test_each_method_of_each_domain_has_its_own_best_and_base(folder):
    facts = status_of(folder)
    studies = {(study["domain"], study["method"]): study for study in facts["studies"]}
    assert set(studies) == {(d, m) for d in ("code", "math") for m in ("lora", "full")}
    trials = load_results(folder).trials
    for (domain, method), study in studies.items():
        own = [t for t in trials if (t.domain, t.method) == (domain, method)]
        assert study["best"]["learning"] == max(t.learning or 0 for t in own)
        assert study["base"]["source_accuracy"] == 0.8
        assert study["trials"] == {"COMPLETE": 3, "DIVERGED": 1}


def test_there_is_no_best_over_domains(folder):
    assert status_of(folder)["best"] is None


def test_a_person_reads_a_line_for_each_study(folder, capsys):
    show_status(status_of(folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mine: complete, 16 of 16 trials"
    for name in ("code/lora", "code/full", "math/lora", "math/full"):
        assert sum(line.startswith(f"  best      {name}: learning 0.") for line in lines) == 1


def test_a_folder_without_a_sweep_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="must be a results folder"):
        status_of(tmp_path)
