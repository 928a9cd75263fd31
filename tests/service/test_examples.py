import json

import pytest
from typer.testing import CliRunner

from lorasweep.cli import app
from lorasweep.model.base import load_tokenizer
from lorasweep.service.examples import view_data
from lorasweep.spec.sweep import ModelSpec, parse_sweep

ROWS = [{"prompt": f"Repeat: number {i}\n", "response": f"number {i}"} for i in range(20)]


@pytest.fixture
def sweep(tmp_path, tiny_model):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return parse_sweep(
        {
            "model": {"path": str(tiny_model)},
            "data": {"path": str(path), "seq_len": 64},
            "space": {"lr": True},
        }
    )


def test_examples_are_shown_with_the_tokens_and_the_loss_of_training(sweep, tiny_model):
    tokenizer = load_tokenizer(ModelSpec(path=str(tiny_model)))
    (view,) = view_data(sweep, 100)
    assert (view.train.examples, view.heldout.examples, len(view.shown)) == (18, 2, 18)
    assert view.train.tokens == sum(len(example.ids) for example in view.shown)
    assert view.train.loss_tokens == sum(sum(example.loss) for example in view.shown)
    for example in view.shown:
        assert example.row is not None
        row = ROWS[example.row - 1]
        prompt, response = example.parts
        assert (prompt.text, prompt.loss) == (row["prompt"], False)
        assert (response.text, response.loss) == (row["response"] + tokenizer.eos_token, True)
        assert tokenizer.decode(example.ids) == prompt.text + response.text
        assert sum(example.loss) == len(tokenizer(row["response"])["input_ids"]) + 1


def test_each_domain_is_shown_once_whatever_its_methods(sweep):
    content = sweep.model_dump(mode="json")
    content |= {"methods": {"lora": {}, "full": {}}, "domains": {"a": {}, "b": {}}}
    views = view_data(parse_sweep(content), 1)
    assert [view.domain for view in views] == ["a", "b"]


def test_the_command_prints_what_is_trained_with_loss_in_brackets(sweep, tiny_model):
    options = ["--model", str(tiny_model), "--data", sweep.data.path]
    shown = CliRunner().invoke(app, ["data", *options, "-n", "1"], catch_exceptions=False).output
    assert "read as instruction" in shown
    assert "training  18 examples" in shown
    assert "row 1: " in shown
    assert "Repeat: number 0\n⟦number 0" in shown
    printed = CliRunner().invoke(app, ["data", *options, "--json"], catch_exceptions=False).output
    (view,) = json.loads(printed)
    assert len(view["shown"]) == 3
    assert view["shown"][0]["row"] == 1


def test_documents_are_shown_as_the_sequences_that_they_are_joined_to(sweep, tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text('{"text": "one line of text"}\n' * 30, encoding="utf-8")
    content = sweep.model_dump(mode="json")
    content["data"] |= {"path": str(path), "seq_len": 16}
    (view,) = view_data(parse_sweep(content), 2)
    first, second = view.shown
    assert view.kind == "documents"
    assert (first.row, second.row) == (None, None)
    assert first.loss == (False, *[True] * 15)
    assert second.parts[-1].loss
