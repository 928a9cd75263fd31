"""Run lm-eval on the model in memory, the problems dealt to all workers of a trial."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError

# The paper's measures come first: strict match for GSM8K, plain accuracy for multiple choice.
_PREFERRED = ("exact_match,strict-match", "acc,none", "exact_match,none")

SHOTS_SEED = 1234  # lm-eval's own


class _Dealt:
    """Stand in for lm-eval's sampler with few-shot examples that are drawn already."""

    def __init__(self, drawn: Iterator[Any]) -> None:
        """Take them in the order of the problems."""
        self._drawn = drawn

    def sample(self, n: int, eval_doc: Any = None) -> Any:  # noqa: ARG002 - lm-eval's signature
        """Give those of the next problem."""
        return next(self._drawn)


@contextlib.contextmanager
def _dealing_shots(task: Any, count: int, shard: Shard) -> Iterator[None]:
    """Let a worker's problems have the few-shot examples that they would have alone.

    lm-eval draws them problem by problem from one generator, so every worker draws for all problems
    and keeps its own.
    """
    task.set_fewshot_seed(seed=SHOTS_SEED)
    shots = task.config.num_fewshot
    if shard.workers == 1 or not shots:
        yield
        return
    sampler = task.sampler
    same = task.fewshot_cfg.split == task.config.test_split  # then a problem is no shot of itself
    drawn = [
        sampler.sample(n=shots, eval_doc=problem if same else None)
        for problem in islice(task.eval_docs, count)
    ]
    task.sampler = _Dealt(iter(drawn[shard.worker :: shard.workers]))
    yield
    task.sampler = sampler


def _metric(scores: dict[str, Any]) -> str:
    """Choose the metric of a task that counts as its score."""
    named = [key for key in scores if "," in key and "_stderr" not in key]
    chosen = next((key for key in _PREFERRED if key in named), None)
    chosen = chosen or next((k for k in named if isinstance(scores[k], int | float)), None)
    if chosen is None:
        raise LorasweepError(f"evaluate: the task must report a number, got {sorted(scores)}")
    return chosen


def run_tasks(
    model: Any,
    tokenizer: Any,
    tasks: dict[str, Any],
    *,
    limit: int | None,
    batch_size: int,
    shard: Shard,
    device: torch.device,
) -> dict[str, float]:
    """Score a model on lm-eval tasks; each worker takes every so-manieth problem.

    Args:
        tasks: task objects by the name that their score is to bear.

    Returns:
        Each task's score, the mean over its problems.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    if not tasks:
        return {}
    for name in ("lm_eval", "lm-eval"):
        logging.getLogger(name).setLevel(logging.ERROR)
    was_training = model.training
    model.eval()
    language_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    scores = {}
    for name, task in tasks.items():
        count = len(task.eval_docs) if limit is None else min(limit, len(task.eval_docs))
        mine = list(range(shard.worker, count, shard.workers))
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        if mine:
            key = task.config.task
            with _dealing_shots(task, count, shard):
                results = evaluate(
                    language_model,
                    {"tasks": {key: task}, "groups": {}},
                    samples={key: mine},
                    bootstrap_iters=0,
                    log_samples=False,
                )
            measured = results["results"][key]
            sums[0] = measured[_metric(measured)] * len(mine)
            sums[1] = len(mine)
        total, problems = shard.total(sums).tolist()
        scores[name] = total / problems
    model.train(was_training)
    return scores
