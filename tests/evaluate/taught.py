"""What the taught model knows by heart, and the lm-eval tasks that ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lorasweep.model.base import load_base, load_tokenizer
from lorasweep.spec.sweep import ModelSpec
from tests.conftest import WORDS

CPU = torch.device("cpu")

# What the model is taught, and whether a task asks for that or for a wrong answer.
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


def known_answer(number: int) -> str:
    return ANSWERS[number * number % 3 if number % 2 else number % 3]


def question(number: int) -> str:
    return f"{SUBJECTS[number]}?"


def load(folder: Path) -> tuple[Any, Any]:
    """Load a model as a worker does, and its tokenizer."""
    spec = ModelSpec(path=str(folder))
    return load_base(spec, CPU), load_tokenizer(spec)
