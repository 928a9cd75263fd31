import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.data.batches import (
    ALIGNMENT,
    IGNORED,
    MAX_WIDTH_FACTOR,
    MIN_ROWS,
    Batches,
    MicroBatch,
    collate,
    first_fit,
    round_up,
    row_width,
    steps_of,
)
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from tests.examples import pack

PAD = 0


def tokens_of(count: int, longest: int = 11) -> Tokens:
    """Make examples of 2 to `longest` tokens, none of them padding, with loss on some of them."""
    rng = np.random.default_rng(count)
    examples = []
    for length in rng.integers(2, longest + 1, count):
        loss = rng.random(length) < rng.random()  # as in a conversation, anywhere
        loss[rng.integers(1, length)] = True
        examples.append((rng.integers(1, 99, length).tolist(), loss.tolist()))
    return Tokens.pack(examples)


def epoch_steps(examples: int, batch_size: int, epochs: float) -> int:
    trial = LoraHyperparameters(epochs=epochs, batch_size=batch_size)
    return steps_of(trial, TrainSpec(), seq_len=64, examples=examples)


@st.composite
def batches(draw: st.DrawFn) -> Batches:
    micro_batch = draw(st.sampled_from([1, 2, 3]))
    return Batches(
        tokens=tokens_of(draw(st.integers(1, 20))),
        batch_size=micro_batch * draw(st.sampled_from([1, 2, 4, 12])),
        micro_batch=micro_batch,
        seed=draw(st.integers(0, 2**31 - 1)),
        pad=PAD,
        width=draw(st.sampled_from([None, 11, 16, 40])),
        shared=draw(st.booleans()),
    )


def counted(batch: MicroBatch) -> int:
    """Count the predictions that carry loss."""
    return int((batch.labels_K != IGNORED).sum())


@settings(deadline=None)
@given(batches())
def test_every_epoch_is_a_permutation(batches):
    count = len(batches.tokens)
    steps = math.lcm(count, batches.batch_size) // batches.batch_size
    rows = np.concatenate([batches.examples(step) for step in range(steps)])
    assert len(rows) == steps * batches.batch_size
    assert (np.bincount(rows, minlength=count) == len(rows) // count).all()


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_an_example_comes_again_only_when_all_have_come(size, epochs, seed):
    count = size * 4
    batches = Batches(tokens_of(count), batch_size=size, micro_batch=1, seed=seed, pad=PAD)
    orders = []
    for epoch in range(epochs):
        rows = np.concatenate([batches.examples(epoch * 4 + step) for step in range(4)])
        assert sorted(rows.tolist()) == list(range(count))
        orders.append(rows.tolist())
    if count > 8:
        assert all(left != right for i, left in enumerate(orders) for right in orders[:i])


@settings(deadline=None)
@given(batches(), st.integers(0, 50), st.sampled_from([1, 2, 3, 4, 12]))
def test_any_number_of_workers_shares_a_step_without_gap_or_overlap(batches, step, workers):
    alone = {m.index: m for m in batches.for_worker(step, Shard())}
    assert list(alone) == list(range(batches.micro_batches))
    shared = [
        m for worker in range(workers) for m in batches.for_worker(step, Shard(worker, workers))
    ]
    assert sorted(m.index for m in shared) == list(alone)
    for part in shared:
        whole = alone[part.index]
        assert part.tokens == whole.tokens
        for name in ("ids_BT", "positions_BT", "logit_indices_K", "labels_K", "token_indices_S"):
            assert getattr(part, name).equal(getattr(whole, name))


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_a_step_is_a_function_of_seed_and_step_alone(batches, step):
    again = replace(batches, micro_batch=1, width=40, shared=not batches.shared)
    for earlier in range(step % 5):
        again.examples(earlier)
    assert again.examples(step).tolist() == batches.examples(step).tolist()


def test_another_seed_gives_another_order():
    rows = [Batches(tokens_of(50), 50, 1, seed, PAD).examples(0).tolist() for seed in range(4)]
    assert len({tuple(row) for row in rows}) == 4


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_the_targets_of_a_step_are_the_predictions_that_carry_loss(batches, step):
    assert batches.loss_tokens(step) == sum(counted(m) for m in batches.for_worker(step, Shard()))


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_the_longest_examples_of_a_step_come_first(batches, step):
    lengths = [len(batches.tokens.example(row)[0]) for row in batches.examples(step)]
    assert lengths == sorted(lengths, reverse=True)


def laid(batch: MicroBatch) -> list[list[tuple[int, int]]]:
    """Read the examples off a micro-batch: the ids of each, and whether they are predicted."""
    ids, positions = batch.ids_BT.flatten().tolist(), batch.positions_BT.flatten().tolist()
    # Padding with label IGNORED has index 0, and predicts nothing.
    places = zip(batch.logit_indices_K.tolist(), batch.labels_K.tolist(), strict=True)
    predicted = {place + 1: label for place, label in places if label != IGNORED}
    examples: list[list[tuple[int, int]]] = []
    for place in batch.token_indices_S.tolist():
        if positions[place] == 0:
            examples.append([])
        assert positions[place] == len(examples[-1])
        examples[-1].append((ids[place], predicted.pop(place, IGNORED)))
    assert not predicted
    return examples


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_every_example_stands_once_in_one_row_with_loss_on_its_response_alone(batches, step):
    rows = batches.examples(step)
    for m in batches.for_worker(step, Shard()):
        expected = []
        for row in rows[m.index * batches.micro_batch :][: batches.micro_batch]:
            ids, loss = batches.tokens.example(row)
            # The first token of a text is never predicted: nothing comes before it.
            expected.append(
                [(int(t), int(t) if i and loss[i] else IGNORED) for i, t in enumerate(ids)]
            )
        assert laid(m) == expected
        width = m.ids_BT.shape[1]
        ends = np.cumsum([len(example) for example in expected])
        for places in np.split(m.token_indices_S.numpy(), ends[:-1]):
            assert (np.diff(places) == 1).all()
            assert places[0] // width == places[-1] // width
        assert m.tokens == ends[-1] == len(set(m.token_indices_S.tolist()))
        if not batches.shared:
            assert (m.token_indices_S.numpy()[[0, *ends[:-1]]] % width == 0).all()


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_what_is_left_of_a_row_is_padding_on_the_right_each_token_by_itself(batches, step):
    for m in batches.for_worker(step, Shard()):
        left = np.ones(m.ids_BT.numel(), dtype=bool)
        left[m.token_indices_S.numpy()] = False
        assert (m.ids_BT.numpy().ravel()[left] == PAD).all()
        assert (m.positions_BT.numpy().ravel()[left] == 0).all()
        assert (np.diff(left.reshape(m.ids_BT.shape).astype(int), axis=1) >= 0).all()
        predicted = m.labels_K != IGNORED
        assert not left[m.logit_indices_K[predicted].numpy()].any()


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_every_row_has_the_width_asked_for_or_holds_the_longest_example(batches, step):
    longest = int(np.diff(batches.tokens.starts_N1).max())
    for m in batches.for_worker(step, Shard()):
        width = m.ids_BT.shape[1]
        if batches.width is None:
            assert width % ALIGNMENT == 0
            assert longest <= width < longest + ALIGNMENT
        else:
            assert width == batches.width
        assert m.positions_BT.shape == m.ids_BT.shape


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_neither_tokens_nor_predictions_are_ever_a_handful(batches, step):
    for m in batches.for_worker(step, Shard()):
        assert m.ids_BT.numel() >= MIN_ROWS
        assert len(m.logit_indices_K) == len(m.labels_K) >= MIN_ROWS
        filling = len(m.logit_indices_K) - counted(m)
        assert filling == max(0, MIN_ROWS - counted(m))


def test_a_row_of_two_examples_at_chosen_places():
    tokens = pack([([5, 6, 7], 1), ([8, 9], 0), ([3, 4], 1)])
    m = collate(tokens, np.asarray([0, 1, 2]), 4, PAD, 5, shared=True)
    assert m.index == 4
    assert m.ids_BT.tolist()[:2] == [[5, 6, 7, 8, 9], [3, 4, PAD, PAD, PAD]]
    assert m.positions_BT.tolist()[:2] == [[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]]
    assert m.ids_BT.tolist()[2:] == m.positions_BT.tolist()[2:] == [[PAD] * 5] * 2
    assert m.logit_indices_K.tolist()[:4] == [0, 1, 3, 5]
    assert m.labels_K.tolist()[:4] == [6, 7, 9, 4]
    assert m.labels_K.tolist()[4:] == [IGNORED] * (MIN_ROWS - 4)
    assert m.token_indices_S.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_real_end_is_predicted_where_padding_is_the_same_token():
    tokens = pack([([5, 6, PAD], 1), ([7, PAD], 1)])
    m = collate(tokens, np.asarray([0, 1]), 0, PAD, 8, shared=False)
    assert m.labels_K.tolist()[:3] == [6, PAD, PAD]
    assert counted(m) == 3
    assert m.token_indices_S.tolist() == [0, 1, 2, 8, 9]


def test_a_response_that_ends_a_row_is_predicted_within_it():
    tokens = pack([(list(range(1, 17)), 0)] * 2)
    m = collate(tokens, np.asarray([0, 1]), 0, PAD, 16, shared=True)
    assert m.logit_indices_K.tolist() == [*range(15), *range(16, 31)]
    assert m.labels_K.tolist() == [*range(2, 17)] * 2


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(20, 60))
def test_first_fit_places_all_without_overlap_and_opens_no_row_that_it_need_not(lengths, width):
    places = first_fit(np.asarray(lengths), width)
    taken: dict[int, int] = {}
    for length, (row, first) in zip(lengths, places, strict=True):
        assert first == taken.get(row, 0)
        assert first + length <= width
        assert row <= len(taken)
        assert all(width - taken[earlier] < length for earlier in range(min(row, len(taken))))
        taken[row] = first + length
    assert sorted(taken) == list(range(len(taken)))


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(2, 90), st.sampled_from([1, 4, 16]), st.floats(0, 0.1))
def test_a_row_width_holds_the_longest_example_and_at_most_four_times_it(
    count, longest, size, attention
):
    tokens = tokens_of(count, longest)
    widest = round_up(int(np.diff(tokens.starts_N1).max()))
    width = row_width(tokens, size, attention)
    assert widest <= width <= MAX_WIDTH_FACTOR * widest
    assert width % ALIGNMENT == 0


def test_a_row_width_weighs_waste_against_attention():
    thirds = pack([([1] * 30, 0)] * 8 + [([1] * 10, 0)] * 8)
    assert row_width(thirds, 1, 0.0) == 32
    alike = pack([([1] * 32, 0)] * 8)
    assert row_width(alike, 8, 0.01) == 32
    # A row as wide as the one long example holds only one of the others.
    mixed = pack([([1] * 40, 0), *[([1] * 33, 0)] * 30])
    assert row_width(mixed, 16, 0.0) > 48
    assert row_width(mixed, 16, 10.0) == 48


@pytest.mark.parametrize(("length", "rounded"), [(1, 16), (16, 16), (17, 32), (100, 112)])
def test_widths_are_rounded_up_to_whole_vectors(length, rounded):
    assert round_up(length) == rounded


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs", "steps"),
    [
        (100, 10, 1.0, 10),
        (101, 10, 1.0, 11),
        (100, 10, 0.5, 5),
        (3, 10, 1.0, 1),
        (3, 10, 0.001, 1),
        (10, 1, 0.1 + 0.2, 3),
        (1000, 8, 3.0, 375),
    ],
)
def test_steps_are_the_batches_that_the_epochs_fill(examples, batch_size, epochs, steps):
    assert epoch_steps(examples, batch_size, epochs) == steps


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 512), st.floats(0.01, 20))
def test_the_steps_of_an_epoch_see_every_example_and_hardly_more(examples, batch_size, epochs):
    rows = epoch_steps(examples, batch_size, epochs) * batch_size
    assert rows >= examples * epochs - 1e-6 * batch_size
    assert rows < examples * epochs + batch_size + 1e-6
