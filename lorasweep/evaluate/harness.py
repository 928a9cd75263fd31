"""Run lm-eval's tasks on models in memory, with the problems split over all workers.

Shape legend: C copies, K tasks, N continuations.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError, in_a_line
from lorasweep.evaluate.continuations import Continuations
from lorasweep.model.served import Served

# A metric, and the filter applied to answers before it. A task's score is the first of these that
# it has, in the paper's sense: strict match for GSM8K, plain accuracy for multiple choice.
Measure = tuple[str, str]
_PREFERRED: tuple[Measure, ...] = (
    ("exact_match", "strict-match"),
    ("acc", "none"),
    ("exact_match", "none"),
)

# By measure, the number of each problem and the value of its answers.
Values = dict[Measure, list[tuple[int, Any]]]

SHOTS_SEED = 1234  # lm-eval's own


class _DrawnShots:
    """Replaces lm-eval's sampler by few-shot examples that have been drawn already."""

    def __init__(self, drawn: Iterator[Any]) -> None:
        """Take the examples in the order of the problems."""
        self._drawn = drawn

    def sample(self, n: int, eval_doc: Any = None) -> Any:  # noqa: ARG002 - lm-eval's signature
        """Return the examples of the next problem."""
        return next(self._drawn)


@contextlib.contextmanager
def _shots_of_shard(task: Any, count: int, shard: Shard) -> Iterator[None]:
    """Draw few-shot examples so that each problem gets those that it gets with one worker.

    lm-eval draws them problem by problem from one generator, so each worker draws for all problems
    and keeps those of its own.
    """
    task.set_fewshot_seed(seed=SHOTS_SEED)
    shots = task.config.num_fewshot
    if shard.workers == 1 or not shots:
        yield
        return
    sampler = task.sampler
    same = task.fewshot_cfg.split == task.config.test_split  # a problem must not be its own example
    drawn = [
        sampler.sample(n=shots, eval_doc=problem if same else None)
        for problem in islice(task.eval_docs, count)
    ]
    task.sampler = _DrawnShots(iter(drawn[shard.worker :: shard.workers]))
    yield
    task.sampler = sampler


@contextlib.contextmanager
def _compiled_templates() -> Iterator[None]:
    """Cache lm-eval's compiled templates, which it otherwise compiles again for every problem."""
    from lm_eval.utils import env

    compile_anew = env.from_string
    env.from_string = functools.cache(compile_anew)
    try:
        yield
    finally:
        env.from_string = compile_anew


class _CachedTemplate:
    """Renders a task's template for each problem once, since the result depends on no model."""

    def __init__(self, render: Callable[..., Any]) -> None:
        self._render = render
        self._rendered: dict[tuple[int, ...], tuple[tuple[Any, ...], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        key = tuple(map(id, arguments))
        if key not in self._rendered:
            # The key is made of ids, so the arguments are kept alive: a freed id could be reused.
            self._rendered[key] = (arguments, self._render(*arguments))
        return self._rendered[key][1]


@dataclass(frozen=True)
class _TaskShare:
    """A worker's share of a task.

    problems: lm-eval's requests of each problem, by its number among those of all workers. They
        hold the answers of the model that was run last.
    """

    task: Any
    problems: dict[int, list[Any]]

    def values(self) -> Values:
        """Evaluate this worker's answers by every measure for which higher is better."""
        if not self.problems:
            return {}  # lm-eval's filters fail on no answers
        self.task.apply_filters()
        values: Values = defaultdict(list)
        for number, requests in self.problems.items():
            for key in requests[0].filtered_resps:
                answers = [request.filtered_resps[key] for request in requests]
                for metric, value in self.task.process_results(requests[0].doc, answers).items():
                    values[metric, key].append((number, value))
        higher_is_better = self.task.higher_is_better()
        return {
            (metric, key): column
            for (metric, key), column in values.items()
            if higher_is_better.get(metric)
        }

    def score(self, shares: list[Values]) -> float:
        """Aggregate the values of all workers as lm-eval does with one process.

        They are put in the problems' order first, as some aggregations are not plain means.

        Raises:
            LorasweepError: no measure for which higher is better is a number.
        """
        from lm_eval.api.metrics import mean

        values: Values = defaultdict(list)
        for share in shares:
            for measure, column in share.items():
                values[measure].extend(column)
        preferred = [measure for measure in _PREFERRED if measure in values]
        aggregation = self.task.aggregation()
        for measure in dict.fromkeys((*preferred, *values)):
            in_order = [value for _, value in sorted(values[measure], key=itemgetter(0))]
            score = aggregation.get(measure[0], mean)(in_order)
            if isinstance(score, int | float):
                return float(score)
        raise LorasweepError(
            "evaluate: a task must report a number for which higher is better, got "
            f"{', '.join(sorted({metric for metric, _ in values})) or 'none'} from "
            f"{self.task.config.task!r}; name another task"
        )


def _share(task: Any, limit: int | None, shard: Shard) -> _TaskShare:
    """Build the requests of this worker's problems.

    Raises:
        LorasweepError: the task runs generated code, is multimodal, or is broken.
    """
    name = task.config.task
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise LorasweepError(
            f"evaluate: a task must be text, and its answers must not be run as code, got {name!r}"
        )
    count = len(task.eval_docs) if limit is None else min(limit, len(task.eval_docs))
    mine = range(shard.worker, count, shard.workers)
    if not mine:
        return _TaskShare(task, {})
    for template in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if hasattr(task, template):
            setattr(task, template, _CachedTemplate(getattr(task, template)))
    try:
        with _shots_of_shard(task, count, shard), _compiled_templates():
            task.build_all_requests(samples=mine)
    except Exception as error:  # templates fail in many ways; the user needs one sentence
        reason = in_a_line(error, 200)
        raise LorasweepError(
            f"evaluate: the prompts of task {name!r} cannot be built ({type(error).__name__}: "
            f"{reason}); fix its task file"
        ) from error
    problems: dict[int, list[Any]] = defaultdict(list)  # by their index among this worker's
    for request in task.instances:
        problems[request.doc_id].append(request)
    for requests in problems.values():
        requests.sort(key=lambda request: request.idx)
    return _TaskShare(task, {mine[index]: requests for index, requests in problems.items()})


class Suite:
    """lm-eval tasks, prepared once and run on one model after another.

    Requests are built and tokenised once. Of W workers, each takes every W-th problem.
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
        """Build the requests; no model is needed for that.

        Args:
            tasks: task objects, by the name of their score.

        Raises:
            LorasweepError: a task runs generated code or is multimodal.
        """
        from lorasweep.evaluate.served_lm import ServedLM

        for name in ("lm_eval", "lm-eval"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._batch_size, self._pad = batch_size, tokenizer.pad_token_id
        self._shard, self._device = shard, device
        self._shares = {name: _share(task, limit, shard) for name, task in tasks.items()}
        self._requests: dict[str, list[Any]] = defaultdict(list)
        for share in self._shares.values():
            for request in chain.from_iterable(share.problems.values()):
                self._requests[request.request_type].append(request)
        self._lm = ServedLM(tokenizer, batch_size, device)
        # Requests repeat, for instance a choice without its question, or a problem of two tasks.
        unique = {request.args: request for request in self._requests["loglikelihood"]}
        self._pairs = self._lm.encode(list(unique.values()))
        self._numbers = {arguments: number for number, arguments in enumerate(unique)}
        self._continuations: Continuations | None = None

    def scores(self, served: Served) -> list[dict[str, float]]:
        """Score all copies of a model on all tasks.

        Returns:
            Each copy's score by task, which does not depend on the number of workers.
        """
        if not self._shares:
            return [{} for _ in range(served.copies)]
        with self._lm.serving(served):
            if self._continuations is None:
                self._continuations = self._lay_out()
            likelihoods = self._continuations.score(served, self._device)
            written = self._lm.generate(self._repeated("generate_until"))
        own = []
        for copy in range(served.copies):
            self._set_answers(likelihoods.log_CN[copy], likelihoods.correct_CN[copy], written[copy])
            own.append([share.values() for share in self._shares.values()])
        everyone = self._shard.gather(own)
        scores_CK = torch.zeros(served.copies, len(self._shares), dtype=torch.float64)
        # Only worker 0 aggregates, as it has a problem of every task. The others contribute zeros,
        # so the sum over workers broadcasts its scores.
        if self._shard.worker == 0:
            for copy in range(served.copies):
                for index, share in enumerate(self._shares.values()):
                    shares = [theirs[copy][index] for theirs in everyone]
                    scores_CK[copy, index] = share.score(shares)
        return [
            dict(zip(self._shares, scores, strict=True))
            for scores in self._shard.total(scores_CK.to(self._device)).tolist()
        ]

    def _repeated(self, kind: str) -> list[Any]:
        """List the requests of a kind, each as often as its task repeats it."""
        return [request for request in self._requests[kind] for _ in range(request.repeats)]

    def _lay_out(self) -> Continuations:
        """Batch all log-likelihood requests, now that the model's number of positions is known."""
        return Continuations(
            self._pairs,
            batch_size=self._batch_size,
            pad=self._pad,
            positions=self._lm.max_length,
        )

    def _set_answers(
        self, log_N: NDArray[np.float64], right_N: NDArray[np.int64], written: list[str]
    ) -> None:
        """Write one copy's answers into the requests, replacing those of the copy before."""
        assert self._continuations is not None
        greedy_N = right_N == self._continuations.lengths_N
        for request in chain.from_iterable(self._requests.values()):
            request.resps, request.filtered_resps = [], {}
        for request in self._repeated("loglikelihood"):
            number = self._numbers[request.args]
            request.resps.append((float(log_N[number]), bool(greedy_N[number])))
        for request, text in zip(self._repeated("generate_until"), written, strict=True):
            request.resps.append(text)
