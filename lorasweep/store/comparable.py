"""Which domains of several sweeps compare, and which settings besides the axes differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.targets import Definition, definition_text
from lorasweep.spec.trial import DURATIONS, canonical_json
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.scores import Scores


@dataclass(frozen=True, eq=False)
class Piece:
    """One domain of one sweep; `studies` by method, empty without a specification."""

    sweep: SweepResults
    domain: str
    studies: Mapping[str, SweepSpec]

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """Trials of this domain."""
        return tuple(trial for trial in self.sweep.trials if trial.domain == self.domain)

    @property
    def base(self) -> Scores | None:
        """Scores of the base, against which the sweep counted forgetting."""
        return self.sweep.bases.get(self.domain, self.sweep.base)

    @property
    def measured(self) -> dict[str, Any]:
        """Settings that must agree for scores to compare, by their path in the sweep file."""
        if not self.studies:
            return {"origin": self.sweep.origin}
        study = next(iter(self.studies.values()))
        # Other differences become hyperparameters (`settings`).
        return {
            "model.path": study.model.path,
            "model.revision": study.model.revision,
            **{
                f"{section}.{name}": value
                for section in ("data", "evaluate")
                for name, value in study.identity[section].items()
            },
        }


@dataclass(frozen=True, eq=False)
class Group:
    """Domains of several sweeps that compare, under one name."""

    name: str
    pieces: tuple[Piece, ...]


def groups(sweeps: Sequence[SweepResults]) -> list[Group]:
    """Group the domains that compare; a single group needs no name."""
    found: dict[str, list[Piece]] = {}
    for sweep in sweeps:
        for piece in _pieces(sweep):
            found.setdefault(canonical_json(piece.measured), []).append(piece)
    together = list(found.values())
    names = [""] if len(together) == 1 else _names(together)
    return [Group(name, tuple(own)) for name, own in zip(names, together, strict=True)]


def _pieces(sweep: SweepResults) -> Iterator[Piece]:
    studies = sweep.spec.studies if sweep.spec else ()
    for part in sweep.parts:
        own: dict[str, SweepSpec] = {s.method: s for s in studies if s.domain == part.domain}
        yield Piece(sweep, part.domain, own)


def _names(together: Sequence[Sequence[Piece]]) -> list[str]:
    """Choose the shortest names that tell the groups apart: domain, sweep, or both."""
    ways: tuple[Callable[[Piece], str], ...] = (
        lambda piece: piece.domain or piece.sweep.name,
        lambda piece: f"{piece.sweep.name} {piece.domain}".strip(),
        lambda piece: f"{Path(piece.sweep.origin).name} {piece.domain}".strip(),
        lambda piece: f"{piece.sweep.origin} {piece.domain}".strip(),
    )
    for name in ways:
        names = [" + ".join(dict.fromkeys(map(name, pieces))) for pieces in together]
        if len(set(names)) == len(names):
            break
    return names


def differing(found: Sequence[Group]) -> list[str]:
    """List the settings in which the groups differ."""
    measured = [group.pieces[0].measured for group in found]
    paths = dict.fromkeys(path for one in measured for path in one)
    return [path for path in paths if len({repr(one.get(path)) for one in measured}) > 1]


@dataclass(frozen=True)
class Settings:
    """Hyperparameters that a merged study's trials gain and lose.

    Merged sweeps may fix different training settings; without those settings, two such trials would
    pass for one configuration on two seeds.

    lasting: duration of a trial, where the sweeps count it in different units: `40 steps`, or the
        hyperparameter that sets it.
    renamed: sets of targets that other sweeps define otherwise, each with its definition.
    """

    added: Mapping[str, Level]
    dropped: frozenset[str]
    lasting: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)

    def of(self, trial: TrialResult) -> dict[str, Level]:
        """Hyperparameters of a trial among those of the other sweeps."""
        kept = {k: v for k, v in trial.hyperparameters.items() if k not in self.dropped}
        if self.lasting:
            level = trial.hyperparameters.get(self.lasting)
            kept["duration"] = self.lasting if level is None else f"{level} {self.lasting}"
        if (targets := kept.get("targets")) in self.renamed:
            kept["targets"] = self.renamed[str(targets)]
        return {**kept, **self.added}


def settings(studies: Sequence[SweepSpec]) -> list[Settings]:
    """Find the settings that set studies of one method apart, study by study."""
    kinds = [_kind(study) for study in studies]
    mixed = len(set(kinds)) > 1
    unused = {"steps": DURATIONS, "tokens": ("epochs",), "epochs": ("tokens",)}
    trained = [_trained(study) for study in studies]
    varied = [
        name
        for name in trained[0]
        if len({one[name] for one in trained}) > 1 and not (mixed and name == "train.steps")
    ]
    renamed = _renamed_sets(studies)
    return [
        Settings(
            added={name: one[name] for name in varied},
            dropped=frozenset(DURATIONS if mixed else unused[kind]),
            lasting=f"{study.train.steps} steps" if mixed and kind == "steps" else kind * mixed,
            renamed={
                name: f"{name}={definition_text(study.targets[name])}"
                for name in renamed & study.targets.keys()
            },
        )
        for study, one, kind in zip(studies, trained, kinds, strict=True)
    ]


def _renamed_sets(studies: Sequence[SweepSpec]) -> set[str]:
    """Collect the names of sets of targets that the studies define differently."""
    definitions: dict[str, set[Definition]] = {}
    for study in studies:
        for name, definition in study.targets.items():
            definitions.setdefault(name, set()).add(definition)
    return {name for name, found in definitions.items() if len(found) > 1}


def _trained(study: SweepSpec) -> dict[str, Level]:
    """Collect the fixed training settings of a study, as levels."""
    # In the identity, fields that change no result have the same value in all studies.
    train = {**study.train.model_dump(mode="json"), **study.identity["train"]}
    fixed = {f"train.{name}": value for name, value in train.items()}
    return {
        name: _level(value) for name, value in {**fixed, "model.dtype": study.model.dtype}.items()
    }


def _level(value: Any) -> Level:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return value if isinstance(value, float | int | str) else " ".join(map(str, value))


def _kind(study: SweepSpec) -> str:
    """Unit of a trial's duration: steps, tokens or epochs."""
    if study.train.steps is not None:
        return "steps"
    given = study.hyperparameters.tokens is not None or "tokens" in study.space.axes
    return "tokens" if given else "epochs"
