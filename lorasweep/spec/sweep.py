"""A whole sweep as one frozen model, read from YAML with every mistake reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lorasweep.errors import SpecError
from lorasweep.spec.contradictions import contradictions
from lorasweep.spec.sections import (
    DataSpec,
    DeepSpeedSpec,
    EvaluateSpec,
    ModelSpec,
    Positive,
    ResourcesSpec,
    SearchSpec,
    TrainSpec,
)
from lorasweep.spec.sentences import sentences_of
from lorasweep.spec.space import AXES, Level, Space
from lorasweep.spec.studies import (
    SECTIONS,
    in_order,
    narrow,
    study_name,
    with_own_range,
)
from lorasweep.spec.targets import Definition, names_of, read_own_sets, with_own_sets
from lorasweep.spec.trial import (
    DURATIONS,
    HYPERPARAMETERS,
    OF_METHOD,
    Frozen,
    Hyperparameters,
    LoraHyperparameters,
    Method,
    TrialSpec,
    content_hash,
)

__all__ = [
    "DataSpec",
    "DeepSpeedSpec",
    "EvaluateSpec",
    "ModelSpec",
    "ResourcesSpec",
    "SearchSpec",
    "SweepSpec",
    "TrainSpec",
    "dump_sweep",
    "parse_sweep",
]

DOMAIN = r"[a-z][a-z0-9-]{0,31}"
Partial = dict[str, Any]  # sections of a sweep, as YAML has them; checked as part of a study


class SweepSpec(Frozen):
    """A whole sweep, or one study of it.

    question: in one sentence, what the sweep should answer; the report opens with it.
    methods: which finetuning methods run, and for each the sections that are its own. Without any,
        `hyperparameters.method` is the only one. Space and hyperparameters above are LoRA's where
        it is among them; full finetuning shares what it has of them, its learning rates scaled
        (`spec/studies.py`).
    domains: what is learned, where it is more than one thing: for each name the sections that are
        its own, `data` and `evaluate` among them.
    domain: of a study, its name in `domains`.
    targets: sets of layers of one's own, by name: a list of layer names, each the end of a full
        name, or a regular expression that must match within a full name.
    hyperparameters: the value of every hyperparameter that is not searched.
    slots: most trials that share one base; `auto` measures how many are worth it, 1 runs every
        trial as a Ray Train job of its own.
    deepspeed: how DeepSpeed shards one trial over its workers. Full finetuning always uses it; LoRA
        with it runs every trial as a job of its own, for bases that do not fit one GPU.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "default"
    question: str = "Which of these hyperparameters matter, and what should I use?"
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    methods: dict[Method, Partial] = {}
    domains: dict[str, Partial] = {}
    domain: str = ""
    targets: dict[str, Definition] = {}
    hyperparameters: Hyperparameters = LoraHyperparameters()
    space: Space
    train: TrainSpec = TrainSpec()
    search: SearchSpec = SearchSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    resources: ResourcesSpec = ResourcesSpec()
    slots: Positive | Literal["auto"] = "auto"
    deepspeed: DeepSpeedSpec | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @field_validator("slots", mode="before")
    @classmethod
    def _known_slots(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"must be auto or a number of at least 1, got {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_the_first_method(cls, content: Any) -> Any:
        """Fill in the method of `hyperparameters`, and its own default ranges."""
        if not isinstance(content, Mapping):
            return content
        content = with_own_sets(content)
        fixed, methods = content.get("hyperparameters"), content.get("methods")
        first = (in_order(methods) if isinstance(methods, Mapping) and methods else ["lora"])[0]
        first = first if first in OF_METHOD else "lora"  # `_known_methods` refuses a wrong name
        if fixed is None or (isinstance(fixed, Mapping) and "method" not in fixed):
            content = {**content, "hyperparameters": {**(fixed or {}), "method": first}}
        else:
            first = str(fixed["method"] if isinstance(fixed, Mapping) else fixed.method)
        if first in OF_METHOD and isinstance(content.get("space"), Mapping):
            content = {**content, "space": with_own_range(content["space"], first)}
        return content

    @field_validator("targets", mode="before")
    @classmethod
    def _own_sets(cls, value: Any) -> Any:
        return read_own_sets({} if value is None else value)

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, value: Any) -> Any:
        for name in value if isinstance(value, Mapping) else ():
            if name not in OF_METHOD:
                raise ValueError(f"must be one of {', '.join(OF_METHOD)}, got {name!r}")
        return _filled(value)

    @field_validator("domains", mode="before")
    @classmethod
    def _known_domains(cls, value: Any) -> Any:
        for name in value if isinstance(value, Mapping) else ():
            if not re.fullmatch(DOMAIN, str(name)):
                raise ValueError(
                    "a name must have up to 32 lower-case letters, digits or '-', a letter first, "
                    f"got {name!r}"
                )
        return _filled(value)

    @field_validator("methods", "domains")
    @classmethod
    def _known_sections(cls, value: dict[str, Partial]) -> dict[str, Partial]:
        for name, sections in value.items():
            unknown = sorted(set(sections) - SECTIONS)
            if unknown:
                raise ValueError(
                    f"{name}.{unknown[0]}: must be one of {', '.join(sorted(SECTIONS))}"
                )
        return value

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        problems: list[str] = []
        first = in_order(self.methods or [self.method])[0]
        if self.method != first:
            problems.append(
                f"hyperparameters.method: must be {first}, the first of methods, or left out, got "
                f"{self.method!r}"
            )
        elif self.methods or self.domains:
            for study in self._narrowed():
                try:
                    SweepSpec.model_validate(study)
                except ValidationError as error:
                    problems += sentences_of(error)
        else:
            problems = contradictions(self)
        if problems:
            raise ValueError("\n".join(dict.fromkeys(problems)))
        return self

    def _narrowed(self) -> list[dict[str, Any]]:
        """Build the content of every study, domain by domain."""
        content = self.model_dump(mode="json")
        methods = in_order(self.methods or [self.method])
        return [
            narrow(content, method, domain)
            for domain in tuple(self.domains) or ("",)
            for method in methods
        ]

    @property
    def studies(self) -> tuple[SweepSpec, ...]:
        """The studies, domain by domain; a sweep of one method and one domain is its only one."""
        # Not cached where it is the sweep itself, or comparing two sweeps would never end.
        return self._studies if self.methods or self.domains else (self,)

    @cached_property
    def _studies(self) -> tuple[SweepSpec, ...]:
        return tuple(SweepSpec.model_validate(study) for study in self._narrowed())

    @property
    def method(self) -> Method:
        """Method of a study."""
        return self.hyperparameters.method

    @property
    def sharding(self) -> DeepSpeedSpec | None:
        """How DeepSpeed shards a trial of a study; None where its trials run in lanes."""
        if self.deepspeed is None and self.method == "full":
            return DeepSpeedSpec()
        return self.deepspeed

    @property
    def has_trunk(self) -> bool:
        """Whether trials of several durations train alike until the shorter one decays."""
        train = self.train
        return (
            train.schedule == "trapezoidal"
            and train.warmup_steps is not None
            and train.steps is None
        )

    def trunk(self, trial: TrialSpec) -> str | None:
        """Hash all of a trial but its duration, where trials of several durations share a trunk."""
        if not self.has_trunk:
            return None
        content = self._content(trial.hyperparameters)
        for duration in DURATIONS:
            content.pop(duration)
        return content_hash([self.identity, content, trial.seed])

    @property
    def study_name(self) -> str:
        """Name of a study among those of its sweep."""
        return study_name(self.method, self.domain)

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes that any study searches, in their fixed order."""
        searched = {axis for study in self.studies for axis in study.space.axes}
        return tuple(axis for axis in AXES if axis in searched)

    def levels_of(self, name: str) -> tuple[Level, ...]:
        """The values that a study's trials have: an axis's levels or ends, or the fixed one."""
        if name in self.space.axes:
            return self.space.levels(2)[name]
        return (getattr(self.hyperparameters, name),)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the result of a trial besides its own configuration."""
        sections = {"model", "data", "train", "evaluate"}
        content = self.model_dump(mode="json", include=sections)
        for measured_besides in ("spectrum", "allow_code_execution"):
            content["evaluate"].pop(measured_besides)
        # Fields that came later are left out at their default, so that earlier trials keep their
        # names.
        if content["train"]["warmup_steps"] is None:
            content["train"].pop("warmup_steps")
        content["data"] = self.data.identity
        # They save memory and change results by rounding only.
        content["evaluate"]["batch_size"] = EvaluateSpec().batch_size
        content["train"]["recompute"] = TrainSpec().recompute
        content["rungs"] = self.search.rungs
        return content

    @property
    def search_content(self) -> dict[str, Any]:
        """Everything that decides which trials run; a longer search keeps its first trials."""
        if self.studies != (self,):
            return {study.study_name: study.search_content for study in self.studies}
        return {
            **self.identity,
            "search": self.search.model_dump(mode="json", exclude={"trials", "confirm", "seeds"}),
            "space": self.space.model_dump(mode="json"),
            "hyperparameters": self.hyperparameters.model_dump(mode="json"),
            "seed": self.seed,
            **({"targets": used} if (used := self.own_sets) else {}),
        }

    @property
    def own_sets(self) -> dict[str, Definition]:
        """The sets of one's own that a study's trials have."""
        used = self.levels_of("targets") if self.method == "lora" else ()
        return {name: layers for name, layers in self.targets.items() if name in used}

    @property
    def search_identity(self) -> str:
        """Hash of everything that decides which trials run."""
        return content_hash(self.search_content)

    def trial(
        self,
        values: Mapping[str, Any],
        *,
        seed: int | None = None,
        stage: Literal["search", "confirm"] = "search",
    ) -> TrialSpec:
        """Build the trial that has these values on the searched axes and this seed."""
        given = {**self.hyperparameters.model_dump(), **values}
        hyperparameters = OF_METHOD[self.method].model_validate(given)
        seed = self.seed if seed is None else seed
        content = self._content(hyperparameters)
        for unused in self._unused(hyperparameters):
            content.pop(unused)
        for later in (name for name in HYPERPARAMETERS if HYPERPARAMETERS[name].is_later):
            if later in content and content[later] == hyperparameters.default_of(later):
                content.pop(later)
        trial = content_hash([self.identity, content, seed])
        return TrialSpec(id=trial, hyperparameters=hyperparameters, seed=seed, stage=stage)

    def _content(self, hyperparameters: Hyperparameters) -> dict[str, Any]:
        """Dump a configuration; a set of one's own stands for its definition."""
        content = hyperparameters.model_dump(mode="json")
        if (own := content.get("targets")) in self.targets:
            content["targets"] = {own: self.targets[own]}
        return content

    def _unused(self, hyperparameters: Hyperparameters) -> tuple[str, ...]:
        """List the fields that another one overrides: durations, and the warm-up."""
        warmup = () if self.train.warmup_steps is None else ("warmup",)
        if self.train.steps is not None:
            return (*DURATIONS, *warmup)
        return ("tokens" if hyperparameters.tokens is None else "epochs", *warmup)


def _filled(sections: Any) -> Any:
    """Accept a method or a domain that is named without sections of its own."""
    if not isinstance(sections, Mapping):
        return sections
    return {name: {} if own is None else own for name, own in sections.items()}


def parse_sweep(content: Mapping[str, Any]) -> SweepSpec:
    """Validate a sweep's content: each section, then the sections against each other.

    Raises:
        SpecError: with one sentence for each mistake, each beginning with its YAML path.
    """
    try:
        return SweepSpec.model_validate(content, context=names_of(content))
    except ValidationError as error:
        raise SpecError(sentences_of(error)) from None


def dump_sweep(spec: SweepSpec) -> str:
    """Write a sweep as YAML that `parse_sweep` reads back to the same value."""
    return yaml.safe_dump(spec.model_dump(mode="json", exclude_none=False), sort_keys=False)
