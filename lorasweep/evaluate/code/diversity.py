"""Count how many different completions a model writes for a problem.

Biderman et al. 2024, v2 (Fig. 5) count different strings and call that coarse; so texts that differ
in nothing but blanks, or in nothing that Python sees, can count as one.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from itertools import compress

from lorasweep.store.scores import Distinct


def collapse_whitespace(text: str) -> str:
    """Write runs of blanks as one, and none at the ends."""
    return " ".join(text.split())


def syntax_tree(prompt: str, completion: str) -> str:
    """Write a program as its syntax tree: comments and formatting do not count, names do.

    The program is the prompt with the completion, or the completion alone where only that parses;
    where neither does, it is the completion with its blanks aside.
    """
    for program in (prompt + completion, completion):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns of odd escapes while it parses
                return ast.dump(ast.parse(program))
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # whatever a model may write
            continue
    return collapse_whitespace(completion)


def count(forms: Sequence[str], passed: Sequence[bool]) -> Distinct:
    """Count the different ones among a problem's completions, and among those of each outcome.

    Args:
        forms: the completions, each in the form in which they are compared.
    """
    failed = [not success for success in passed]
    return Distinct(
        all=len(set(forms)),
        passed=len(set(compress(forms, passed))) if any(passed) else None,
        failed=len(set(compress(forms, failed))) if any(failed) else None,
    )


def average(counts: Sequence[Distinct]) -> Distinct:
    """Average over problems; of an outcome, over those that have completions of it."""
    return Distinct(
        all=sum(problem.all for problem in counts) / len(counts),
        passed=_mean([problem.passed for problem in counts]),
        failed=_mean([problem.failed for problem in counts]),
    )


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None
