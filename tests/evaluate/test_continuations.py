from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lorasweep.errors import LorasweepError
from lorasweep.evaluate import continuations
from lorasweep.evaluate.continuations import Continuations, Pair
from lorasweep.model.packed import PackedCopies
from tests.evaluate.taught import CPU, alone, load, serve

# Of various lengths; some differ only in their last token, and one occurs twice.
PAIRS: list[Pair] = [
    ([5, 6, 7], [8]),
    ([5, 6, 7], [9]),
    ([5, 6, 7], [9, 10, 11]),
    ([5, 6], [7, 8]),
    ([3], list(range(4, 60))),
    ([5, 6, 7], [8]),
    (list(range(100, 140)), [1, 2, 3, 4]),
]


def _by_hand(folder: Path, pairs: list[Pair]) -> tuple[list[float], list[int]]:
    """Score one continuation after another, token by token."""
    model, _ = load(folder)
    log, right = [], []
    for context, continuation in pairs:
        ids = [*context, *continuation]
        chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        places = range(len(context) - 1, len(ids) - 1)
        log.append(sum(chances[place, ids[place + 1]].item() for place in places))
        right.append(sum(int(chances[place].argmax()) == ids[place + 1] for place in places))
    return log, right


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_likelihoods_equal_those_of_one_continuation_after_another(
    tiny_model: Path, batch_size: int
):
    model, _ = load(tiny_model)
    likely = int(model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
    pairs = [*PAIRS, ([5, 6, 7], [likely])]
    served, _ = serve(tiny_model)
    answers = Continuations(pairs, batch_size=batch_size, pad=0, positions=128).score(served, CPU)
    log, right = _by_hand(tiny_model, pairs)
    assert answers.log_CN[0].tolist() == pytest.approx(log, rel=1e-6)
    assert answers.correct_CN[0].tolist() == right
    assert right[-1] == 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_copy_answers_the_same_in_any_company(tiny_model: Path, batch_size: int):
    served, _ = serve(tiny_model, copies=4)
    asked = Continuations(PAIRS, batch_size=batch_size, pad=0, positions=128)
    together = asked.score(served, CPU)
    for copy, by_itself in enumerate(alone(served)):
        answers = asked.score(by_itself, CPU)
        assert np.array_equal(answers.log_CN[0], together.log_CN[copy])
        assert np.array_equal(answers.correct_CN[0], together.correct_CN[copy])
    assert len({tuple(log) for log in together.log_CN.tolist()}) == 4


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many predictions are in fp32 at once."""
    counts: list[int] = []
    log_softmax = torch.Tensor.log_softmax

    def watched(logits_PV: torch.Tensor, dim: int, dtype: torch.dtype) -> torch.Tensor:
        counts.append(len(logits_PV))
        return log_softmax(logits_PV, dim, dtype=dtype)

    monkeypatch.setattr(torch.Tensor, "log_softmax", watched)
    return counts


@pytest.mark.parametrize("at_a_time", [1, 7, 64])
def test_how_many_tokens_are_judged_at_a_time_changes_nothing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int], at_a_time: int
):
    served, _ = serve(tiny_model, copies=2)
    asked = Continuations(PAIRS, batch_size=100, pad=0, positions=128)
    expected = asked.score(served, CPU)
    assert max(rows) == asked.lengths_N.sum()
    rows.clear()
    monkeypatch.setattr(continuations, "TOKENS_AT_A_TIME", at_a_time)
    answers = asked.score(served, CPU)
    assert max(rows) == at_a_time
    assert np.array_equal(answers.log_CN, expected.log_CN)  # bit for bit
    assert np.array_equal(answers.correct_CN, expected.correct_CN)


def test_a_batch_has_fewer_texts_where_much_is_predicted(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    served, _ = serve(tiny_model)
    counts: list[int] = []
    head = served._packed.base.get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits_1KV: counts.append(logits_1KV.shape[1]))
    pairs: list[Pair] = [([first], list(range(first, first + 20))) for first in range(1, 8)]
    monkeypatch.setattr(continuations, "MAX_PREDICTIONS", 45)
    some = Continuations([*pairs, PAIRS[4]], batch_size=4, pad=0, positions=128).score(served, CPU)
    assert counts == [56, 40, 40, 40, 20]  # the longest alone is more
    monkeypatch.undo()
    many = Continuations([*pairs, PAIRS[4]], batch_size=4, pad=0, positions=128).score(served, CPU)
    assert counts[5:] == [56 + 60, 80]
    assert some.log_CN[0].tolist() == pytest.approx(many.log_CN[0].tolist(), rel=1e-6)


def _texts_asked(served: PackedCopies, pairs: list[Pair]) -> int:
    rows = []
    handle = served._packed.base.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(inputs["input_ids"].any(-1).sum().item()),
        with_kwargs=True,
    )
    Continuations(pairs, batch_size=2, pad=0, positions=128).score(served, CPU)
    handle.remove()
    return int(sum(rows))


def test_continuations_that_differ_in_their_last_token_are_asked_with_one_text(tiny_model: Path):
    served, _ = serve(tiny_model)
    assert _texts_asked(served, PAIRS[:2]) == 1
    assert _texts_asked(served, PAIRS) == len(PAIRS) - 3  # (5, 6, 7) occurs three more times


def test_a_long_text_loses_its_beginning(tiny_model: Path):
    served, _ = serve(tiny_model)
    (cut,) = (
        Continuations([PAIRS[-1]], batch_size=2, pad=0, positions=10).score(served, CPU).log_CN[0]
    )
    # Ten tokens are read and the eleventh is predicted.
    log, _ = _by_hand(tiny_model, [(list(range(133, 140)), [1, 2, 3, 4])])
    assert cut == pytest.approx(log[0], rel=1e-6)


def test_a_continuation_that_is_too_long_is_refused():
    Continuations([([1], [2] * 8)], batch_size=2, pad=0, positions=8)
    with pytest.raises(LorasweepError, match="8 positions, got 9 tokens"):
        Continuations([([1], [2] * 9)], batch_size=2, pad=0, positions=8)


@pytest.mark.parametrize("pairs", [[], [([1, 2], [])]])
def test_where_nothing_follows_nothing_is_computed(tiny_model: Path, pairs: list[Pair]):
    served, _ = serve(tiny_model)
    answers = Continuations(pairs, batch_size=2, pad=0, positions=128).score(served, CPU)
    assert answers.log_CN.tolist() == [[0.0] * len(pairs)]
    assert answers.correct_CN.tolist() == [[0] * len(pairs)]
    assert _texts_asked(served, pairs) == 0
