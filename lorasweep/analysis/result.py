"""All that the analysis of a sweep finds, as one frozen value; report/analysis.json is its dump.

docs/analysis.md lists the fields, and `analysis.schema.json` has their form; `make docs` writes it
from these classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, computed_field

from lorasweep.analysis.advice.recommend import Recommendation
from lorasweep.analysis.claims.verdict import Claim
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.alpha_rules import AlphaRuleRanking
from lorasweep.analysis.sensitivity.alternatives import Alternatives
from lorasweep.analysis.sensitivity.divergence import Divergence
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity
from lorasweep.analysis.sensitivity.levels import LevelSummary
from lorasweep.analysis.sensitivity.top import TopRanking
from lorasweep.analysis.tradeoff.curves import Curve
from lorasweep.analysis.tradeoff.hypervolume import Hypervolume
from lorasweep.analysis.tradeoff.matched import MatchedComparison
from lorasweep.analysis.tradeoff.pareto import Contenders, FrontPoint
from lorasweep.analysis.tradeoff.programs import Programs
from lorasweep.analysis.tradeoff.spectral import SpectralSummary
from lorasweep.analysis.types import Number, Result
from lorasweep.errors import DataError
from lorasweep.store.scores import Scores

SCHEMA_VERSION: Literal[2] = 2


class Proxy(Result):
    """How well response loss, on which a scheduler stops trials, ranks the trials of a study.

    n: completed trials with both scores.
    spearman: correlation of low response loss with high learning; None below four trials, or where
        either does not vary.
    """

    n: int
    spearman: float | None


class Totals(Result):
    """Cost of all trials: wall seconds, those of training and of evaluation, and tokens."""

    wall_s: float
    train_s: float
    evaluate_s: float
    tokens: int


class ScoreNoise(Noise):
    """How much one score varies from run to run, over all methods of a domain."""

    domain: str
    outcome: Literal["learning", "forgetting"]


class Budget(Result):
    """What was spent, and an estimate of what is left.

    wall_s_left: the mean time of a finished trial, times the trials left.
    trials_planned, trials_left, wall_s_left: None for trials without a plan, as in a table.
    """

    trials_planned: int | None
    trials_finished: int
    trials_left: int | None
    wall_s_spent: float
    wall_s_left: Number


class Analysis(Result):
    """Comparison of all trials of a sweep.

    Mappings are by study, `METHOD` or `DOMAIN/METHOD`; rows of tuples name their domain.

    statuses: number of trials by status; only what occurs.
    scales: levels or parts of each hyperparameter.
    by_alpha_rule: rankings within each rule by which alpha follows the rank.
    top: what matters among the best configurations.
    alternatives: what the other levels of each hyperparameter reach.
    noise: of one trial's learning, and of its forgetting.
    contenders: trials off the front that noise alone may keep from it.
    matched_comparisons: learning at equal forgetting, and forgetting at equal learning.
    programs: what running generated programs showed, empty where none were run.
    spectra: of each trial whose update was measured.
    proxy: how well response loss ranks the trials.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    name: str
    question: str
    axes: tuple[str, ...]
    domains: tuple[str, ...]
    state: str | None
    base: Scores | None
    bases: Mapping[str, Scores]
    statuses: Mapping[str, Mapping[str, int]]
    scales: Mapping[str, Mapping[str, Scale]]
    rankings: Mapping[str, Ranking]
    by_alpha_rule: Mapping[str, tuple[AlphaRuleRanking, ...]]
    top: Mapping[str, TopRanking]
    alternatives: Mapping[str, tuple[Alternatives, ...]]
    divergence: Mapping[str, Divergence]
    levels: Mapping[str, Mapping[str, tuple[LevelSummary, ...]]]
    recommendation: Mapping[str, Recommendation]
    proxy: Mapping[str, Proxy]
    noise: tuple[ScoreNoise, ...]
    curves: tuple[Curve, ...]
    front: tuple[FrontPoint, ...]
    contenders: tuple[Contenders, ...]
    hypervolumes: tuple[Hypervolume, ...]
    matched_comparisons: tuple[MatchedComparison, ...]
    claims: tuple[Claim, ...]
    programs: tuple[Programs, ...]
    spectra: tuple[SpectralSummary, ...]
    budget: Budget
    totals: Totals
    warnings: tuple[str, ...]

    @computed_field
    @property
    def sensitivity(self) -> Mapping[str, tuple[Sensitivity, ...]]:
        """Rows of each study's ranking, by falling importance."""
        return {study: ranking.rows for study, ranking in self.rankings.items()}

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods, where the analysis is of one domain."""
        return tuple(self.statuses)

    def count(self, status: str) -> int:
        """Count the trials of all studies with a status."""
        return sum(counts.get(status, 0) for counts in self.statuses.values())

    def of_domain(self, domain: str) -> Analysis:
        """Narrow the analysis to one domain, its studies named by their methods."""
        if not domain:
            return self
        studies = [study for study in self.statuses if self._domain(study) == domain]
        by_study = {
            name: {
                study.removeprefix(f"{domain}/"): values[study]
                for study in studies
                if study in values
            }
            for name in BY_STUDY
            for values in [getattr(self, name)]
        }
        rows = {
            name: tuple(row for row in getattr(self, name) if row.domain == domain)
            for name in BY_DOMAIN
        }
        return self.model_copy(update={"base": self.bases.get(domain), **by_study, **rows})

    def _domain(self, study: str) -> str:
        """The domain of a study; a domain's own name may hold a slash."""
        return max((d for d in self.domains if study.startswith(f"{d}/")), key=len, default="")

    def to_json(self) -> str:
        """Write the analysis as JSON, NaN and infinity as null."""
        return self.model_dump_json(indent=2) + "\n"


# Fields by study, and those whose rows name their domain.
BY_STUDY = (
    *("statuses", "scales", "rankings", "by_alpha_rule", "top", "alternatives", "divergence"),
    *("levels", "recommendation", "proxy"),
)
BY_DOMAIN = (
    *("noise", "curves", "front", "contenders", "hypervolumes", "matched_comparisons"),
    *("claims", "programs", "spectra"),
)


def read_analysis(path: Path) -> Analysis:
    """Read an analysis.json.

    Raises:
        DataError: it is no analysis.json, or has another schema version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError):
        raise DataError(
            f"{path}: must be JSON with a schema_version, and is not; name the analysis.json in a "
            "report folder"
        ) from None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}, schema_version: must be {SCHEMA_VERSION}, got {version!r}; "
            + (
                "it was written by a later version of lorasweep: read it with that one"
                if isinstance(version, int) and version > SCHEMA_VERSION
                else "it was written by an earlier version of lorasweep: write the report again "
                "with `lorasweep report`"
            )
        )
    try:
        return Analysis.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":  # fields may be added without a new version
            raise DataError(
                f"{path}: must have the fields that this lorasweep knows, got {where!r}, which a "
                "later lorasweep wrote; update lorasweep"
            ) from None
        raise DataError(
            f"{path}, {where}: {first['msg']}; write the report again with `lorasweep report`"
        ) from None
