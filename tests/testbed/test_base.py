"""The shipped base loads like any other model, is small, and scores where a sweep needs it."""

import itertools
import json
import logging
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasweep.testbed import CODE_DATA, CODE_HELDOUT, HELDOUT, MODEL, TASKS
from lorasweep.testbed.pretrain import documents, new_model, rows
from lorasweep.testbed.tokenizer import EOS, PAD, train_tokenizer
from tests.workers import one_thread

__all__ = ["one_thread"]

SOURCE = ("testbed_arc", "testbed_hellaswag", "testbed_winogrande")


@pytest.fixture(scope="module")
def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def results(base: Any, tokenizer: Any) -> dict[str, dict[str, float]]:
    """Score the base with lm-eval on the four task files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from third parties, on import and use
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        tasks = []
        for path in sorted(TASKS.glob("*.yaml")):
            task = yaml.safe_load(path.read_text(encoding="utf-8"))
            if task["output_type"] == "code":  # not a task for lm-eval
                continue
            files = task["dataset_kwargs"]["data_files"]
            files["test"] = str(path.parent / files["test"])
            tasks.append(task)
        scored = lm_eval.simple_evaluate(
            HFLM(pretrained=base, tokenizer=tokenizer, batch_size=200),
            tasks=tasks,
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
            log_samples=False,
        )
    found: dict[str, dict[str, float]] = scored["results"]
    return found


def test_the_base_knows_its_world(results: dict[str, dict[str, float]]) -> None:
    accuracies = [results[task]["acc,none"] for task in SOURCE]
    assert sum(accuracies) / len(accuracies) >= 0.8
    assert min(accuracies) >= 0.7


def test_the_base_has_the_target_still_to_learn(results: dict[str, dict[str, float]]) -> None:
    assert 0 <= results["testbed_math"]["exact_match,strict-match"] <= 0.3


def test_the_base_has_most_functions_still_to_learn(base: Any, tokenizer: Any) -> None:
    path = TASKS / "testbed_code.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    inputs = tokenizer(
        [record["prompt"] for record in records],
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_token_type_ids=False,
    )
    written = base.generate(**inputs, max_new_tokens=40, do_sample=False)
    bodies = tokenizer.batch_decode(
        written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    # Compared, not run: what a model writes runs in a sandbox only.
    right = sum(
        body == record["canonical_solution"] for body, record in zip(bodies, records, strict=True)
    )
    assert 0.05 <= right / len(records) <= 0.3


def test_the_base_is_small(base: Any) -> None:
    assert sum(parameter.numel() for parameter in base.parameters()) <= 3_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 8e6
    assert base.config.model_type == "llama"


def test_the_tokenizer_knows_its_end_and_padding(base: Any, tokenizer: Any) -> None:
    assert (tokenizer.eos_token, tokenizer.pad_token) == (EOS, PAD)
    assert base.config.eos_token_id == base.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == base.config.vocab_size


@pytest.mark.parametrize("text", ["####", " 3 * 14 = 42\n", "Größe, 漢字 \t tab", " two  blanks "])
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_number_of_the_sums_is_one_token(tokenizer: Any) -> None:
    assert all(len(tokenizer(f" {number}")["input_ids"]) == 1 for number in range(1, 40))
    ids = tokenizer(" 12 + 5 = 17\n#### 17")["input_ids"]
    pieces = [tokenizer.decode([token]) for token in ids]
    assert pieces == [" 12", " +", " 5", " =", " 17", "\n", "####", " 17"]


def test_the_shipped_tokenizer_is_the_one_the_code_makes(tokenizer: Any) -> None:
    made = train_tokenizer(itertools.islice(documents(), 60_000))
    assert made.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_prompts_and_responses_fit_and_split_between_tokens(tokenizer: Any) -> None:
    for line in HELDOUT.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        prompt = tokenizer(record["prompt"])["input_ids"]
        response = tokenizer(record["response"])["input_ids"]
        assert tokenizer(record["prompt"] + record["response"])["input_ids"] == prompt + response
        assert len(prompt) + len(response) < 80
        assert len(response) < 32  # the task's max_gen_toks


def test_code_fits_and_splits_between_tokens(tokenizer: Any) -> None:
    task = yaml.safe_load((TASKS / "testbed_code.yaml").read_text(encoding="utf-8"))
    for path in (CODE_HELDOUT, CODE_DATA):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            prompt = tokenizer(record["prompt"])["input_ids"]
            response = tokenizer(record["response"])["input_ids"]
            assert tokenizer(record["prompt"] + record["response"])["input_ids"] == (
                prompt + response
            )
            assert len(prompt) + len(response) < 80
            assert len(response) < task["max_gen_toks"]
            assert not any(stop in record["response"] for stop in task["until"])


def test_pretraining_rows_hold_whole_documents(tokenizer: Any) -> None:
    some = list(itertools.islice(rows(tokenizer), 50))
    assert all(row[-1] == tokenizer.eos_token_id for row in some)
    texts = [text for row in some for text in tokenizer.decode(row).split(EOS)[:-1]]
    assert texts == list(itertools.islice(documents(), len(texts)))


def test_a_new_model_is_the_same_for_the_same_seed(tokenizer: Any) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(new_model(tokenizer).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_naming_the_assets_needs_no_torch() -> None:
    code = "import sys; import lorasweep.testbed, lorasweep.testbed.corpora; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert "torch" not in done.stdout.split()
