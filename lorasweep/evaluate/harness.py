"""Put lm-eval's tasks to models in memory, the problems dealt to all workers."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError
from lorasweep.evaluate.continuations import Continuations
from lorasweep.model.served import Served

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


@contextlib.contextmanager
def _compiling_once() -> Iterator[None]:
    """Let lm-eval compile a task's templates once; it does so again for every problem."""
    from lm_eval.utils import env

    compile_anew = env.from_string
    env.from_string = functools.cache(compile_anew)
    try:
        yield
    finally:
        env.from_string = compile_anew


def _metric(scores: dict[str, Any]) -> str:
    """Choose the metric of a task that counts as its score."""
    named = [key for key in scores if "," in key and "_stderr" not in key]
    chosen = next((key for key in _PREFERRED if key in named), None)
    chosen = chosen or next((k for k in named if isinstance(scores[k], int | float)), None)
    if chosen is None:
        raise LorasweepError(f"evaluate: the task must report a number, got {sorted(scores)}")
    return chosen


class _Remembered:
    """Render a task's template for a problem once; what it gives depends on no model."""

    def __init__(self, render: Callable[..., Any]) -> None:
        self._render = render
        self._rendered: dict[tuple[int, ...], tuple[tuple[Any, ...], Any]] = {}

    def __call__(self, *asked: Any) -> Any:
        key = tuple(map(id, asked))
        if key not in self._rendered:
            # What was asked is kept beside the answer, so that its identity stays its own.
            self._rendered[key] = (asked, self._render(*asked))
        return self._rendered[key][1]


@dataclass(frozen=True)
class _Share:
    """Hold a worker's share of a task.

    problems: the requests of each problem, which bear the answers of the model asked last.
    """

    task: Any
    problems: list[list[Any]]

    def score(self) -> float:
        """Give the mean over the problems, as lm-eval's evaluator aggregates their answers."""
        from lm_eval.api.metrics import mean

        self.task.apply_filters()
        values: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for key in self.problems[0][0].filtered_resps:
            for requests in self.problems:
                answers = [request.filtered_resps[key] for request in requests]
                for metric, value in self.task.process_results(requests[0].doc, answers).items():
                    values[metric, key].append(value)
        aggregation = self.task.aggregation()
        scores = {
            f"{metric},{key}": aggregation.get(metric, mean)(measured)
            for (metric, key), measured in values.items()
        }
        return float(scores[_metric(scores)])


def _share(task: Any, limit: int | None, shard: Shard) -> _Share:
    """Build the requests of every so-manieth problem of a task.

    Raises:
        LorasweepError: the task runs code of the model's, shows it more than text, or is broken.
    """
    name = task.config.task
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise LorasweepError(
            f"evaluate: a task must be text, and its answers not be run as code, got {name!r}"
        )
    count = len(task.eval_docs) if limit is None else min(limit, len(task.eval_docs))
    mine = range(shard.worker, count, shard.workers)
    if not mine:
        return _Share(task, [])
    for template in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if hasattr(task, template):
            setattr(task, template, _Remembered(getattr(task, template)))
    try:
        with _dealing_shots(task, count, shard), _compiling_once():
            task.build_all_requests(samples=mine)
    except Exception as error:  # templates fail in many ways; the user needs one sentence
        reason = " ".join(str(error).split())[:200]
        raise LorasweepError(
            f"evaluate: task {name!r} cannot put its problems to a model ({type(error).__name__}: "
            f"{reason}); mend its task file"
        ) from error
    problems: dict[int, list[Any]] = defaultdict(list)
    for request in task.instances:
        problems[request.doc_id].append(request)
    for requests in problems.values():
        requests.sort(key=lambda request: request.idx)
    return _Share(task, list(problems.values()))


class Suite:
    """Hold lm-eval tasks, ready to be put to one model after another.

    Requests are built and turned into tokens once. Each worker takes every so-manieth problem.
    """

    def __init__(
        self,
        tasks: dict[str, Any],
        tokenizer: Any,
        *,
        limit: int | None,
        batch_size: int,
        shard: Shard,
        device: torch.device,
    ) -> None:
        """Build the requests; no model is needed for it.

        Args:
            tasks: task objects by the name that their score is to bear.

        Raises:
            LorasweepError: a task runs code of the model's, or shows it more than text.
        """
        from lorasweep.evaluate.served_lm import ServedLM

        for name in ("lm_eval", "lm-eval"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._batch_size, self._pad = batch_size, tokenizer.pad_token_id
        self._shard, self._device = shard, device
        self._shares = {name: _share(task, limit, shard) for name, task in tasks.items()}
        self._requests: dict[str, list[Any]] = defaultdict(list)
        for share in self._shares.values():
            for request in chain.from_iterable(share.problems):
                self._requests[request.request_type].append(request)
        self._lm = ServedLM(tokenizer, batch_size, device)
        # The same may be asked often: a choice alone, or a problem of two tasks.
        asked = {request.args: request for request in self._requests["loglikelihood"]}
        self._pairs = self._lm.encode(list(asked.values()))
        self._numbers = {arguments: [number] for number, arguments in enumerate(asked)}
        self._continuations: Continuations | None = None

    def scores(self, served: Served) -> list[dict[str, float]]:
        """Score all copies of a model on all tasks.

        Returns:
            For each copy each task's score, the mean over its problems.
        """
        if not self._shares:
            return [{} for _ in range(served.copies)]
        with self._lm.before(served):
            if self._continuations is None:
                self._continuations = self._lay_out()
            likelihoods = self._continuations.ask(served, self._device)
            written = self._lm.write(self._repeated("generate_until"))
        sums = torch.zeros(served.copies, len(self._shares), 2, dtype=torch.float64)
        for copy in range(served.copies):
            self._answer(likelihoods.log_CN[copy], likelihoods.right_CN[copy], written[copy])
            for place, share in enumerate(self._shares.values()):
                if share.problems:
                    count = len(share.problems)
                    sums[copy, place] = torch.tensor([share.score() * count, count])
        return [
            {
                name: total / problems
                for name, (total, problems) in zip(self._shares, totals, strict=True)
            }
            for totals in self._shard.total(sums.to(self._device)).tolist()
        ]

    def _repeated(self, kind: str) -> list[Any]:
        """Give the requests of a kind, each as often as its task asks it."""
        return [request for request in self._requests[kind] for _ in range(request.repeats)]

    def _lay_out(self) -> Continuations:
        """Batch everything that is judged by its likelihood, now that the model's size is known."""
        for request in self._requests["loglikelihood_rolling"]:
            if request.args not in self._numbers:
                windows = self._lm.windows(*request.args)
                first = len(self._pairs)
                self._numbers[request.args] = list(range(first, first + len(windows)))
                self._pairs.extend(windows)
        return Continuations(
            self._pairs,
            batch_size=self._batch_size,
            pad=self._pad,
            positions=self._lm.max_length,
        )

    def _answer(
        self, log_N: NDArray[np.float64], right_N: NDArray[np.int64], written: list[str]
    ) -> None:
        """Write one copy's answers into the requests, over those of whoever was asked before."""
        assert self._continuations is not None
        greedy_N = right_N == self._continuations.lengths_N
        for request in chain.from_iterable(self._requests.values()):
            request.resps, request.filtered_resps = [], {}
        for request in self._repeated("loglikelihood"):
            (number,) = self._numbers[request.args]
            request.resps.append((float(log_N[number]), bool(greedy_N[number])))
        for request in self._repeated("loglikelihood_rolling"):
            request.resps.append(float(log_N[self._numbers[request.args]].sum()))
        for request, text in zip(self._repeated("generate_until"), written, strict=True):
            request.resps.append(text)
