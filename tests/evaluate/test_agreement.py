from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.evaluate.agreement import (
    SAMPLE_TOKENS,
    SAMPLES,
    BaseSamples,
    base_agreement,
    sample_base,
)
from lorasweep.model.packed import PackedCopies, PackedModel
from lorasweep.spec.trial import LoraHyperparameters
from tests.evaluate.taught import CPU, alone, load, serve
from tests.workers import TwoWorkers

FIRST = 0


@pytest.fixture(scope="module")
def samples(tiny_model: Path) -> BaseSamples:
    model, _ = load(tiny_model)
    return sample_base(model, FIRST, positions=128, batch_size=16, device=CPU)


def _agreement(
    folder: Path,
    samples: BaseSamples,
    batch_size: int,
    shard: Shard = Shard(),  # noqa: B008
) -> float:
    served, _ = serve(folder)
    (agreement,) = base_agreement(served, samples, batch_size=batch_size, shard=shard, device=CPU)
    return agreement


def _of_copies(
    served: PackedCopies,
    samples: BaseSamples,
    shard: Shard = Shard(),  # noqa: B008
) -> list[float]:
    return base_agreement(served, samples, batch_size=16, shard=shard, device=CPU)


def test_samples_begin_with_the_first_token_and_are_of_the_base(
    tiny_model: Path, samples: BaseSamples
):
    assert samples.ids_BT.shape == samples.predictions_BT.shape == (SAMPLES, SAMPLE_TOKENS)
    assert (samples.ids_BT[:, 0] == FIRST).all()
    assert len({tuple(row) for row in samples.ids_BT.tolist()}) == SAMPLES
    model, _ = load(tiny_model)
    likeliest = [
        model(input_ids=torch.from_numpy(row)[None]).logits[0].argmax(-1) for row in samples.ids_BT
    ]
    assert (torch.stack(likeliest).numpy() == samples.predictions_BT).all()


def test_samples_follow_the_distribution_of_the_base(taught_model: Path):
    model, _ = load(taught_model)
    drawn = sample_base(model, FIRST, positions=2, batch_size=16, device=CPU).ids_BT[:, 1]
    chances = model(input_ids=torch.tensor([[FIRST]])).logits[0, -1].softmax(-1)
    mean = float(chances[torch.from_numpy(drawn)].mean())
    # A draw of chance p has chance p, so the mean is the sum of squares, up to 64 draws' noise.
    spread = float((chances**3).sum() - (chances**2).sum() ** 2) ** 0.5 / SAMPLES**0.5
    assert mean == pytest.approx(float((chances**2).sum()), abs=4 * spread)


def test_samples_are_the_same_each_time(tiny_model: Path, samples: BaseSamples):
    torch.manual_seed(99)
    model, _ = load(tiny_model)
    again = sample_base(model, FIRST, positions=128, batch_size=16, device=CPU)
    assert (again.ids_BT == samples.ids_BT).all()


def test_samples_fit_the_positions_of_the_model(tiny_model: Path):
    model, _ = load(tiny_model)
    short = sample_base(model, FIRST, positions=5, batch_size=16, device=CPU)
    assert short.ids_BT.shape == (SAMPLES, 5)


@pytest.mark.parametrize("batch_size", [3, 16, 64])
def test_the_base_agrees_with_itself_everywhere(
    tiny_model: Path, samples: BaseSamples, batch_size: int
):
    assert _agreement(tiny_model, samples, batch_size) == 1.0


def test_a_fresh_adapter_agrees_with_the_base_everywhere(tiny_model: Path, samples: BaseSamples):
    packed = PackedModel(load(tiny_model)[0], CPU)
    adapter = packed.adapter(LoraHyperparameters(rank=2, dropout=0.5), 0)
    packed.stack([adapter])
    assert _of_copies(PackedCopies(packed, [adapter]), samples) == [1.0]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_copy_agrees_as_much_in_any_company(
    tiny_model: Path, samples: BaseSamples, batch_size: int
):
    served, _ = serve(tiny_model, copies=4)
    few = BaseSamples(samples.ids_BT[:20], samples.predictions_BT[:20])
    agreements = [
        base_agreement(one, few, batch_size=batch_size, shard=Shard(), device=CPU)
        for one in (served, *alone(served))
    ]
    assert agreements[0] == [agreement for (agreement,) in agreements[1:]]
    assert len(set(agreements[0])) == 4


def test_a_changed_model_agrees_less_the_more_it_has_changed(
    tiny_model: Path, samples: BaseSamples
):
    agreements = []
    for size in (0.002, 0.02, 0.2):
        model, _ = load(tiny_model)
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(size * torch.randn_like(weight))
        agreements += _of_copies(PackedCopies(PackedModel(model, CPU)), samples)
    assert 1 > agreements[0] > agreements[1] > agreements[2] >= 0


def test_agreement_is_the_share_of_positions(tiny_model: Path, samples: BaseSamples):
    missed = samples.predictions_BT.copy()
    missed[:3, :7] += 1
    changed = BaseSamples(samples.ids_BT, missed)
    assert _agreement(tiny_model, changed, 16) == 1 - 3 * 7 / missed.size


def test_the_number_of_workers_changes_nothing(
    taught_model: Path, samples: BaseSamples, two_workers: TwoWorkers
):
    alone = _agreement(taught_model, samples, 16)
    assert 0 < alone < 1
    assert two_workers(_agreement, taught_model, samples, 16) == [alone, alone]
    one = BaseSamples(samples.ids_BT[:1], samples.predictions_BT[:1])
    alone = _agreement(taught_model, one, 16)
    assert two_workers(_agreement, taught_model, one, 16) == [alone, alone]


def _of_many(
    folder: Path,
    samples: BaseSamples,
    shard: Shard = Shard(),  # noqa: B008
) -> list[float]:
    return _of_copies(serve(folder, copies=3)[0], samples, shard)


def test_the_number_of_workers_changes_no_copy(
    tiny_model: Path, samples: BaseSamples, two_workers: TwoWorkers
):
    expected = _of_many(tiny_model, samples)
    assert two_workers(_of_many, tiny_model, samples) == [expected, expected]


def test_measuring_leaves_model_and_samples_as_they_were(tiny_model: Path, samples: BaseSamples):
    served, _ = serve(tiny_model, copies=2)
    model = served._packed.base
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = samples.ids_BT.copy()
    for training in (True, False):
        model.train(training)
        _of_copies(served, samples)
        assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert np.array_equal(kept, samples.ids_BT)
