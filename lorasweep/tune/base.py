"""Scores of the base in a study: how they reach the journal, and the forgetting counted from them.

Jobs measure the base before the first trial, a lane after the first trial has ended. Either way the
worker that measured sends a MeasuredBase, and `BaseScores.record` journals it, before the end of
any trial that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable

from lorasweep.lanes.messages import MeasuredBase
from lorasweep.store.journal import Journal
from lorasweep.store.records import BaseMeasured, Record
from lorasweep.store.scores import Scores


def measured_base(records: Iterable[Record], domain: str) -> Scores | None:
    """Find the base's scores on the tasks of a domain in the journal."""
    scores = None
    for record in records:
        if isinstance(record, BaseMeasured) and record.domain == domain:
            scores = record.scores
    return scores


class BaseScores:
    """Scores of the base on the tasks of a study.

    scores: None until they are measured.
    """

    def __init__(self, journal: Journal, domain: str, scores: Scores | None) -> None:
        """Start with what the journal knows.

        Args:
            scores: of an earlier session or study.
        """
        self._journal, self._domain, self.scores = journal, domain, scores

    def record(self, measured: MeasuredBase | None) -> None:
        """Journal the scores, unless they are known already or not yet measured."""
        if self.scores is not None or measured is None:
            return
        self.scores = measured.scores
        self._journal.append(
            BaseMeasured(scores=measured.scores, domain=self._domain, wall_s=measured.wall_s)
        )

    def forgetting(self, trial: Scores) -> float | None:
        """Source accuracy of the base minus that of a trial; None if either is unknown."""
        base = None if self.scores is None else self.scores.source_accuracy
        source = trial.source_accuracy
        return None if source is None or base is None else base - source
