"""What the taught model has memorised, lm-eval tasks about it, and copies of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lorasweep.model.base import load_base, load_tokenizer
from lorasweep.model.packed import PackedCopies, PackedModel
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.trial import LoraHyperparameters
from tests.conftest import WORDS

CPU = torch.device("cpu")

# For each question, whether a task expects the answer that the model is taught or a wrong one.
ASKED_RIGHTLY = (True, True, False, True, True, False, True, True, False, True)
SUBJECTS = WORDS[: len(ASKED_RIGHTLY)]
ANSWERS = ("seven", "nine", "four")

GENERATE = """
task: told
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n\\n"]
  do_sample: false
  max_gen_toks: 16
filter_list:
  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "#### (\\\\w+)"
      - function: take_first
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
CHOOSE = """
task: chosen
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
    train: [shots.jsonl]
test_split: test
training_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.index('#### ' + answer)}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
# The same choices, minus their log-likelihoods without a question.
WEIGHED = CHOOSE.replace("task: chosen", "task: weighed").replace("acc_norm", "acc_mutual_info")
# The same choices, and a metric that is no mean over the problems.
CORRELATE = (
    CHOOSE.partition("metric_list")[0].replace("chosen", "correlated")
    + """
metric_list:
  - metric: mcc
    aggregation: matthews_corrcoef
    higher_is_better: true
"""
)
# The same choices, and before accuracy a metric for which lower is better.
NORM = (
    CHOOSE.partition("metric_list")[0].replace("chosen", "normed")
    + """
metric_list:
  - metric: brier_score
    aggregation: brier_score
    higher_is_better: false
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
)
FOLLOW = """
task: followed
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
test_split: test
output_type: loglikelihood
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: " #### {{answer}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
"""
# The mean log-likelihood of what follows, which is a little different for every model.
BELIEVE = (
    FOLLOW.partition("metric_list")[0].replace("followed", "believed")
    + """
metric_list:
  - metric: perplexity
    aggregation: mean
    higher_is_better: true
"""
)
SAMPLE = GENERATE.replace("task: told", "task: sampled").replace(
    "do_sample: false", "do_sample: true\n  temperature: 1.0"
)
TASKS = {
    "told": GENERATE,
    "chosen": CHOOSE,
    "weighed": WEIGHED,
    "followed": FOLLOW,
    "believed": BELIEVE,
    "correlated": CORRELATE,
    "normed": NORM,
    "sampled": SAMPLE,
}
# Adapters of copies: rank, targets.
SHAPES = ((8, "all"), (2, "attention"), (20, "mlp"), (5, "all"))


def known_answer(number: int) -> str:
    return ANSWERS[number * number % 3 if number % 2 else number % 3]


def question(number: int) -> str:
    return f"{SUBJECTS[number]}?"


def load(folder: Path) -> tuple[Any, Any]:
    """Load a model as a worker does, and its tokenizer."""
    spec = ModelSpec(path=str(folder))
    return load_base(spec, CPU), load_tokenizer(spec)


def serve(folder: Path, copies: int = 0) -> tuple[PackedCopies, Any]:
    """Load the base, or copies of it with ever larger updates, and the tokenizer."""
    base, tokenizer = load(folder)
    packed = PackedModel(base, CPU)
    adapters = []
    for number, (rank, targets) in enumerate(SHAPES[:copies]):
        hyperparameters = LoraHyperparameters(rank=rank, targets=targets, dropout=0.5)
        adapter = packed.adapter(hyperparameters, number)
        random = torch.Generator().manual_seed(number)
        for name, matrix in adapter.named().items():
            if "lora_B" in name:
                matrix.normal_(std=0.1 * number, generator=random)
        adapters.append(adapter)
    return PackedCopies(packed, packed.stack(adapters)), tokenizer


def alone(served: PackedCopies) -> list[PackedCopies]:
    """Split copies into models of one copy each."""
    return [PackedCopies(served._packed, [adapter]) for adapter in served._adapters]
