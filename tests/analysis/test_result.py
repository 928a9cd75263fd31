"""The analysis as JSON: its schema, and reading it back."""

import json
import re
import runpy
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from lorasweep.analysis import analyse as analysing
from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.claims import CATALOGUE
from lorasweep.analysis.result import BY_DOMAIN, SCHEMA_VERSION, read_analysis
from lorasweep.analysis.sensitivity import alpha_rules, importance, top
from lorasweep.errors import DataError
from tests.analysis.planted import planted_grid, planted_sample, sweep, trial
from tests.analysis.published import published
from tests.analysis.worlds import World, code, full_trials, lora_trials, matrix
from tests.analysis.worlds import sweep as world
from tests.cost import seconds

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads(files("lorasweep.analysis").joinpath("analysis.schema.json").read_text())


@pytest.fixture
def unranked(monkeypatch):
    """Leave the rankings out, which have their own tests and take the longest."""

    def none(method, own, _):
        return importance.Ranking(
            method=method, design="none", configurations=len(own), reason="left out"
        )

    def no_top(method, own, _):
        return top.TopRanking(method=method, quantile=0.1, configurations=len(own), rows_used=0)

    monkeypatch.setattr(analysing, "rank_hyperparameters", none)
    monkeypatch.setattr(alpha_rules, "rank_hyperparameters", none)
    monkeypatch.setattr(analysing, "rank_near_top", no_top)
    monkeypatch.setattr(analysing, "compare_levels", lambda _, __: ())


def document(analysis):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(analysis.to_json(), parse_constant=refuse)


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


def check(results, folder):
    """Check that the analysis fits its schema, and reads back equal."""
    analysis = analyse(results)
    jsonschema.validate(document(analysis), SCHEMA)
    (folder / "analysis.json").write_text(analysis.to_json(), encoding="utf-8")
    assert read_analysis(folder / "analysis.json") == analysis


@pytest.mark.usefixtures("unranked")
@pytest.mark.parametrize("name", AWKWARD)
def test_the_analysis_keeps_to_its_schema_and_reads_back(name, tmp_path):
    check(AWKWARD[name], tmp_path)


@pytest.mark.parametrize("name", ["none", "two", "all diverged", "a grid", "mixed levels"])
def test_so_do_the_rankings(name, tmp_path):
    check(AWKWARD[name], tmp_path)


def test_the_schema_is_that_of_the_model():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    generated = runpy.run_path(str(ROOT / "docs" / "generate_schema.py"))["schema"]()
    assert json.loads(generated) == SCHEMA, "run `make docs`"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema_version": 1}', "schema_version: must be 2, got 1; it was written by an earlier"),
        ('{"schema_version": 3}', "schema_version: must be 2, got 3; it was written by a later"),
        ('{"schema_version": 2}', "name: Field required"),
        ('{"name": "x"}', "must be JSON with a schema_version"),
        ("[]", "must be JSON with a schema_version"),
        ("{", "must be JSON with a schema_version"),
    ],
)
def test_a_file_of_another_version_is_named_as_such(text, sentence, tmp_path):
    (tmp_path / "analysis.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_analysis(tmp_path / "analysis.json")
    assert sentence in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_analysis(tmp_path / "none.json")


@pytest.mark.usefixtures("unranked")
def test_a_domain_has_its_own_studies_and_rows():
    analysis = analyse(published())
    own = analysis.of_domain("code-ift")
    assert list(own.recommendation) == list(own.methods) == ["lora", "full"]
    assert own.recommendation["lora"] == analysis.recommendation["code-ift/lora"]
    for name in BY_DOMAIN:
        rows = getattr(analysis, name)
        assert {row.domain for row in rows} <= set(analysis.domains), name
        assert bool(getattr(own, name)) == bool(rows), name
    assert len(own.claims) == len(CATALOGUE)


def test_a_domain_with_a_slash_in_its_name_is_told_from_a_shorter_one():
    trials = [trial(n, 0.5, lr=1e-4).model_copy(update={"domain": n}) for n in ("a", "a/b")]
    analysis = analyse(sweep(trials))
    assert analysis.domains == ("a", "a/b")
    assert [list(analysis.of_domain(d).statuses) for d in ("a", "a/b")] == [["lora"], ["lora"]]


@pytest.mark.usefixtures("unranked")
def test_several_domains_stand_side_by_side():
    found = document(analyse(published()))
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
        return lambda: analyse(results).to_json()

    spent = seconds(describing(5000))
    assert spent < 6
    assert spent < 30 * seconds(describing(500))  # 100 times as their square


@pytest.mark.usefixtures("unranked")
def test_shuffled_trials_give_the_same_analysis():
    results = planted_grid(noise=0.01)
    backwards = replace(results, trials=tuple(reversed(results.trials)))
    assert analyse(results) == analyse(backwards)


def test_the_page_on_the_document_names_every_field_and_every_claim():
    page = (ROOT / "docs" / "analysis.md").read_text()
    for field in SCHEMA["properties"]:
        assert f"`{field}" in page, field
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", page))))
    for model, form in SCHEMA["$defs"].items():
        assert set(form.get("properties", ())) <= named, model
    for definition in CATALOGUE:
        rule = definition.rule.removeprefix("holds if ")
        assert f"| `{definition.id}` | {rule} |" in page
