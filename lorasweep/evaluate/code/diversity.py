"""Count the distinct completions of a problem, compared in three forms.

Biderman et al. 2024, v2 (Fig. 5) count distinct strings and call that coarse. So texts are also
compared with their whitespace collapsed, and as syntax trees.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from itertools import compress

from lorasweep.store.scores import Distinct


def collapse_whitespace(text: str) -> str:
    """Replace runs of whitespace by one blank, and strip both ends."""
    return " ".join(text.split())


def syntax_tree(prompt: str, completion: str) -> str:
    """Dump a program's syntax tree, which ignores comments and formatting but not names.

    The program is the prompt with the completion, or the completion alone if only that parses. If
    neither does, the completion with its whitespace collapsed is returned.
    """
    for program in (prompt + completion, completion):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes cause SyntaxWarning
                return ast.dump(ast.parse(program))
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # whatever a model wrote
            continue
    return collapse_whitespace(completion)


def count(forms: Sequence[str], passed: Sequence[bool]) -> Distinct:
    """Count distinct completions of a problem: of all, of those that passed, of those that failed.

    Args:
        forms: the completions, in the form in which they are compared.
    """
    failed = [not success for success in passed]
    return Distinct(
        all=len(set(forms)),
        passed=len(set(compress(forms, passed))) if any(passed) else None,
        failed=len(set(compress(forms, failed))) if any(failed) else None,
    )


def average(counts: Sequence[Distinct]) -> Distinct:
    """Average over problems; for an outcome, over those that have completions with it."""
    return Distinct(
        all=sum(problem.all for problem in counts) / len(counts),
        passed=_mean([problem.passed for problem in counts]),
        failed=_mean([problem.failed for problem in counts]),
    )


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None
