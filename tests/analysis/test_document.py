"""The document against its schema, whatever the trials are."""

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from lorasweep.analysis import summary
from lorasweep.analysis.claims import CATALOGUE
from lorasweep.analysis.document import SCHEMA_VERSION, describe, to_json
from lorasweep.analysis.sensitivity import alpha_rules as conditional
from lorasweep.analysis.sensitivity import importance, top
from lorasweep.analysis.summary import analyse
from tests.analysis.planted import planted_grid, planted_sample, sweep, trial
from tests.analysis.published import published
from tests.analysis.worlds import World, code, full_trials, lora_trials, matrix
from tests.analysis.worlds import sweep as world
from tests.cost import seconds

SCHEMA = json.loads(files("lorasweep.analysis").joinpath("analysis.schema.json").read_text())


@pytest.fixture
def unranked(monkeypatch):
    """Leave the rankings out, which have their own tests and take the longest."""

    def none(method, own, _):
        return importance.Ranking(method, "none", len(own), reason="left out")

    monkeypatch.setattr(summary, "rank_hyperparameters", none)
    monkeypatch.setattr(conditional, "rank_hyperparameters", none)
    monkeypatch.setattr(summary, "rank_near_top", lambda m, c, _: top.TopRanking(m, 0.1, len(c), 0))
    monkeypatch.setattr(summary, "compare_levels", lambda _, __: ())


def documents(results):
    parts = [(part, analyse(part)) for part in results.parts]

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(to_json(describe(results, parts)), parse_constant=refuse)


def everything():
    trials = lora_trials(World(), epochs=(1.0,), ranks=(16,)) + full_trials(World())
    return world(
        [
            t.model_copy(update={"spectrum": (matrix(),), "code": {"humaneval": code(8.0)}})
            for t in trials
        ]
    )


AWKWARD = {
    "none": sweep([]),
    "one": sweep([trial("a", 0.5, lr=1e-4)]),
    "two": sweep([trial("a", 0.5, lr=1e-4), trial("b", 0.5, lr=1e-3, method="full")]),
    "one level": sweep([trial(f"t{i}", 0.5, lr=1e-4, seed=i, forgetting=0.1) for i in range(4)]),
    "all diverged": sweep([trial(f"t{i}", status="DIVERGED", lr=1e-2, rank=4) for i in range(9)]),
    "same scores": sweep(
        [trial(f"t{i}", 0.5, lr=10.0**-i, rank=i, forgetting=0.0) for i in range(1, 9)]
    ),
    "unfinished": sweep([trial("a", status="RUNNING", lr=1e-4), trial("b", 0.1, lr=1e-3)]),
    "huge": sweep([trial(f"t{i}", 1e100 * i, lr=10.0**-i, forgetting=-1e100) for i in range(1, 9)]),
    "mixed levels": sweep(
        [trial(f"t{i}", 0.1 * i, lr=1e-4, alpha="2r" if i % 2 else 32.0, rank=4) for i in range(9)]
    ),
    "a grid": planted_grid(noise=0.01),
    "everything": everything(),
    "published": published(),
}


@pytest.mark.usefixtures("unranked")
@pytest.mark.parametrize("name", AWKWARD)
def test_the_document_keeps_to_its_schema(name):
    jsonschema.validate(documents(AWKWARD[name]), SCHEMA)


@pytest.mark.parametrize("name", ["none", "two", "all diverged", "a grid"])
def test_the_rankings_keep_to_the_schema_too(name):
    jsonschema.validate(documents(AWKWARD[name]), SCHEMA)


def test_the_schema_is_one_and_names_its_version():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.usefixtures("unranked")
def test_several_domains_stand_side_by_side():
    found = documents(published())
    assert list(found["recommendation"]) == [
        f"{domain}/{method}"
        for domain in ("code-cpt", "math-cpt", "code-ift", "math-ift")
        for method in ("lora", "full")
    ]
    ids = [claim["id"] for claim in found["claims"] if claim["domain"] == "code-ift"]
    assert ids == [claim["id"] for claim in found["claims"] if claim["domain"] == "math-cpt"]
    pooled = [p for p in found["front"] if (p["scope"], p["domain"]) == ("pooled", "code-ift")]
    assert {point["method"] for point in pooled} == {"lora"}
    assert {curve["duration"] for curve in found["curves"]} == {"duration"}
    by_id = {(claim["id"], claim["domain"]): claim for claim in found["claims"]}
    order = by_id["lr-over-targets-over-rank", "code-ift"]
    assert {source["version"] for source in order["sources"]} == {"v1", "v2"}
    assert order["verdict"] == "cannot tell"
    assert order["reason"].startswith("not tested")


@pytest.mark.usefixtures("unranked")
def test_ten_thousand_trials_take_seconds_and_fewer_in_proportion():
    def describing(count):
        results = planted_sample(count)
        full = tuple(
            t.model_copy(
                update={
                    "trial": f"f{t.trial}",
                    "method": "full",
                    "hyperparameters": {"lr": t.learning / 1e4},
                }
            )
            for t in results.trials
        )
        results = replace(results, trials=results.trials + full)
        return lambda: describe(results, [(results, analyse(results))])

    spent = seconds(describing(5000))
    assert spent < 6
    assert spent < 30 * seconds(describing(500))  # 100 times as their square


@pytest.mark.usefixtures("unranked")
def test_shuffled_trials_give_the_same_document():
    results = planted_grid(noise=0.01)
    backwards = replace(results, trials=tuple(reversed(results.trials)))
    assert documents(results) == documents(backwards)


def test_the_page_on_the_document_names_every_field_and_every_claim():
    page = (Path(__file__).parent.parent.parent / "docs" / "analysis.md").read_text()
    for field in SCHEMA["required"]:
        assert f"`{field}" in page, field
    for definition in CATALOGUE:
        rule = definition.rule.removeprefix("holds if ")
        assert f"| `{definition.id}` | {rule} |" in page
