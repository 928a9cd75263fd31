"""Sweeps to render as a page: nothing in it, one trial, everything, and hostile names."""

import random
from dataclasses import replace
from functools import cache

from lorasweep.analysis.analyse import analyse
from lorasweep.analysis.claims.verdict import FAILS, HOLDS, UNSURE, Claim, cite
from lorasweep.analysis.intervals import Estimate
from lorasweep.analysis.sensitivity.interactions import Interaction
from lorasweep.analysis.tradeoff.curves import Curve, CurvePoint
from lorasweep.analysis.tradeoff.hypervolume import Hypervolume, ReferencePoint
from lorasweep.report.content import content_of
from lorasweep.report.figures import pictures
from lorasweep.report.html import render_page
from lorasweep.store.records import MatrixSpectrum
from lorasweep.store.scores import CodeScores, Distinct, Scores
from tests.analysis.planted import sweep, trial

# Each would run or reach out if any part of the page took a name for markup, script or style.
HOSTILE = (
    "</script><script>window.owned=1</script>",
    "<img src=x onerror=window.owned=1>",
    '"><svg onload=window.owned=1>',
    "{{ 7*7 }} ${window.owned=1} javascript:window.owned=1",
    "__proto__",
    "constructor",
    "<!--<script>",
    "\u2028\u202e</style><style>*{display:none}@import url(https://example.org/x)",
    "' onfocus=window.owned=1 autofocus x='",
)


def analysed(results, interactions=(), **further):
    """Analyse a sweep, with fields of the analysis replaced by those that are given.

    interactions: of every study of LoRA.
    """
    analysis = analyse(results).model_copy(update=further)
    rankings = {
        study: ranking.model_copy(update={"interactions": interactions})
        if interactions and ranking.method == "lora"
        else ranking
        for study, ranking in analysis.rankings.items()
    }
    return analysis.model_copy(update={"rankings": rankings})


def render(results, **further):
    """Render the page, with fields of the analysis replaced by those that are given."""
    analysis = analysed(results, **further)
    own = [(part, analysis.of_domain(part.domain)) for part in results.parts]
    return render_page(
        results,
        [content_of(*pair) for pair in own],
        [pictures(*pair) for pair in own],
        warnings=analysis.warnings,
        setup=[("Trials from", results.origin), ("Model", "a model")],
        commands=[f"lorasweep report --table {results.origin}"],
    )


def draw(results, **further):
    """Make the pictures of each domain, with fields of the analysis replaced."""
    analysis = analysed(results, **further)
    return [pictures(part, analysis.of_domain(part.domain)) for part in results.parts]


def write(folder, results, **further):
    path = folder / "report.html"
    path.write_text(render(results, **further), encoding="utf-8")
    return path.as_uri()


def empty():
    return sweep([])


def one():
    return sweep([trial("only", 0.5, lr=1e-4, targets="all", rank=4)])


def _spectrum(rank, draw):
    return tuple(
        MatrixSpectrum(
            name=f"layers.{layer}.{module}",
            layer=layer,
            module=module,
            outputs=256,
            inputs=256,
            update=max(1, round(rank * draw.uniform(0.6, 1))),
            base=170,
            tuned=171,
            noise=200,
            noisy=175,
            effective=rank * 0.8,
            share=0.02,
            intruders=layer % 3,
        )
        for layer in range(8)
        for module in ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    )


def _code(passing, distinct):
    kind = Distinct(all=distinct, passed=distinct / 2, failed=distinct / 2)
    scores = {"1": passing, "10": min(1, passing * 1.6)}
    return {
        "strings": CodeScores(
            problems=20, samples=50, pass_at=scores, exact=kind, whitespace=kind, syntax=kind
        )
    }


def _trials(domain, count, seed):
    """Make trials of two methods whose learning peaks at a rate that depends on the method."""
    draw = random.Random(seed)
    for number in range(count):
        method = "lora" if number % 3 else "full"
        place = draw.uniform(-5, -2) if method == "lora" else draw.uniform(-6, -3)
        targets, rank = draw.choice(["attention", "mlp", "all"]), draw.choice([4, 16, 64, 256])
        peak = -3.4 if method == "lora" else -4.4
        lost = place > peak + 1.1 and draw.random() < 0.6
        score = 0.62 - 0.13 * (place - peak) ** 2 + draw.gauss(0, 0.015)
        if method == "lora":
            score += 0.04 * ["attention", "mlp", "all"].index(targets) + 0.01 * (rank > 4) - 0.06
        forgetting = 0.05 * (place + 6) * (1.6 if method == "full" else 0.8) + draw.gauss(0, 0.01)
        levels: dict[str, float | str] = {
            "lr": 10**place,
            "dropout": 0.05,
            "weight_decay": draw.choice([0.0, 0.1]),
        }
        if method == "lora":
            levels |= {"targets": targets, "rank": rank}
        status = "DIVERGED" if lost else "PRUNED" if draw.random() < 0.08 else "COMPLETE"
        made = trial(
            f"{domain}{number:05d}",
            max(0.0, score),
            status=status,
            method=method,
            number=number // 3 if method == "full" else number - number // 3 - 1,
            seed=number % 2,
            forgetting=forgetting if status == "COMPLETE" else None,
            **levels,
        )
        done = status == "COMPLETE"
        yield made.model_copy(
            update={
                "domain": domain,
                "response_loss": 1.5 - score,
                "tokens": 200_000,
                "wall_s": 94.0,
                "train_s": 70.0,
                "evaluate_s": 24.0,
                "spectrum": _spectrum(200 if method == "full" else rank, draw)
                if number < 60
                else (),
                "code": _code(max(0.0, score), 30 - 20 * score) if done and number < 60 else {},
            }
        )


def everything(count=60, domains=("code", "math")):
    trials = [t for i, domain in enumerate(domains) for t in _trials(domain, count, i)]
    base = Scores(learning=0.21, source_accuracy=0.6, response_loss=1.9, code=_code(0.2, 38))
    made = sweep(trials, axes=("lr", "targets", "rank", "weight_decay"))
    return replace(
        made,
        name="Does LoRA learn less and forget less here?",
        question="Which learning rate, target modules and rank should be used, and what does "
        "learning cost on the source domain, beside full finetuning?",
        base=base,
        bases=dict.fromkeys(domains, base),
        state="complete",
        origin="results/everything",
    )


def further(domains=("code", "math")):
    """Make up what a complete analysis has besides, as the page should show it."""
    claims = [
        Claim(
            id=f"claim-{i}",
            domain=domain,
            statement="The learning rate matters more than the targets, and those more",
            sources=(cite("Biderman et al. 2024", "v2", "section 6", "v1 differs"),),
            verdict=verdict,
            effect=None if i == 2 else -0.124 * (i - 1),
            unit="learning",
            low=None if i == 2 else -0.2,
            high=None if i == 2 else 0.31,
            n=60,
            rule="",
            evidence="too few trials at one of the levels" if i == 2 else "compared",
        )
        for domain in domains
        for i, verdict in enumerate((HOLDS, FAILS, UNSURE))
    ]
    curves = [
        Curve(
            domain=domain,
            method=method,
            configuration={"lr": 1e-4, "rank": 16} if method == "lora" else {"lr": 1e-5},
            duration="tokens",
            points=tuple(
                CurvePoint(
                    at=at,
                    n=3,
                    learning=(0.3 if method == "lora" else 0.36) + 0.05 * step,
                    learning_low=0.28 + 0.05 * step,
                    learning_high=0.33 + 0.05 * step,
                    forgetting=0.01 * step,
                    forgetting_low=0.005 * step,
                    forgetting_high=0.014 * step,
                    source_accuracy=None,
                )
                for step, at in enumerate([250_000, 1_000_000, 4_000_000, 16_000_000])
            ),
        )
        for domain in domains
        for method in ("lora", "full")
    ]
    found = Interaction(
        hyperparameters=("lr", "rank"),
        importance=0.06,
        low=0.02,
        high=0.11,
        chance=0.03,
        is_testable=True,
    )
    return {"claims": tuple(claims), "curves": tuple(curves), "interactions": (found,)}


def hostile():
    """Put a hostile name wherever a user's text can stand."""
    trials = [
        trial(name, 0.1 * i, forgetting=0.01 * i, method=HOSTILE[i % 4]).model_copy(
            update={
                "hyperparameters": {
                    HOSTILE[4]: 10.0**-i,
                    HOSTILE[0]: name,
                    HOSTILE[5]: HOSTILE[1],
                    "n": i,
                },
                "error": HOSTILE[1],
                "spectrum": tuple(
                    replace_name(row, name) for row in _spectrum(4, random.Random(0))
                ),
                "code": _code(0.3, 4),
            }
        )
        for i, name in enumerate(HOSTILE)
    ]
    made = sweep(trials, axes=(HOSTILE[4], HOSTILE[0], HOSTILE[5], "n"))
    text = " ".join(HOSTILE)
    return replace(made, name=text, question=text, origin=text, state="complete")


def replace_name(row, name):
    return row.model_copy(update={"module": name, "name": name})


def hostile_fields():
    points = [
        CurvePoint(
            at=at,
            n=1,
            learning=at / 10,
            learning_low=0.0,
            learning_high=1.0,
            forgetting=None,
            forgetting_low=None,
            forgetting_high=None,
            source_accuracy=None,
        )
        for at in (1, 10)
    ]
    corner = ReferencePoint(learning=0.0, forgetting=1.0)
    return {
        "claims": tuple(
            Claim(
                id=name,
                domain="",
                statement=name,
                sources=(cite(name, name, name, name),),
                effect=0.1,
                unit=name,
                n=1,
                n_of=name,
                rule=name,
                evidence=name,
                reason=name,
                to_decide=name,
            )
            for name in HOSTILE
        ),
        "curves": tuple(
            Curve(method=name, configuration={name: name}, duration=name, points=tuple(points))
            for name in HOSTILE
        ),
        "warnings": HOSTILE,
        "hypervolumes": tuple(
            Hypervolume(
                scope=name,
                area=Estimate(effect=0.1, n=1, n_of=name, basis=name),
                reference=corner,
            )
            for name in HOSTILE
        ),
    }


@cache
def _few():
    few = everything(60, ("",))
    return few, analyse(few)


def many(count):
    """Render very many trials with the analysis of few, since only the page is in question."""
    few, analysis = _few()
    every = replace(everything(count, ("",)), base=few.base)
    return render_page(
        every,
        [content_of(few, analysis.of_domain(""))],
        [pictures(every, analysis.of_domain(""))],
        warnings=(),
        setup=[],
        commands=[],
    )
