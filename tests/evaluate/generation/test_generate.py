from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorasweep.errors import LorasweepError
from lorasweep.evaluate.generation import generate, predictor
from lorasweep.evaluate.generation.generate import Sampling, sample, uniforms
from lorasweep.model.packed import PackedCopies
from tests.conftest import sentences
from tests.evaluate.taught import CPU, alone, load, serve

LIVELY = Sampling(samples=5, temperature=1.0, top_p=0.95, max_tokens=21, until=("ver", ". "))
GREEDY = Sampling(samples=1, temperature=0.0, top_p=1.0, max_tokens=20)


def _prompts(tokenizer: Any, count: int = 9) -> list[list[int]]:
    """Make prompts of many lengths."""
    texts = sentences(count, seed=3)
    return [tokenizer(" ".join([text] * (1 + i % 3)))["input_ids"] for i, text in enumerate(texts)]


def _sample(
    served: PackedCopies, tokenizer: Any, sampling: Sampling, batch_size: int = 32, count: int = 9
) -> list[list[list[str]]]:
    return sample(
        served,
        _prompts(tokenizer, count),
        sampling,
        tokenizer=tokenizer,
        batch_size=batch_size,
        device=CPU,
    )


@pytest.fixture(scope="module")
def four(taught_model: Path) -> tuple[PackedCopies, Any]:
    return serve(taught_model, copies=4)


def _uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generate without a key-value cache."""

    def uncached(
        model: Any, texts: predictor.Texts, *, pad: int, device: torch.device
    ) -> predictor.Predictor:
        return predictor._UncachedPredictor(model, texts, pad, device)

    monkeypatch.setattr(generate, "make_predictor", uncached)


@pytest.mark.parametrize("cached", [True, False])
def test_without_temperature_it_writes_what_transformers_writes(
    taught_model: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
):
    model, tokenizer = load(taught_model)
    served, _ = serve(taught_model)
    if not cached:
        _uncached(monkeypatch)
    expected = []
    for prompt in _prompts(tokenizer):
        ids_1T = torch.tensor([prompt])
        written = model.generate(
            ids_1T, attention_mask=torch.ones_like(ids_1T), do_sample=False, max_new_tokens=20
        )
        expected.append([tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)])
    assert _sample(served, tokenizer, GREEDY) == [expected]
    assert len({text for (text,) in expected}) > 1


def test_without_a_cache_it_samples_the_same(
    four: tuple[PackedCopies, Any], monkeypatch: pytest.MonkeyPatch
):
    served, tokenizer = four
    expected = _sample(served, tokenizer, LIVELY)
    _uncached(monkeypatch)
    assert _sample(served, tokenizer, LIVELY) == expected


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
def test_the_batch_size_changes_nothing(four: tuple[PackedCopies, Any], batch_size: int):
    served, tokenizer = four
    expected = _sample(served, tokenizer, LIVELY, count=4)
    assert _sample(served, tokenizer, LIVELY, batch_size, count=4) == expected


def test_a_copy_writes_the_same_in_any_company(four: tuple[PackedCopies, Any]):
    served, tokenizer = four
    together = _sample(served, tokenizer, LIVELY)
    assert together == [_sample(one, tokenizer, LIVELY)[0] for one in alone(served)]
    assert len({str(own) for own in together}) == 4


def test_a_problem_is_answered_the_same_wherever_it_is_dealt(four: tuple[PackedCopies, Any]):
    served, tokenizer = four
    prompts = _prompts(tokenizer)
    whole = _sample(served, tokenizer, LIVELY)
    for worker in range(3):
        numbers = range(len(prompts))[worker::3]
        share = sample(
            served,
            prompts[worker::3],
            LIVELY,
            numbers=numbers,
            tokenizer=tokenizer,
            batch_size=16,
            device=CPU,
        )
        assert share == [own[worker::3] for own in whole]


def test_more_samples_leave_the_first_ones_alone(four: tuple[PackedCopies, Any]):
    served, tokenizer = four
    five = _sample(served, tokenizer, LIVELY)
    eight = _sample(served, tokenizer, replace(LIVELY, samples=8))
    assert [[texts[:5] for texts in own] for own in eight] == five


def test_another_seed_writes_otherwise_and_no_global_draw_matters(
    four: tuple[PackedCopies, Any],
):
    served, tokenizer = four
    torch.manual_seed(0)
    expected = _sample(served, tokenizer, LIVELY)
    state = torch.get_rng_state()
    assert _sample(served, tokenizer, LIVELY) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert _sample(served, tokenizer, replace(LIVELY, seed=1)) != expected


def test_first_tokens_come_as_often_as_the_model_says(tiny_model: Path):
    served, tokenizer = serve(tiny_model)
    (prompt,) = _prompts(tokenizer, 1)
    many = Sampling(samples=4000, temperature=0.1, top_p=0.9, max_tokens=1)
    ((texts,),) = sample(served, [prompt], many, tokenizer=tokenizer, batch_size=4000, device=CPU)
    with served.all_copies() as model:
        logits_V = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    likely_V, ids_V = (logits_V.double() / 0.1).softmax(-1).sort(descending=True)
    kept = int((likely_V.cumsum(-1) - likely_V < 0.9).sum())
    likely_V = likely_V[:kept] / likely_V[:kept].sum()
    expected: dict[str, float] = {}
    for token, probability in zip(ids_V[:kept].tolist(), likely_V.tolist(), strict=True):
        text = "" if token == tokenizer.eos_token_id else tokenizer.decode([*prompt, token])
        text = text[len(tokenizer.decode(prompt)) :]
        expected[text] = expected.get(text, 0.0) + probability
    assert set(texts) <= expected.keys()
    for text, probability in expected.items():
        deviation = (probability * (1 - probability) / len(texts)) ** 0.5
        assert texts.count(text) / len(texts) == pytest.approx(probability, abs=5 * deviation)
    assert kept > 20


def test_a_completion_is_cut_before_the_first_stop_text(four: tuple[PackedCopies, Any]):
    served, tokenizer = four
    free = _sample(served, tokenizer, replace(LIVELY, until=()))
    cut = _sample(served, tokenizer, LIVELY)
    for texts, whole in zip(np.ravel(cut), np.ravel(free), strict=True):
        assert texts == min((whole.split(stop)[0] for stop in LIVELY.until), key=len)
    assert cut != free


@contextmanager
def _counting(model: Any) -> Iterator[list[tuple[int, ...]]]:
    shapes: list[tuple[int, ...]] = []

    def record(_: Any, __: Any, options: dict[str, Any]) -> None:
        shapes.append(tuple(options["input_ids"].shape))

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    yield shapes
    handle.remove()


def test_a_prompt_is_read_once_and_rows_that_have_ended_are_dropped(taught_model: Path):
    served, tokenizer = serve(taught_model)
    many = replace(LIVELY, samples=40, max_tokens=100)
    with _counting(served._packed.base) as shapes:
        _sample(served, tokenizer, many, batch_size=160, count=4)
    read = [rows for rows, tokens in shapes if tokens > 1]
    assert sum(read) == 4
    rows = [rows for rows, tokens in shapes if tokens == 1]
    assert len(rows) < 200
    assert min(rows) < max(rows)
    assert all(row % 16 == 0 for row in rows)


def test_as_many_passes_are_made_for_the_same_answers(taught_model: Path):
    served, tokenizer = serve(taught_model)
    with _counting(served._packed.base) as shapes:
        _sample(served, tokenizer, LIVELY)
        half = len(shapes)
        _sample(served, tokenizer, LIVELY)
    assert shapes[:half] == shapes[half:]


def test_a_long_prompt_loses_its_beginning_and_an_empty_one_begins_with_the_end(
    taught_model: Path,
):
    served, tokenizer = serve(taught_model)
    (prompt,) = _prompts(tokenizer, 1)
    long = (prompt * 40)[:300]

    def write(*prompts: list[int]) -> list[list[str]]:
        return sample(
            served, prompts, GREEDY, tokenizer=tokenizer, batch_size=16, device=CPU
        )[0]  # fmt: skip

    assert write(long, []) == write(long[-108:], [tokenizer.eos_token_id])  # 128 - 20 positions


def test_a_completion_as_long_as_the_model_is_refused(taught_model: Path):
    served, tokenizer = serve(taught_model)
    with pytest.raises(LorasweepError, match=r"max_gen_toks must be less than the model's 128"):
        _sample(served, tokenizer, replace(GREEDY, max_tokens=128))


def test_nothing_is_asked_where_there_are_no_prompts(four: tuple[PackedCopies, Any]):
    served, tokenizer = four
    assert _sample(served, tokenizer, LIVELY, count=0) == [[], [], [], []]


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(0, 255))
def test_draws_are_of_their_own_and_lie_below_one(seed: int, number: int, number_of_sample: int):
    drawn = uniforms(seed, number, number_of_sample, 40)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert np.array_equal(drawn[:7], uniforms(seed, number, number_of_sample, 7))
    for other in ((seed + 1, number, number_of_sample), (seed, number + 1, number_of_sample)):
        assert not np.intersect1d(drawn, uniforms(*other, 40)).size
    assert not np.intersect1d(drawn, uniforms(seed, number, number_of_sample + 1, 40)).size


def test_draws_are_uniform_and_the_same_on_every_machine():
    drawn = np.concatenate([uniforms(1, number, 0, 100) for number in range(200)])
    shares = np.histogram(drawn, bins=20, range=(0, 1))[0] / len(drawn)
    assert np.allclose(shares, 0.05, atol=0.006)
    assert uniforms(1234, 3, 2, 2).tolist() == [0.6520102444343544, 0.4231002098312059]
