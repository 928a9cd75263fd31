from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from lorasweep.errors import ModelError, SpecError
from lorasweep.model import base
from lorasweep.model.base import BaseReader
from lorasweep.spec.sweep import parse_sweep
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import BaseMeasured
from lorasweep.store.scores import Scores
from lorasweep.tune.prepare import prepare, prepare_studies


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=32, vocab_size=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_targets_that_the_model_lacks_are_refused_before_anything_starts(gpt2):
    content = {"model": {"path": str(gpt2)}, "space": {"targets": ["all", "ungated"]}}
    with pytest.raises(ModelError, match=r"space.targets: 'ungated' leaves out .* use 'all'"):
        prepare(parse_sweep(content))


def test_a_duration_in_tokens_needs_documents():
    content = {"hyperparameters": {"tokens": 5000}, "data": {"seq_len": 96}, "space": {"lr": True}}
    with pytest.raises(SpecError, match=r"hyperparameters.tokens: .* use epochs or train.steps"):
        prepare(parse_sweep(content))


def test_what_auto_stood_for_when_the_base_was_measured_it_stands_for_ever_after(tmp_path):
    evaluate = {"learning": ["testbed_math"], "source": ["auto"]}
    spec = parse_sweep({"data": {"seq_len": 96}, "space": {"lr": True}, "evaluate": evaluate})
    paths = SweepPaths(tmp_path)
    scores = Scores(
        learning=0.1, source_accuracy=0.9, tasks={"testbed_math": 0.1, "testbed_arc": 0.9}
    )
    with Journal(paths.journal, paths.lock) as journal:
        journal.append(BaseMeasured(scores=scores))
    (one,) = prepare_studies(spec, paths, BaseReader(spec.model), print)
    assert one.spec.evaluate.source == ("testbed_arc",)
    assert one.study.evaluate.source == ("auto",)  # the sweep is the same as before


def test_the_base_is_read_once_for_all_studies(tmp_path, monkeypatch):
    reads: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        load = getattr(base, name)

        def read(*arguments: object) -> object:
            reads.append(name)
            return load(*arguments)

        return read

    for name in ("read_facts", "load_tokenizer"):
        monkeypatch.setattr(base, name, counted(name))
    spec = parse_sweep(
        {
            "data": {"seq_len": 96, "limit": 40},
            "methods": {"lora": {}, "full": {}},
            "space": {"lr": True},
            "evaluate": {"source": ["base_agreement"]},
        }
    )
    prepare_studies(spec, SweepPaths(tmp_path), BaseReader(spec.model), print)
    assert sorted(reads) == ["load_tokenizer", "read_facts"]
