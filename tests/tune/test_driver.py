"""What the driver refuses once it knows the cluster, before it claims the results folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.errors import ModelError
from lorasweep.spec.sweep import SweepSpec
from lorasweep.tune.driver import _check_precision
from lorasweep.tune.prepare import Prepared, prepare
from tests.data.conftest import make_tokenizer
from tests.lanes.conftest import make_sweep
from tests.model.families import model_of

__all__ = ["make_sweep"]


@pytest.fixture(scope="module")
def prepared(make_sweep, tmp_path_factory) -> Prepared:
    """A sweep of all layers of a base of which PEFT takes some for experts."""
    base: Path = tmp_path_factory.mktemp("base")
    model_of("deepseek_v2").save_pretrained(str(base))
    make_tokenizer(framing=False).save_pretrained(str(base))
    spec: SweepSpec = make_sweep(
        model={"path": str(base)}, hyperparameters={"targets": "all"}, space={"lr": True}
    )
    return prepare(spec)


def test_dtype_auto_is_refused_where_it_would_be_bf16(prepared):
    found = prepared.arrivals["all"]
    assert found.is_whole
    assert found.by_weight == 6
    _check_precision(prepared, on_gpus=False)
    with pytest.raises(ModelError, match=r"^space.targets: an adapter of 'all' cannot be kept of"):
        _check_precision(prepared, on_gpus=True)


def test_families_without_such_layers_train_on_gpus(make_sweep):
    _check_precision(prepare(make_sweep()), on_gpus=True)
