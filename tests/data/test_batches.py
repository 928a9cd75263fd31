import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorasweep.data.batches import IGNORED, Batches, steps_of
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens

PAD = 0


def tokens_of(count: int) -> Tokens:
    rng = np.random.default_rng(count)
    lengths = rng.integers(2, 12, count)
    return Tokens.pack(
        [(rng.integers(1, 99, n).tolist(), int(rng.integers(0, n))) for n in lengths]
    )


@st.composite
def batches(draw: st.DrawFn) -> Batches:
    micro_batch = draw(st.sampled_from([1, 2, 3]))
    return Batches(
        tokens=tokens_of(draw(st.integers(1, 20))),
        batch_size=micro_batch * draw(st.sampled_from([1, 2, 4, 12])),
        micro_batch=micro_batch,
        seed=draw(st.integers(0, 2**31 - 1)),
        pad=PAD,
    )


@settings(deadline=None)
@given(batches())
def test_every_epoch_is_a_permutation(batches):
    count = len(batches.tokens)
    steps = math.lcm(count, batches.batch_size) // batches.batch_size
    rows = np.concatenate([batches.rows(step) for step in range(steps)])
    assert len(rows) == steps * batches.batch_size
    assert (np.bincount(rows, minlength=count) == len(rows) // count).all()


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_an_example_comes_again_only_when_all_have_come(size, epochs, seed):
    count = size * 4
    batches = Batches(tokens_of(count), batch_size=size, micro_batch=1, seed=seed, pad=PAD)
    orders = []
    for epoch in range(epochs):
        rows = np.concatenate([batches.rows(epoch * 4 + step) for step in range(4)])
        assert sorted(rows.tolist()) == list(range(count))
        orders.append(rows.tolist())
    if count > 8:
        assert all(left != right for i, left in enumerate(orders) for right in orders[:i])


@settings(deadline=None)
@given(batches(), st.integers(0, 50), st.sampled_from([1, 2, 3, 4, 12]))
def test_any_number_of_workers_shares_a_step_without_gap_or_overlap(batches, step, workers):
    alone = {m.index: m for m in batches.micro_batches(step, Shard())}
    assert list(alone) == list(range(batches.batch_size // batches.micro_batch))
    shared = [
        m for worker in range(workers) for m in batches.micro_batches(step, Shard(worker, workers))
    ]
    assert sorted(m.index for m in shared) == list(alone)
    for part in shared:
        assert part.ids_BT.equal(alone[part.index].ids_BT)
        assert part.labels_BT.equal(alone[part.index].labels_BT)
        assert part.tokens == alone[part.index].tokens


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_a_step_is_a_function_of_seed_and_step_alone(batches, step):
    again = Batches(batches.tokens, batches.batch_size, 1, batches.seed, PAD)
    for earlier in range(step % 5):
        again.rows(earlier)
    assert again.rows(step).tolist() == batches.rows(step).tolist()


def test_another_seed_gives_another_order():
    rows = [Batches(tokens_of(50), 50, 1, seed, PAD).rows(0).tolist() for seed in range(4)]
    assert len({tuple(row) for row in rows}) == 4


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_the_targets_of_a_step_are_the_labels_that_the_loss_counts(batches, step):
    counted = sum(
        int((m.labels_BT[:, 1:] != IGNORED).sum()) for m in batches.micro_batches(step, Shard())
    )
    assert batches.targets(step) == counted


@settings(deadline=None)
@given(batches(), st.integers(0, 50))
def test_rows_are_padded_on_the_right_and_padding_carries_no_loss(batches, step):
    rows = batches.rows(step)
    lengths = [len(batches.tokens.example(row)[0]) for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    for m in batches.micro_batches(step, Shard()):
        first = m.index * batches.micro_batch
        for row, ids, labels in zip(rows[first:], m.ids_BT, m.labels_BT, strict=False):
            expected, prompt = batches.tokens.example(row)
            n = len(expected)
            assert ids.tolist() == expected.tolist() + [PAD] * (len(ids) - n)
            assert labels.tolist() == [
                IGNORED if i < prompt or i >= n else expected[i] for i in range(len(ids))
            ]
        assert m.ids_BT.shape == (batches.micro_batch, lengths[first])
        assert m.tokens == sum(lengths[first : first + batches.micro_batch])


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
    assert steps_of(examples, batch_size, epochs) == steps


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 512), st.floats(0.01, 20))
def test_the_steps_of_an_epoch_see_every_example_and_hardly_more(examples, batch_size, epochs):
    rows = steps_of(examples, batch_size, epochs) * batch_size
    assert rows >= examples * epochs - 1e-6 * batch_size
    assert rows < examples * epochs + batch_size + 1e-6
