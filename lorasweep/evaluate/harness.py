"""Put lm-eval's tasks to models in memory, the problems dealt to all workers.

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

# A metric, and the filter that answers went through before it. The paper's measures come first:
# strict match for GSM8K, plain accuracy for multiple choice.
Measure = tuple[str, str]
_PREFERRED: tuple[Measure, ...] = (
    ("exact_match", "strict-match"),
    ("acc", "none"),
    ("exact_match", "none"),
)

# What a measure makes of the answers to each problem, beside the problem's number.
Values = dict[Measure, list[tuple[int, Any]]]

SHOTS_SEED = 1234  # lm-eval's own


class _DrawnShots:
    """Stand in for lm-eval's sampler with few-shot examples that are drawn already."""

    def __init__(self, drawn: Iterator[Any]) -> None:
        """Take them in the order of the problems."""
        self._drawn = drawn

    def sample(self, n: int, eval_doc: Any = None) -> Any:  # noqa: ARG002 - lm-eval's signature
        """Give those of the next problem."""
        return next(self._drawn)


@contextlib.contextmanager
def _shots_of_shard(task: Any, count: int, shard: Shard) -> Iterator[None]:
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
    task.sampler = _DrawnShots(iter(drawn[shard.worker :: shard.workers]))
    yield
    task.sampler = sampler


@contextlib.contextmanager
def _compiled_templates() -> Iterator[None]:
    """Let lm-eval compile a task's templates once; it does so again for every problem."""
    from lm_eval.utils import env

    compile_anew = env.from_string
    env.from_string = functools.cache(compile_anew)
    try:
        yield
    finally:
        env.from_string = compile_anew


class _CachedTemplate:
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
class _TaskShare:
    """Hold a worker's share of a task.

    problems: the requests of each problem, which bear the answers of the model asked last, by its
        number among those of all workers.
    """

    task: Any
    problems: dict[int, list[Any]]

    def values(self) -> Values:
        """Give what this worker's answers are worth, in every measure that may be the score."""
        if not self.problems:
            return {}  # lm-eval has no answers to filter
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
        """Aggregate the values of all workers as lm-eval's evaluator does those of one.

        Raises:
            LorasweepError: no measure for which higher is better comes out as a number.
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
            f"evaluate: task {name!r} cannot put its problems to a model ({type(error).__name__}: "
            f"{reason}); mend its task file"
        ) from error
    problems: dict[int, list[Any]] = defaultdict(list)  # by their place among this worker's
    for request in task.instances:
        problems[request.doc_id].append(request)
    for requests in problems.values():
        requests.sort(key=lambda request: request.idx)
    return _TaskShare(task, {mine[place]: requests for place, requests in problems.items()})


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
            for request in chain.from_iterable(share.problems.values()):
                self._requests[request.request_type].append(request)
        self._lm = ServedLM(tokenizer, batch_size, device)
        # The same may be asked often: a choice alone, or a problem of two tasks.
        asked = {request.args: request for request in self._requests["loglikelihood"]}
        self._pairs = self._lm.encode(list(asked.values()))
        self._numbers = {arguments: number for number, arguments in enumerate(asked)}
        self._continuations: Continuations | None = None

    def scores(self, served: Served) -> list[dict[str, float]]:
        """Score all copies of a model on all tasks.

        Returns:
            For each copy each task's score, which does not depend on how many workers there are.
        """
        if not self._shares:
            return [{} for _ in range(served.copies)]
        with self._lm.serving(served):
            if self._continuations is None:
                self._continuations = self._lay_out()
            likelihoods = self._continuations.score(served, self._device)
            written = self._lm.write(self._repeated("generate_until"))
        own = []
        for copy in range(served.copies):
            self._answer(likelihoods.log_CN[copy], likelihoods.correct_CN[copy], written[copy])
            own.append([share.values() for share in self._shares.values()])
        everyone = self._shard.gather(own)
        scores_CK = torch.zeros(served.copies, len(self._shares), dtype=torch.float64)
        if self._shard.worker == 0:  # which has a problem of every task; the others add nothing
            for copy in range(served.copies):
                for place, share in enumerate(self._shares.values()):
                    shares = [theirs[copy][place] for theirs in everyone]
                    scores_CK[copy, place] = share.score(shares)
        return [
            dict(zip(self._shares, scores, strict=True))
            for scores in self._shard.total(scores_CK.to(self._device)).tolist()
        ]

    def _repeated(self, kind: str) -> list[Any]:
        """Give the requests of a kind, each as often as its task asks it."""
        return [request for request in self._requests[kind] for _ in range(request.repeats)]

    def _lay_out(self) -> Continuations:
        """Batch everything that is judged by its likelihood, now that the model's size is known."""
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
            number = self._numbers[request.args]
            request.resps.append((float(log_N[number]), bool(greedy_N[number])))
        for request, text in zip(self._repeated("generate_until"), written, strict=True):
            request.resps.append(text)
